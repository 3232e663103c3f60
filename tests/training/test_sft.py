"""A run learns, is what its config says, and ends the same however it was cut up."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import noise_clip
from tests.training.conftest import chain_rows, curve, make_data, noise_film, write_table
from tests.training.golden import RECORD, golden_curve

from descore.errors import ConfigError, DataError, DescoreWarning
from descore.model.modeling import DescoreModel
from descore.training.config_file import write_config

FULL = ("trainable.language_model.mode=full", "trainable.merger.mode=full", "trainable.vision_tower.mode=full")

KILLED = """
import os, signal, sys
from pathlib import Path
from descore.training.config_file import read_config
from descore.training.sft import train_sft
from descore.training.config import SftConfig
on_progress = lambda step, *_: os.kill(os.getpid(), signal.SIGKILL) if step == int(sys.argv[2]) else None
train_sft(read_config(Path(sys.argv[1]), SftConfig), on_progress=on_progress)
"""
"""Trains by a file of settings until an update, and no further."""


class Killed(BaseException):
    """Nothing catches it."""


def kill_after(number):
    def on_progress(step, of, metrics):  # noqa: ARG001
        if step == number:
            raise Killed

    return on_progress


def in_two_processes(*command):
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run([*launched, *command], capture_output=True, text=True, check=False)


def weights(out):
    return DescoreModel.from_pretrained(out / "model").state_dict()


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def straight(train, tmp_path_factory):
    """Six updates on adapters with dropout, two passes over ten examples."""
    out = tmp_path_factory.mktemp("straight") / "run"
    return out, train(out)


def test_it_learns(straight):
    losses = curve(straight[0])
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert losses[6] < 0.97 * losses[1]


@pytest.mark.slow
def test_the_golden_run(tmp_path):
    losses = golden_curve(make_data(tmp_path))
    assert losses[-1] < 0.8 * losses[0]
    # Another processor or release sums in another order; twelve updates of Adam amplify that, but not to a thousandth.
    assert losses == pytest.approx(json.loads(RECORD.read_text())["losses"], rel=1e-3)


def test_a_line_of_metrics_says_how_it_goes(straight):
    line = json.loads((straight[0] / "metrics.jsonl").read_text().splitlines()[2])
    assert set(line) >= {"step", "epoch", "loss", "token_accuracy", "grad_norm", "samples_per_second", "seconds"}
    # One update of warm-up, at 0; the second is at the peak; the third is a fifth down a cosine: (1 + cos 36°) / 2.
    assert line["learning_rate"] == {"language_model": pytest.approx(3e-3 * 0.9045085)}


def test_the_run_says_what_was_run(straight):
    out, trained = straight
    assert json.loads((out / "versions.json").read_text())["torch"] == torch.__version__
    assert "learning_rate: 0.003" in (out / "config.yaml").read_text()
    assert trained.metrics["step"] == 6
    assert trained.unreadable == 0
    assert not trained.already_trained


@pytest.mark.parametrize(
    "overrides",
    [()] + [pytest.param(o, marks=pytest.mark.slow) for o in (FULL, (FULL[1], "model.precision=bfloat16"))],
    ids=["lora", "full", "mixed"],
)
def test_killed_and_gone_on_with_is_the_same_to_the_last_bit(overrides, straight, train, tmp_path):
    whole = straight[0] if not overrides else tmp_path / "whole"
    if overrides:
        train(whole, *overrides)
    with pytest.raises(Killed):
        train(tmp_path / "cut", *overrides, on_progress=kill_after(5))
    train(tmp_path / "cut", *overrides)
    assert curve(tmp_path / "cut") == curve(whole)
    assert_same(weights(tmp_path / "cut"), weights(whole))
    assert '{"resumed_at": 3}' in (tmp_path / "cut" / "metrics.jsonl").read_text()


def test_killed_before_the_model_it_loads_the_trained_weights(straight, train, tmp_path):
    import shutil

    shutil.copytree(straight[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    trained = train(tmp_path / "run")
    assert not trained.already_trained
    assert_same(weights(tmp_path / "run"), weights(straight[0]))


def test_a_run_at_its_end_is_not_done_again(straight, train):
    before = (straight[0] / "metrics.jsonl").read_bytes()
    assert train(straight[0]).already_trained
    assert (straight[0] / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_killed_by_the_system_it_ends_the_same(straight, config_of, train, tmp_path):
    """SIGKILL, with workers that read ahead."""
    write_config(config_of(tmp_path / "run", "data.dataloader_num_workers=1"), tmp_path / "sft.yaml")
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "sft.yaml", "4"], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    train(tmp_path / "run")
    assert curve(tmp_path / "run") == curve(straight[0])
    assert_same(weights(tmp_path / "run"), weights(straight[0]))


@pytest.mark.slow
def test_batch_4_and_4_times_batch_1_are_the_same(train, tmp_path):
    """The loss is averaged over the tokens of an update; chains of unlike lengths would show a mean of means."""
    options = (*FULL, "run.save_steps=9", "optim.max_steps=3")
    train(tmp_path / "four", *options)
    train(tmp_path / "ones", *options, "optim.per_device_train_batch_size=1", "optim.gradient_accumulation_steps=4")
    fours, ones = curve(tmp_path / "four"), curve(tmp_path / "ones")
    # Sums in another order, and padding: float32 roundings, amplified by three updates of Adam.
    assert list(ones.values()) == pytest.approx(list(fours.values()), rel=1e-4)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(config_of, data, train, tmp_path):
    """Of a table that divides evenly: accelerate fills a ragged last batch up with examples from the start."""
    table = write_table(data / "eight.csv", chain_rows(8))
    options = (f"data.train={table}", "trainable.lora.lora_dropout=0", "run.merge=true")
    train(tmp_path / "one", *options)
    config = config_of(
        tmp_path / "two", *options, "optim.per_device_train_batch_size=2", "data.dataloader_num_workers=1"
    )
    write_config(config, tmp_path / "two.yaml")
    done = in_two_processes("-m", "descore", "train", "sft", tmp_path / "two.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: ") == 1
    one, two = list(curve(tmp_path / "one").values()), list(curve(tmp_path / "two").values())
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
def test_two_processes_resume_in_the_order_of_their_epoch(config_of, data, train, tmp_path):
    """Four updates a pass; killed at the seventh, gone on with from the sixth, in the middle of the second pass."""
    table = write_table(data / "eight.csv", chain_rows(8))
    options = (f"data.train={table}", "trainable.lora.lora_dropout=0", "optim.max_steps=8")
    train(tmp_path / "one", *options, "optim.per_device_train_batch_size=2")
    write_config(config_of(tmp_path / "two", *options, "optim.per_device_train_batch_size=1"), tmp_path / "two.yaml")
    (tmp_path / "killed.py").write_text(KILLED)
    assert in_two_processes(tmp_path / "killed.py", tmp_path / "two.yaml", "7").returncode != 0
    done = in_two_processes("-m", "descore", "train", "sft", tmp_path / "two.yaml")
    assert done.returncode == 0, done.stderr
    assert '{"resumed_at": 6}' in (tmp_path / "two" / "metrics.jsonl").read_text()
    one, two = list(curve(tmp_path / "one").values()), list(curve(tmp_path / "two").values())
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
def test_recomputing_layers_changes_nothing(straight, train, tmp_path):
    train(tmp_path / "run", "model.gradient_checkpointing=true", "optim.max_steps=6")
    assert list(curve(tmp_path / "run").values()) == pytest.approx(list(curve(straight[0]).values()), rel=1e-5)


def test_the_base_stays_and_adapters_stay_beside_it(straight, data):
    base, found = (
        load_file(data / "micro" / "model.safetensors"),
        load_file(straight[0] / "model" / "model.safetensors"),
    )
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], base[name]) for name in base)
    adapter = load_file(straight[0] / "model" / "adapter_model.safetensors")
    assert all(".lora_" in name for name in adapter)


def test_transformers_opens_it_with_its_adapters(straight):
    from transformers import AutoModelForImageTextToText

    theirs = AutoModelForImageTextToText.from_pretrained(straight[0] / "model").state_dict()
    ours = DescoreModel.from_pretrained(straight[0] / "model").backbone.state_dict()
    assert_same(theirs, ours)


def test_the_last_evaluation_is_the_models_own(train, data, tmp_path):
    """The model that is read back has the loss that the run says, over tokens and not over batches."""
    from descore.training.collate import ChainCollator
    from descore.training.losses import chain_loss
    from descore.training.sft import ChainTable

    out = tmp_path / "run"
    trained = train(out, f"data.eval={data / 'eval.csv'}", "optim.per_device_train_batch_size=2", "optim.max_steps=2")
    model = DescoreModel.from_pretrained(out / "model")
    table = ChainTable(data / "eval.csv", index=out / "tables" / "eval.arrow", sampling=model.settings.sampling)
    batch = ChainCollator(model.chat)([table[i] for i in range(3)])
    assert trained.metrics["eval_loss"] == pytest.approx(chain_loss(model, batch, model.hidden(batch)).item(), rel=1e-4)


@pytest.mark.slow
def test_evaluating_does_not_change_what_is_learned(straight, train, data, tmp_path):
    train(tmp_path / "run", f"data.eval={data / 'eval.csv'}", "run.eval_steps=2")
    assert curve(tmp_path / "run") == curve(straight[0])


@pytest.mark.slow
def test_merged_it_says_the_same_without_adapters(straight, train, tmp_path):
    train(tmp_path / "run", "run.merge=true")
    merged, beside = (DescoreModel.from_pretrained(out / "model") for out in (tmp_path / "run", straight[0]))
    assert not [name for name, _ in merged.named_parameters() if ".lora_" in name]
    whole = merged.chat.lay_out_chains(merged.chat.lay_out_prompts([noise_clip(0)], ["a"]), [merged.chat.no_thinking])
    with torch.no_grad():
        torch.testing.assert_close(merged.hidden(whole), beside.hidden(whole), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_it_goes_on_from_adapters_by_folding_them_in(straight, train, tmp_path):
    train(tmp_path / "again", f"model.checkpoint={straight[0] / 'model'}", "optim.max_steps=1")
    again = DescoreModel.from_pretrained(tmp_path / "again" / "model")
    adapters = [name for name, _ in again.named_parameters() if ".lora_A" in name]
    assert adapters
    assert not [name for name in adapters if name.count("lora") > 1 or "base_layer.base_layer" in name]


@pytest.mark.slow
def test_a_plain_backbone_becomes_a_reward_model(data, train, tmp_path):
    model = DescoreModel.from_pretrained(data / "micro")
    model.backbone.save_pretrained(tmp_path / "plain")
    model.chat.processor.save_pretrained(tmp_path / "plain")
    (tmp_path / "rubric.txt").write_text("Is it so: {prompt}?")
    sampling = "data.sampling={max_pixels: 4096, min_pixels: 256, size_multiple: 16}"
    overrides = (f"model.backbone={tmp_path / 'plain'}", "model.checkpoint=null", sampling, "optim.max_steps=1")
    train(tmp_path / "run", *overrides, f"model.rubric={tmp_path / 'rubric.txt'}", "model.max_chain_tokens=40")
    trained = DescoreModel.from_pretrained(tmp_path / "run" / "model")
    assert trained.chat.rubric == "Is it so: {prompt}?"
    assert trained.settings.max_chain_tokens == 40
    assert trained.settings.sampling.size_multiple == 16


def test_query_and_head_are_untouched_and_said_not_to_fit(straight, data):
    before, after = (
        load_file(data / "micro" / "reward_head.safetensors"),
        load_file(straight[0] / "model" / "reward_head.safetensors"),
    )
    assert_same(after, before)
    assert DescoreModel.from_pretrained(straight[0] / "model").settings.trained_on is None


def test_another_run_in_the_directory_is_refused_by_what_differs(straight, train):
    with pytest.raises(ConfigError, match=r"holds another run: optim.seed is 0 there, 1 here; choose another"):
        train(straight[0], "optim.seed=1")
    with pytest.raises(ConfigError, match=r"run.resume is false"):
        train(straight[0], "run.resume=false")
    assert train(straight[0], "data.dataloader_num_workers=1", "run.logging_steps=3").already_trained


def test_a_directory_of_something_else_is_refused(train, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"is no run's directory, it holds thesis.tex"):
        train(tmp_path)


def test_frames_that_the_model_cannot_take_are_refused(train, tmp_path):
    with pytest.raises(ConfigError, match="size_multiple is 24; this model's frames come in multiples of 16"):
        train(tmp_path / "run", "data.sampling.size_multiple=24")


@pytest.fixture
def holes(data, tmp_path):
    """A table of ten of which two cannot be read."""
    rows = [{**row, "video": str(data / row["video"])} for row in chain_rows()]
    rows[3]["video"], rows[7]["video"] = "absent.mp4", str(tmp_path / "text.mp4")
    (tmp_path / "text.mp4").write_text("only words")
    return write_table(tmp_path / "holes.csv", rows)


def test_unreadable_videos_are_left_out_named_and_counted_once(holes, train, tmp_path):
    out = tmp_path / "run"
    options = (f"data.train={holes}", "data.max_unreadable=0.2")
    with pytest.warns(DescoreWarning, match="left out"):
        trained = train(out, *options)
    named = [json.loads(line) for line in (out / "unreadable.jsonl").read_text().splitlines()]
    assert {(one["line"], one["reason"]) for one in named} >= {(5, "no such file")}
    assert trained.unreadable == len(named) == 2  # over two passes


@pytest.mark.slow
def test_a_batch_of_nothing_else_is_passed_over(holes, train, tmp_path):
    options = (
        f"data.train={holes}",
        "data.max_unreadable=0.2",
        "optim.per_device_train_batch_size=1",
        "optim.max_steps=10",
    )
    with pytest.warns(DescoreWarning):
        train(tmp_path / "run", *options)
    assert len(curve(tmp_path / "run")) == 8  # of ten updates; a loss of nothing is not 0


def test_too_many_unreadable_videos_end_the_run(holes, train, tmp_path):
    with (
        pytest.warns(DescoreWarning),
        pytest.raises(DataError, match=r"2 of 10 examples cannot be read, data.max_unreadable allows 1") as fault,
    ):
        train(tmp_path / "run", f"data.train={holes}", "data.max_unreadable=0.1")
    assert "\n" not in str(fault.value)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(train, tmp_path):
    with pytest.raises(ConfigError, match=r"step \d: the loss is nan; lower optim.learning_rate"):
        train(tmp_path / "run", *FULL, "optim.learning_rate=1e30", "optim.warmup_ratio=0")


def test_a_faulty_table_does_not_claim_the_directory(train, tmp_path):
    table = write_table(tmp_path / "t.csv", [*chain_rows(2), {"prompt": "p", "video": "0.mp4", "chain": ""}])
    with pytest.raises(DataError):
        train(tmp_path / "run", f"data.train={table}")
    for seed in range(3):
        noise_film(tmp_path / f"{seed}.mp4", seed)
    write_table(table, chain_rows(3))
    train(tmp_path / "run", f"data.train={table}", "optim.max_steps=1", "optim.seed=5")
