import json

import pytest
import yaml

from descore.chains.rounds import RoundsConfig, run_rounds
from descore.cli.world import write_sample
from descore.errors import ConfigError
from descore.synthetic.splits import Split
from tests.chains.made import lines_of

DONE = {"round": 1, "writer": "tiny", "model": "m"}


def make_rounds(folder, table="pairs.csv", **fields):
    """Configs at the smallest size, in files."""
    trainable = {"lora": {"r": 4, "lora_alpha": 8}}
    shared = {"optim": {"max_steps": 1, "per_device_train_batch_size": 2}, "run": {"out": "x", "merge": True}}
    data = {"train": "x", "dataloader_num_workers": 0}
    teacher = {"model": "x", "kind": "native", "max_completion_tokens": 160}
    texts = {
        "collect": {"data": {"table": str(table)}, "teacher": teacher, "num_chains": 2, "run": {"out": "x"}},
        "sft": {"model": {"checkpoint": "x"}, "data": data, "trainable": trainable, **shared},
        "cold_start": {"model": {"checkpoint": "x"}, "data": data, "trainable": trainable, **shared},
    }
    for name, values in texts.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    files = {name: folder / f"{name}.yaml" for name in texts}
    return RoundsConfig(**({"start": "tiny", "rounds": 1, "out": folder / "out", **files} | fields))


@pytest.fixture
def finished(tmp_path):
    """A folder of one finished round."""
    config = make_rounds(tmp_path)
    (config.out / "round-1").mkdir(parents=True)
    (config.out / "round-1" / "round.json").write_text(json.dumps(DONE))
    assert run_rounds(config) == [DONE]
    return config


def test_a_finished_round_is_not_done_again(finished):
    assert run_rounds(finished) == [DONE]


def test_rounds_of_other_settings_are_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"out holds rounds of other settings \(learn_from\); choose another"):
        run_rounds(finished.model_copy(update={"learn_from": "last"}))
    finished.sft.write_text(finished.sft.read_text() + "# another\n")
    with pytest.raises(ConfigError, match=rf"rounds of other settings \({tmp_path}/sft.yaml\)"):
        run_rounds(finished)


def test_settings_may_change_until_something_came(tmp_path):
    for learn_from in ("start", "last"):
        with pytest.raises(ConfigError, match=r"none\.csv: no such file"):
            run_rounds(make_rounds(tmp_path, tmp_path / "none.csv", learn_from=learn_from))


def test_a_config_that_is_not_there_is_named(tmp_path):
    config = make_rounds(tmp_path, sft=tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"sft: .*none.yaml cannot be read"):
        run_rounds(config)


@pytest.mark.slow
def test_two_rounds_write_and_learn(tmp_path):
    write_sample(tmp_path / "world", split=Split.TRAIN, numbers=range(3), size=(64, 64))
    config = make_rounds(tmp_path, tmp_path / "world" / "pairs.csv")
    seen = []
    (first,) = run_rounds(config, on_progress=lambda *progress: seen.append(progress[0]))
    assert first["kept"] <= first["chains"] == 12
    assert first["chains"] - first["kept"] == sum(first["rejected"].values())
    both = run_rounds(config.model_copy(update={"rounds": 2}))
    assert both[0] == first
    assert both[1]["writer"] == first["model"]
    assert list(dict.fromkeys(seen)) == [
        "round 1: writing chains",
        "round 1: learning to write",
        "round 1: learning to score",
    ]
    folder = config.out / "round-2"
    texts = [
        [one["text"] for one in lines_of(config.out / f"round-{n}" / "collect" / "candidates.jsonl")] for n in (1, 2)
    ]
    assert texts[0] != texts[1]
    second = yaml.safe_load((folder / "sft" / "config.yaml").read_text())
    assert second["model"]["checkpoint"] == "tiny"  # each round trains the start model anew
    assert second["data"]["train"].endswith("round-2/collect/chains.jsonl")
