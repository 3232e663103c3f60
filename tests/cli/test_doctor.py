"""`descore doctor`, end to end on a micro model."""

from pathlib import Path

import pytest

from descore.errors import VideoError


def test_doctor_finds_all_well(descore, lines, model):
    result = descore("doctor", "--model", model, "--json")
    [diagnoses] = lines(result)
    assert result.exit_code == 0
    assert diagnoses["ok"] is True
    assert diagnoses["faults"] == []
    assert {"python", "descore", "torch", "torchvision", "transformers", "av", "device", "model"} <= set(diagnoses)
    assert diagnoses["H.264"] == "60 frames of 320x180 decoded, 5 sampled"
    assert "the same words" in diagnoses["alone = batch"]
    assert "the same words" in diagnoses["seed = seed"]
    if diagnoses["device"].startswith("cpu"):
        assert diagnoses["decoding"] == "plain loop: the model is on cpu, graphs need CUDA"


def test_doctor_says_what_is_wrong_and_goes_on(descore, lines, tmp_path):
    result = descore("doctor", "--model", tmp_path / "absent", "--json")
    [diagnoses] = lines(result)
    assert result.exit_code == 1
    assert diagnoses["faults"] == ["model"]
    assert "no such folder" in diagnoses["model"]
    assert "FAIL  model" in descore("doctor", "--model", tmp_path / "absent").stdout


def test_a_build_without_h264_is_a_fault(descore, lines, model, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise VideoError("rabbit.mp4", "this FFmpeg has no decoder for h264")

    monkeypatch.setattr("descore.video.reader.read_clip", refuse)
    [diagnoses] = lines(descore("doctor", "--model", model, "--json"))
    assert diagnoses["faults"][0] == "H.264"
    assert "no decoder for h264" in diagnoses["H.264"]


@pytest.mark.slow
def test_it_says_what_fits_from_the_config_alone(descore, lines, model, tmp_path):
    (tmp_path / "config.json").write_bytes((Path(model) / "config.json").read_bytes())
    result = descore("doctor", "--model", tmp_path, "--memory", "--json")
    [diagnoses] = lines(result)
    assert result.exit_code == 0, result.stderr
    assert list(diagnoses)[:4] == ["scoring", "stage 0", "stage 1", "stage 2"]
    assert "QLoRA" in diagnoses["stage 1"]
    assert diagnoses["ok"] is True


def test_a_model_without_a_config_fits_nothing(descore, lines, tmp_path):
    result = descore("doctor", "--model", tmp_path, "--memory", "--json")
    [diagnoses] = lines(result)
    assert (result.exit_code, diagnoses["faults"]) == (1, ["memory"])
    assert "has no config.json" in diagnoses["memory"]
