"""`descore doctor`, end to end on a micro model."""


def test_doctor_finds_all_well(descore, lines, model):
    result = descore("doctor", "--model", model, "--json")
    [found] = lines(result)
    assert result.exit_code == 0
    assert found["ok"] is True
    assert found["faults"] == []
    assert {"python", "descore", "torch", "torchvision", "transformers", "av", "device", "model"} <= set(found)
    assert "the same words" in found["alone = batch"]
    assert "the same words" in found["seed = seed"]


def test_doctor_says_what_is_wrong_and_goes_on(descore, lines, tmp_path):
    result = descore("doctor", "--model", tmp_path / "absent", "--json")
    [found] = lines(result)
    assert result.exit_code == 1
    assert found["faults"] == ["model"]
    assert "no such folder" in found["model"]
    assert "FAIL  model" in descore("doctor", "--model", tmp_path / "absent").stdout
