"""Learning to score: it learns, is what its config says, and ends the same however it was cut up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import build_micro
from tests.training.conftest import curve, make_data, pair_rows, write_table
from tests.training.golden import COLD_START, golden_cold_start
from tests.training.test_metrics import halve_last_line

from descore.errors import CheckpointError, ConfigError, DataError, DescoreWarning
from descore.model.chat import Layout
from descore.model.modeling import DescoreModel
from descore.scorer import Scorer
from descore.training.config_file import read_config, write_config
from descore.training.models import open_model
from descore.training.rl.config import RlConfig
from descore.training.rl.run import train_rl

FULL = ("trainable.language_model.mode=full", "trainable.merger.mode=full", "trainable.vision_tower.mode=full")
CONSTANT = "optim.lr_scheduler_type=constant_with_warmup"
FROZEN = "trainable.language_model.mode=frozen"


class Killed(BaseException):
    """Nothing catches it."""


def kill_after(number):
    def on_progress(step, of, metrics):  # noqa: ARG001
        if step == number:
            raise Killed

    return on_progress


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def trained(out):
    return DescoreModel.from_pretrained(out / "model")


def assert_same(found, expected):
    found, expected = (model.state_dict() for model in (found, expected))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def straight(cold_start, tmp_path_factory):
    """Six updates of query, head and adapters with dropout, three passes over eight pairs."""
    out = tmp_path_factory.mktemp("cold") / "run"
    return out, cold_start(out)


@pytest.mark.slow
def test_it_learns_to_order_pairs(cold_start, tmp_path):
    options = ("optim.max_steps=12", "data.chain_drop=0", "loss.chain_weight=0", "trainable.lora.lora_dropout=0")
    cold_start(tmp_path / "run", *options, CONSTANT, "run.save_steps=99")
    losses = list(curve(tmp_path / "run").values())
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


@pytest.mark.slow
def test_the_golden_run(tmp_path):
    losses = golden_cold_start(make_data(tmp_path))
    # Another processor or release sums in another order; twelve updates of Adam amplify that, but not to a thousandth.
    assert losses == pytest.approx(json.loads(COLD_START.read_text())["losses"], rel=1e-3)


def test_a_line_of_metrics_says_how_each_part_goes(straight):
    line = lines(straight[0])[2]
    assert set(line) >= {"step", "loss", "pair_loss", "pair_accuracy", "margin", "next_token_loss", "token_accuracy"}
    assert line["loss"] == pytest.approx(line["pair_loss"] + 0.1 * line["next_token_loss"], rel=1e-5)
    # One update of warm-up, at 0; the second is at the peak; the third is a fifth down a cosine: (1 + cos 36°) / 2.
    peaks = {"language_model": 3e-3, "query": 3e-3, "head": 3e-2}
    assert line["learning_rate"] == {part: pytest.approx(peak * 0.9045085) for part, peak in peaks.items()}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                FULL,
                (FROZEN,),
                (
                    "data.group_by_length=true",
                    "optim.gradient_accumulation_steps=2",
                    "optim.per_device_train_batch_size=2",
                ),
            )
        ),
    ],
    ids=["lora", "full", "query and head", "by length"],
)
def test_killed_and_gone_on_with_is_the_same_to_the_last_bit(overrides, straight, cold_start, tmp_path):
    """Killed in the middle of the third pass: the masks of a pass are its own, so it must go on in the right one."""
    whole = straight[0] if not overrides else tmp_path / "whole"
    if overrides:
        cold_start(whole, *overrides)
    with pytest.raises(Killed):
        cold_start(tmp_path / "cut", *overrides, on_progress=kill_after(4))
    cold_start(tmp_path / "cut", *overrides)
    assert curve(tmp_path / "cut") == curve(whole)
    assert_same(trained(tmp_path / "cut"), trained(whole))
    assert {"resumed_at": 3} in lines(tmp_path / "cut")


@pytest.mark.slow
def test_killed_in_the_middle_of_what_it_writes_it_ends_the_same(straight, cold_start, tmp_path):
    """A line of metrics and the state of a checkpoint are half there: the run goes on from before them."""
    out = tmp_path / "cut"
    with pytest.raises(Killed):
        cold_start(out, "run.save_steps=2", on_progress=kill_after(5))
    halve_last_line(out / "metrics.jsonl")
    state = out / "checkpoint-4" / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.warns(DescoreWarning, match=r"trainer_state\.json:5: is not JSON.*going on from checkpoint-2"):
        cold_start(out, "run.save_steps=2")
    assert {"resumed_at": 2} in lines(out)
    assert curve(out) == curve(straight[0])
    assert_same(trained(out), trained(straight[0]))


@pytest.mark.slow
def test_killed_by_the_system_it_ends_the_same(straight, cold_config_of, cold_start, tmp_path):
    """SIGKILL, with workers that read ahead."""
    write_config(cold_config_of(tmp_path / "run", "data.dataloader_num_workers=2"), tmp_path / "cold.yaml")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from descore.training.config import ColdStartConfig\n"
        "from descore.training.config_file import read_config\n"
        "from descore.training.cold_start import train_cold_start\n"
        "on_progress = lambda step, *_: os.kill(os.getpid(), signal.SIGKILL) if step == 5 else None\n"
        "train_cold_start(read_config(Path(sys.argv[1]), ColdStartConfig), on_progress=on_progress)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "cold.yaml"], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    cold_start(tmp_path / "run")
    assert curve(tmp_path / "run") == curve(straight[0])
    assert_same(trained(tmp_path / "run"), trained(straight[0]))


@pytest.mark.slow
def test_killed_before_the_model_it_is_judged_and_written(cold_start, data, tmp_path):
    options = (f"data.eval={data / 'pairs_eval.csv'}", "optim.max_steps=1", "evaluate.chain_sources=[none]")
    cold_start(tmp_path / "run", *options)
    before = (tmp_path / "run" / "evaluation.json").read_text()
    shutil.copytree(tmp_path / "run" / "model", tmp_path / "kept")
    shutil.rmtree(tmp_path / "run" / "model")
    assert not cold_start(tmp_path / "run", *options).already_trained
    assert (tmp_path / "run" / "evaluation.json").read_text() == before
    assert_same(trained(tmp_path / "run"), DescoreModel.from_pretrained(tmp_path / "kept"))
    assert cold_start(tmp_path / "run", *options).already_trained


@pytest.mark.slow
def test_batch_4_and_4_times_batch_1_are_the_same(cold_start, tmp_path):
    """Both means are over an update: of labels and of tokens, which the four batches hold unlike numbers of."""
    options = (*FULL, "run.save_steps=9", "optim.max_steps=3", "dimensions=[overall, motion]", "loss.kind=ties")
    cold_start(tmp_path / "four", *options)
    cold_start(
        tmp_path / "ones", *options, "optim.per_device_train_batch_size=1", "optim.gradient_accumulation_steps=4"
    )
    fours, ones = curve(tmp_path / "four"), curve(tmp_path / "ones")
    # Sums in another order, and padding: float32 roundings, amplified by three updates of Adam.
    assert list(ones.values()) == pytest.approx(list(fours.values()), rel=1e-4)
    assert [line["next_token_loss"] for line in lines(tmp_path / "ones")] == pytest.approx(
        [line["next_token_loss"] for line in lines(tmp_path / "four")], rel=1e-4
    )


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(cold_config_of, data, cold_start, tmp_path):
    """Of a table that divides evenly: accelerate fills a ragged last batch up with pairs from the start."""
    options = (
        "trainable.lora.lora_dropout=0",
        f"data.eval={data / 'pairs_eval.csv'}",
        "optim.gradient_accumulation_steps=1",
    )
    cold_start(tmp_path / "one", *options)
    config = cold_config_of(
        tmp_path / "two", *options, "optim.per_device_train_batch_size=2", "data.dataloader_num_workers=1"
    )
    write_config(config, tmp_path / "two.yaml")
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launched, "-m", "descore", "train", "cold-start", tmp_path / "two.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: ") == 1
    one, two = list(curve(tmp_path / "one").values()), list(curve(tmp_path / "two").values())
    assert two == pytest.approx(one, rel=1e-4)
    judged = [
        {name: value for name, value in lines(tmp_path / run)[-1].items() if "loss" in name} for run in ("one", "two")
    ]
    assert judged[1] == pytest.approx(judged[0], rel=1e-3)
    assert len(judged[0]) == 3


@pytest.mark.slow
def test_shards_learn_the_same_as_a_whole_model(tmp_path):
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launched, "-m", "tests.training.sharded", tmp_path / "learned.safetensors"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def moved(out, start):
    after, before = trained(out).state_dict(), start.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_query_and_head_move_and_nothing_else(cold_start, data, tmp_path):
    """Of the embedding, no row: the query is a weight of its own."""
    cold_start(tmp_path / "run", FROZEN, "optim.max_steps=2", "loss.chain_weight=0")
    assert moved(tmp_path / "run", DescoreModel.from_pretrained(data / "micro")) == {"query", "head.weight"}
    kept = {path.name for path in (tmp_path / "run" / "checkpoint-2").iterdir()}
    assert "learned.safetensors" in kept  # and not the whole backbone for two rows
    assert set(load_file(tmp_path / "run" / "checkpoint-2" / "learned.safetensors")) == {"query", "head.weight"}


@pytest.mark.slow
@pytest.mark.parametrize("row", ["query", "head"])
def test_a_frozen_row_stays(row, cold_start, data, tmp_path):
    cold_start(tmp_path / "run", FROZEN, f"trainable.{row}.mode=frozen", "optim.max_steps=2")
    other = {"query": "head.weight", "head": "query"}[row]
    assert moved(tmp_path / "run", DescoreModel.from_pretrained(data / "micro")) == {other}


def test_adapters_stay_beside_the_base_with_query_and_head(straight, data):
    base = load_file(data / "micro" / "model.safetensors")
    found = load_file(straight[0] / "model" / "model.safetensors")
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], base[name]) for name in base)
    assert all(".lora_" in name for name in load_file(straight[0] / "model" / "adapter_model.safetensors"))
    before, after = (
        load_file(folder / "reward_head.safetensors") for folder in (data / "micro", straight[0] / "model")
    )
    assert not any(torch.equal(before[name], after[name]) for name in ("query", "head"))


@pytest.mark.slow
def test_held_out_pairs_are_judged_as_a_scorer_judges_them(cold_start, data, tmp_path):
    """With the eval table's chains, with chains that the model writes itself, and without any."""
    out = tmp_path / "run"
    ended = cold_start(out, f"data.eval={data / 'pairs_eval.csv'}", "optim.max_steps=2", "evaluate.generated_pairs=4")
    found = {(one["chain_source"], one["dimension"]): one for one in json.loads((out / "evaluation.json").read_text())}
    # Of six pairs, one has no chains and one is a tie; the model writes chains for the first four.
    assert {key: one["accuracy"]["n"] for key, one in found.items()} == {
        ("reference", "overall"): 4,
        ("generated", "overall"): 3,
        ("none", "overall"): 5,
    }
    scorer = Scorer.from_pretrained(out / "model")
    for source, think, rows in (("none", "off", pair_rows(6)), ("generated", "on", pair_rows(4))):
        margins = [
            sum(
                sign * scorer.score(data / row[f"video_{side}"], prompt=row["prompt"], think=think).reward
                for side, sign in (("a", 1), ("b", -1))
            )
            * {"a": 1, "b": -1}[row["preference"]]
            for row in rows
            if row["preference"] != "tie"
        ]
        assert found[source, "overall"]["accuracy"]["value"] == sum(margin > 0 for margin in margins) / len(margins)
        loss = sum(torch.log1p(torch.tensor(-margin).exp()).item() for margin in margins) / len(margins)
        assert ended.metrics[f"eval_{source}_pair_loss"] == pytest.approx(loss, rel=1e-4)


def test_held_out_pairs_without_a_score_are_counted(cold_start, data, tmp_path):
    rows = pair_rows(6)
    rows[0]["video_a"] = rows[4]["video_b"] = "absent.mp4"
    table, out = write_table(data / "holes_eval.csv", rows), tmp_path / "run"
    options = (
        f"data.eval={table}",
        "data.max_unreadable=1",
        "evaluate.chain_sources=[reference, none]",
        "optim.max_steps=1",
        FROZEN,
    )
    with pytest.warns(DescoreWarning, match="left out"):
        metrics = cold_start(out, *options).metrics
    found = {one["chain_source"]: one for one in json.loads((out / "evaluation.json").read_text())}
    # One pair has no chains; of the four that can be read, one is a tie.
    assert (found["none"]["scored"], found["none"]["of"], found["none"]["accuracy"]["n"]) == (4, 6, 3)
    assert (found["reference"]["scored"], found["reference"]["of"]) == (3, 5)
    assert (metrics["eval_pairs"], metrics["eval_pairs_without_score"]) == (6, 2)
    assert "| without chains | overall | 4 of 6 |" in (out / "model" / "README.md").read_text()


def test_the_card_counts_held_out_pairs_without_any_score(cold_start, data, tmp_path):
    table = write_table(data / "gone.csv", [{**row, "video_a": f"gone{i}.mp4"} for i, row in enumerate(pair_rows(2))])
    options = (
        f"data.eval={table}",
        "data.max_unreadable=1",
        "evaluate.chain_sources=[none]",
        "optim.max_steps=1",
        FROZEN,
    )
    with pytest.warns(DescoreWarning, match="not calibrated: 0 clips"):
        metrics = cold_start(tmp_path / "run", *options).metrics
    assert (metrics["eval_none_pairs_scored"], metrics["eval_pairs_without_score"]) == (0, 2)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| without chains | overall | 0 of 2 | no score |" in card
    assert "Nothing was held out" not in card


@pytest.mark.slow
def test_evaluating_does_not_change_what_is_learned(straight, cold_start, data, tmp_path):
    cold_start(tmp_path / "run", f"data.eval={data / 'pairs_eval.csv'}", "run.eval_steps=2")
    assert curve(tmp_path / "run") == curve(straight[0])
    assert sum("eval_none_pair_accuracy" in line for line in lines(tmp_path / "run")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("drop", [0.5, 1.0])
def test_a_score_is_standardized_by_the_calibration_table(drop, cold_start, data, tmp_path):
    """On chains of the model's own; without, where it never saw any. Each clip of a prompt counts once."""
    table = write_table(data / f"calibration_{drop}.csv", pair_rows(3))
    cold_start(
        tmp_path / "run",
        f"data.calibration={table}",
        f"data.chain_drop={drop}",
        "loss.chain_weight=0",
        "optim.max_steps=1",
    )
    scorer = Scorer.from_pretrained(tmp_path / "run" / "model")
    clips = {(row["prompt"], row[f"video_{side}"]) for row in pair_rows(3) for side in "ab"}
    rewards = torch.tensor([scorer.score(data / video, prompt=p).reward for p, video in clips])
    assert scorer.model.settings.reward_mean["overall"] == pytest.approx(rewards.mean().item(), rel=1e-3)
    assert scorer.model.settings.reward_std["overall"] == pytest.approx(rewards.std().item(), rel=1e-3)


def test_the_paradigm_follows_whether_chains_were_trained(cold_start, rl_refuses, tmp_path):
    options = ("loss.chain_weight=0", "optim.max_steps=1", FROZEN)
    cold_start(tmp_path / "without", *options, "data.chain_drop=1")
    without = tmp_path / "without" / "model"
    assert trained(tmp_path / "without").settings.paradigm == "discriminative"
    card = (without / "README.md").read_text()
    assert "It scores at once: it never saw a chain of thought in training." in card
    rl_refuses(without)
    cold_start(tmp_path / "with", *options, f"model.checkpoint={without}")
    assert trained(tmp_path / "with").settings.paradigm == "descore"
    assert "It writes a chain of thought before it scores" in (tmp_path / "with" / "model" / "README.md").read_text()


@pytest.fixture
def pairs_only(data):
    """The pairs without their chains: empty cells, and no such columns."""
    bare = [{k: v for k, v in row.items() if not k.startswith("chain")} for row in pair_rows()]
    write_table(data / "bare.csv", bare)
    write_table(data / "empty.csv", [{**row, "chain_a": "", "chain_b": " "} for row in bare])
    return [data / "empty.csv", data / "bare.csv"]


@pytest.mark.slow
def test_a_table_without_chains_trains_one_that_scores_at_once(cold_start, pairs_only, tmp_path):
    empty, bare = pairs_only
    options = ("loss.chain_weight=0", "optim.max_steps=1", FROZEN)
    with pytest.warns(DescoreWarning, match=rf"{empty}: no row has a chain: trains on pairs only, and the model will"):
        cold_start(tmp_path / "run", *options, f"data.train={empty}", "data.chain_drop=0.5", f"data.calibration={bare}")
    settings = trained(tmp_path / "run").settings
    assert settings.paradigm == "discriminative"
    assert Scorer.from_pretrained(tmp_path / "run" / "model").score(bare.parent / "0.mp4", prompt="p").thinking == ""
    # The mean of its score is over rewards at once, not behind chains that it never learned to read.
    scorer = Scorer.from_pretrained(tmp_path / "run" / "model")
    clips = {(row["prompt"], row[f"video_{side}"]) for row in pair_rows() for side in "ab"}
    rewards = torch.tensor([scorer.score(bare.parent / v, prompt=p, think="off").reward for p, v in clips])
    assert settings.reward_mean["overall"] == pytest.approx(rewards.mean().item(), rel=1e-3)


def test_what_was_asked_for_is_not_warned_of(cold_start, pairs_only, tmp_path):
    options = ("loss.chain_weight=0", "optim.max_steps=1", FROZEN, f"data.train={pairs_only[1]}", "data.chain_drop=1")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no row has a chain")
        cold_start(tmp_path / "run", *options)
    assert trained(tmp_path / "run").settings.paradigm == "discriminative"


def test_chains_cannot_be_learned_from_a_table_without_any(cold_start, pairs_only, tmp_path):
    expected = r"bare\.csv:1: no row has a chain, and loss\.chain_weight=0\.5 learns from them; fill .* or set it to 0"
    with pytest.raises(DataError, match=expected):
        cold_start(tmp_path / "run", "loss.chain_weight=0.5", f"data.train={pairs_only[1]}")


@pytest.fixture
def rl_refuses(data, tmp_path):
    """Stage 2 does not start from a head that never read a chain."""

    def refuse(checkpoint):
        settings = {
            "model": {"checkpoint": str(checkpoint), "precision": "float32"},
            "data": {"train": str(data / "pairs.csv"), "dataloader_num_workers": 0},
            "optim": {"max_steps": 1},
            "run": {"out": str(tmp_path / "rl")},
        }
        (tmp_path / "rl.yaml").write_text(json.dumps(settings))
        with pytest.raises(CheckpointError, match="is discriminative: it was trained without chains"):
            train_rl(read_config(tmp_path / "rl.yaml", RlConfig))

    return refuse


@pytest.mark.slow
def test_an_eval_table_that_is_trained_on_is_reported(cold_start, data, tmp_path):
    """Whatever it is called."""
    shutil.copy(data / "pairs.csv", data / "copy.csv")
    options = ("evaluate.chain_sources=[none]", "optim.max_steps=1", FROZEN)
    with pytest.warns(DescoreWarning, match=r"data\.eval: \S+copy\.csv is the very table that is trained on"):
        cold_start(tmp_path / "same", *options, f"data.eval={data / 'copy.csv'}")
    same = (tmp_path / "same" / "model" / "README.md").read_text()
    assert f"Pairs of `{data / 'copy.csv'}`. That is the very table that was trained on" in same
    cold_start(tmp_path / "other", *options, f"data.eval={data / 'pairs_eval.csv'}")
    other = (tmp_path / "other" / "model" / "README.md").read_text()
    assert f"Pairs of `{data / 'pairs_eval.csv'}`. Whether it shares clips or prompts" in other
    assert "nothing was trained on" not in same + other.partition("## Settings")[0]


def test_without_an_eval_table_the_card_reports_none(straight, data):
    out, _ = straight
    assert trained(out).settings.reward_mean is None
    assert trained(out).settings.trained_on == "8 pairs"
    card = (out / "model" / "README.md").read_text()
    assert "Nothing was held out: how well it does is not known." in card
    assert f"| `{data / 'pairs.csv'}` | 8 | train |" in card
    assert "was not calibrated" in card


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ties", "margin", "regression"])
def test_each_loss_brings_its_curve_down(kind, cold_start, tmp_path):
    options = (f"loss.kind={kind}", "data.chain_drop=0", "loss.chain_weight=0", "trainable.lora.lora_dropout=0")
    cold_start(
        tmp_path / "run",
        *options,
        "optim.max_steps=12",
        "run.save_steps=99",
        CONSTANT,
    )
    losses = list(curve(tmp_path / "run").values())
    assert losses[-1] < 0.9 * losses[0]


def test_several_dimensions_have_a_row_and_an_accuracy_each(cold_start, data, tmp_path):
    options = ("dimensions=[motion, overall]", f"data.eval={data / 'pairs_eval.csv'}", "evaluate.chain_sources=[none]")
    found = cold_start(tmp_path / "run", *options, "optim.max_steps=1").metrics
    assert trained(tmp_path / "run").settings.dimensions == ("motion", "overall")
    assert {"eval_none_pair_accuracy.motion", "eval_none_pair_accuracy.overall"} <= found.keys()
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "with a new head: it scored overall" in card


@pytest.mark.slow
def test_a_head_of_other_dimensions_is_replaced(straight, cold_start, tmp_path):
    start = f"model.checkpoint={straight[0] / 'model'}"
    same = ("optim.max_steps=1", "trainable.head.mode=frozen", FROZEN, "loss.chain_weight=0")
    cold_start(tmp_path / "same", start, *same)
    heads = [load_file(out / "model" / "reward_head.safetensors")["head"] for out in (straight[0], tmp_path / "same")]
    assert torch.equal(*heads)
    assert "whose head goes on" in (tmp_path / "same" / "model" / "README.md").read_text()
    with pytest.warns(DescoreWarning, match="scores overall, dimensions are motion: its head is replaced"):
        cold_start(tmp_path / "other", start, "dimensions=[motion]", "optim.max_steps=1")


def test_a_run_keeps_the_token_layout_of_its_checkpoint(cold_config_of, tmp_path):
    model = build_micro()
    model.settings = model.settings.model_copy(update={"layout": Layout.QUERY_INSIDE})
    model.save_pretrained(tmp_path / "other")
    config = cold_config_of(tmp_path / "run", f"model.checkpoint={tmp_path / 'other'}")
    assert open_model(config, rubric="Seen: {prompt}").chat.layout is Layout.QUERY_INSIDE


@pytest.mark.slow
def test_a_plain_backbone_becomes_a_reward_model(data, cold_start, tmp_path):
    model = build_micro()
    model.backbone.save_pretrained(tmp_path / "plain")
    model.chat.processor.save_pretrained(tmp_path / "plain")
    sampling = "data.sampling={max_pixels: 4096, min_pixels: 256, size_multiple: 16}"
    start = (f"model.backbone={tmp_path / 'plain'}", "model.checkpoint=null", sampling, "dimensions=[overall, motion]")
    cold_start(tmp_path / "run", *start, "optim.max_steps=1", "run.merge=true", "model.precision=bfloat16")
    reward = Scorer.from_pretrained(tmp_path / "run" / "model").score(data / "0.mp4", prompt="a ball", think="off")
    assert set(reward.rewards) == {"overall", "motion"}


@pytest.mark.slow
@pytest.mark.parametrize("option", ["model.gradient_checkpointing=true", "data.dataloader_prefetch_factor=7"])
def test_what_saves_memory_or_time_changes_nothing(option, straight, cold_start, tmp_path):
    cold_start(tmp_path / "run", option)
    assert list(curve(tmp_path / "run").values()) == pytest.approx(list(curve(straight[0]).values()), rel=1e-5)


def test_a_batch_that_cannot_be_read_is_passed_over(cold_start, data, tmp_path):
    rows = [
        {**row, "video_a": str(data / row["video_a"]), "video_b": str(data / row["video_b"])} for row in pair_rows()
    ]
    rows[0]["video_a"] = rows[3]["video_b"] = "absent.mp4"
    table = write_table(tmp_path / "holes.csv", rows)
    options = (
        f"data.train={table}",
        "data.max_unreadable=0.3",
        "optim.per_device_train_batch_size=1",
        "optim.max_steps=8",
    )
    with pytest.warns(DescoreWarning, match="left out"):
        found = cold_start(tmp_path / "run", *options)
    assert found.unreadable == 1  # one video, missed by two pairs
    assert len(lines(tmp_path / "run")) < 8  # a loss of nothing is not 0


@pytest.mark.slow
def test_tensorboard_gets_what_metrics_get(cold_start, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cold_start(tmp_path / "run", "optim.max_steps=2", "run.tensorboard=true")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    found = [event.value for event in events.Scalars("train/loss")]
    assert found == pytest.approx(list(curve(tmp_path / "run").values()))


def test_a_run_of_another_stage_is_refused(straight, train):
    with pytest.raises(ConfigError, match="holds a run of another stage"):
        train(straight[0])


@pytest.mark.parametrize("kind", ["bradley-terry", "margin"])
def test_ties_alone_are_refused_for_losses_of_decided_pairs(kind, cold_start, data, tmp_path):
    table = write_table(data / f"ties_{kind}.csv", [{**row, "preference": "tie"} for row in pair_rows(4)])
    with pytest.raises(DataError) as fault:
        cold_start(tmp_path / "run", f"data.train={table}", f"loss.kind={kind}", "optim.max_steps=1")
    assert str(fault.value) == (
        f"{table}:1: no decided pair in 'overall'; loss.kind bradley-terry and margin learn from a or b; "
        "use loss.kind=ties"
    )
    cold_start(tmp_path / "run", f"data.train={table}", "loss.kind=ties", "optim.max_steps=1", FROZEN)


def test_a_table_of_ties_alone_may_be_held_out(cold_start, data, tmp_path):
    table = write_table(data / "ties_eval.csv", [{**row, "preference": "tie"} for row in pair_rows(2)])
    cold_start(tmp_path / "run", f"data.eval={table}", "optim.max_steps=1", "evaluate.chain_sources=[none]", FROZEN)


def test_a_dimension_that_the_table_lacks_is_named(cold_start, tmp_path):
    with pytest.raises(DataError, match=r"no column preference.colour"):
        cold_start(tmp_path / "run", "dimensions=[colour]")
