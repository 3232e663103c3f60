"""A run resumes from its newest whole checkpoint, and names what is damaged."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file

from descore.errors import CheckpointError, ConfigError, DescoreWarning
from descore.training.cold_start import train_cold_start
from descore.training.dataset import ArrowTable, index_pairs
from descore.training.models import last_checkpoint, load_learned, rotate_checkpoints
from descore.training.rl.run import train_rl
from descore.training.sft import train_sft
from descore.training.trainer import DescoreTrainer
from tests.conftest import build_micro
from tests.training.conftest import make_cold_config, make_config, make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows

FULL = ("trainable.language_model.mode=full", "trainable.lora.lora_dropout=0")
STAGES = {
    "sft": (train_sft, make_config, ()),
    "sft full": (train_sft, make_config, FULL),
    "cold-start": (train_cold_start, make_cold_config, ()),
    "rl": (train_rl, make_rl_config, ()),
}


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("damaged"))
    write_table(folder / "marked.csv", marked_rows())
    return folder


@pytest.fixture(scope="module")
def runs(data):
    """By stage, the folder of a run that was killed after checkpoint-3; made when it is asked for."""
    made = {}

    def run(stage):
        if stage not in made:
            train, make, overrides = STAGES[stage]
            made[stage] = data / stage.replace(" ", "-")
            with pytest.raises(Killed):
                train(
                    make(data, made[stage], "run.save_steps=1", "run.save_total_limit=2", *overrides),
                    on_progress=kill_after(3 if stage == "rl" else 4),  # Trainer saves after it calls back
                )
        return made[stage]

    return run


def kill_after(number):
    def on_progress(step, of, metrics):  # noqa: ARG001
        if step == number:
            raise Killed

    return on_progress


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def halve(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def empty(file):
    file.write_bytes(b"")


def remove(file):
    file.unlink()


def alter(file):
    """One byte of what is stored: in the pickle of an archive, in the header of safetensors, which have no checksum."""
    content = bytearray(file.read_bytes())
    content[content.find(b"\x80\x02") + 5 if file.suffix in (".pt", ".pth") else 12] ^= 0xFF
    file.write_bytes(content)


NEEDED = {
    "sft": ("learned.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"),
    "sft full": ("model/model.safetensors", "optimizer.pt"),
    "cold-start": ("learned.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"),
    "rl": ("learned.safetensors", "optimizer.pt", "trainer_state.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut, halve, empty, alter, remove])
@pytest.mark.parametrize("stage", NEEDED)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(runs, stage, damage, tmp_path):
    for name in NEEDED[stage]:
        out = tmp_path / name.replace("/", "-")
        shutil.copytree(runs(stage), out)
        newest, before = sorted(path.name for path in out.glob("checkpoint-*"))[::-1]
        assert last_checkpoint(out) == out / newest
        damage(out / newest / name)
        if damage is remove and name == "trainer_state.json":  # never finished, by a version that wrote it in place
            assert last_checkpoint(out) == out / before
            continue
        with pytest.warns(DescoreWarning, match=rf"{newest}.*going on from {before}"):
            assert last_checkpoint(out) == out / before
        shutil.rmtree(out / before)
        with pytest.raises(ConfigError, match=rf"no whole checkpoint before it: delete {out / newest} to train"):
            last_checkpoint(out)


@pytest.mark.parametrize("state", ["[]", "{}", '{"global_step": "3", "max_steps": 4}', "[" * 100_000, "9" * 5000])
def test_a_state_of_something_else_is_damage(runs, state, tmp_path):
    shutil.copytree(runs("rl"), tmp_path / "run")
    (tmp_path / "run" / "checkpoint-3" / "trainer_state.json").write_text(state)
    with pytest.warns(DescoreWarning, match="going on from checkpoint-2"):
        assert last_checkpoint(tmp_path / "run").name == "checkpoint-2"


def test_what_is_no_checkpoint_is_passed_over(runs, tmp_path):
    """A checkpoint that a kill left aside has a state already, but perhaps not on the disk."""
    assert last_checkpoint(tmp_path) is None
    shutil.copytree(runs("rl"), tmp_path / "run")
    (tmp_path / "run" / "checkpoint-3").rename(tmp_path / "run" / "checkpoint-3.partial")
    (tmp_path / "run" / "checkpoint-99").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert last_checkpoint(tmp_path / "run").name == "checkpoint-2"


def test_rotation_keeps_the_last_and_drops_what_was_given_up(tmp_path):
    for number in (2, 4, 6, 10):
        (tmp_path / f"checkpoint-{number}").mkdir()
    rotate_checkpoints(tmp_path, step=6, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-4", "checkpoint-6"}


@pytest.mark.slow
def test_weights_of_another_run_are_named(runs):
    file = runs("cold-start") / "checkpoint-3" / "learned.safetensors"
    odd = sorted(load_file(file))[0]
    with pytest.raises(CheckpointError, match=rf"learned\.safetensors: holds other weights .* such as {odd}"):
        load_learned(build_micro().requires_grad_(False), file)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["cold-start", "rl"])
def test_a_run_resumes_before_the_damage_and_ends_the_same(runs, data, stage, tmp_path):
    train, make, _ = STAGES[stage]
    options = ("run.save_steps=1", "run.save_total_limit=2")
    for out in (tmp_path / "whole", tmp_path / "damaged"):
        shutil.copytree(runs(stage), out)
    cut(tmp_path / "damaged" / "checkpoint-3" / "optimizer.pt")
    halve(tmp_path / "damaged" / "versions.json")
    halve(tmp_path / "damaged" / "tables" / "train.arrow")
    train(make(data, tmp_path / "whole", *options))
    with pytest.warns(DescoreWarning) as caught:
        train(make(data, tmp_path / "damaged", *options))
    text = " ".join(str(warning.message) for warning in caught)
    for part in ("going on from checkpoint-2", "versions.json:", "train.arrow: is damaged"):
        assert part in text
    a, b = (load_file(tmp_path / name / "model" / "reward_head.safetensors") for name in ("whole", "damaged"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert json.loads((tmp_path / "damaged" / "versions.json").read_text())["torch"]
    assert not [*(tmp_path / "damaged").rglob("*.partial")]


def test_chains_of_redone_steps_are_taken_out(runs, data, tmp_path):
    """Logged at each step; killed behind step 3 with a checkpoint of step 2, whose third step is then sampled anew."""
    out = tmp_path / "run"
    shutil.copytree(runs("rl"), out)
    shutil.rmtree(out / "checkpoint-3")
    chains = [json.loads(line) for line in (out / "chains.jsonl").read_text().splitlines()]
    extra = {**chains[-1], "step": 3, "chain": "of the course that was given up"}
    with (out / "chains.jsonl").open("a") as file:
        file.write(json.dumps(extra) + "\n")
    train_rl(make_rl_config(data, out, "run.logging_steps=1"))
    records = [json.loads(line) for line in (out / "chains.jsonl").read_text().splitlines()]
    keys = [(r["step"], r["pair"], r["side"], r["sample"]) for r in records]
    assert len(keys) == len(set(keys))
    assert {step for step, *_ in keys} >= {3, 4}
    assert all(record["chain"] != extra["chain"] for record in records)


@pytest.mark.slow
def test_a_checkpoint_has_its_name_only_when_it_is_whole(data, monkeypatch, tmp_path):
    """Trainer alone would write checkpoint-1 in its place, and a kill within would leave it half there."""
    written = DescoreTrainer._save_optimizer_and_scheduler

    def killed(self, folder):
        written(self, folder)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(DescoreTrainer, "_save_optimizer_and_scheduler", killed)
        with pytest.raises(Killed):
            train_sft(make_config(data, tmp_path, "run.save_steps=1"))
    assert not [*tmp_path.glob("checkpoint-*")]
    shutil.copytree(tmp_path / "tables", tmp_path / "checkpoint-9.partial")  # as SIGKILL leaves it
    train_sft(make_config(data, tmp_path, "run.save_steps=3", "run.save_total_limit=1"))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_checkpoint_that_cannot_be_written_is_one_line(data, monkeypatch, tmp_path, error):
    def full(self, folder):  # noqa: ARG001
        raise error

    monkeypatch.setattr(DescoreTrainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(ConfigError, match=r"checkpoint-1: cannot be written .*make room"):
        train_sft(make_config(data, tmp_path, "run.save_steps=1"))
    assert not [*tmp_path.glob("checkpoint-*")]


@pytest.mark.parametrize("damage", [cut, halve, empty])
def test_a_damaged_arrow_file_is_made_anew(data, damage, tmp_path):
    index = tmp_path / "pairs.arrow"
    index_pairs(data / "pairs.csv", index, dimensions=["overall"])
    whole = index.read_bytes()
    damage(index)
    with pytest.warns(DescoreWarning, match=r"pairs\.arrow: is damaged"):
        index_pairs(data / "pairs.csv", index, dimensions=["overall"])
    assert index.read_bytes() == whole
    assert len(ArrowTable(index)) == 8


@pytest.mark.parametrize("config", ["model: [", "[" * 100_000, "model: " + "9" * 5000, "\x00", "model: 3"])
def test_an_altered_config_is_one_line(runs, data, config, tmp_path):
    shutil.copytree(runs("rl"), tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(config)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        train_rl(make_rl_config(data, tmp_path / "run"))


def test_a_kill_before_the_directory_is_claimed_leaves_it_free(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml.partial").write_text("data:")
    train_rl(make_rl_config(data, tmp_path / "run", "optim.max_steps=1"))
    assert (tmp_path / "run" / "model").is_dir()
