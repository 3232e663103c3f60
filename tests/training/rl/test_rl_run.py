"""Stage 2: it learns, is what its config says, and ends the same however it was cut up."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import get_args

import pytest
import torch
from tests.training.conftest import make_data, write_table
from tests.training.golden import RL, RecordedSampler, golden_rl
from tests.training.rl_case import make_rl_config, marked_rows
from transformers import get_scheduler

from descore.config_model import SettingsError
from descore.errors import CheckpointError, ConfigError, DescoreWarning, VideoError
from descore.model.modeling import DescoreModel
from descore.scorer import Scorer
from descore.training.config import Schedule
from descore.training.config_file import write_config
from descore.training.dataset import EpochSampler
from descore.training.rl.run import train_rl
from descore.training.rl.trainer import StepSampler, learning_rate_factor

CONSTANT = "optim.lr_scheduler_type=constant_with_warmup"
FROZEN = "trainable.language_model.mode=frozen"


class Killed(BaseException):
    """Nothing catches it."""


def kill_after(number):
    def on_progress(step, of, metrics):  # noqa: ARG001
        if step == number:
            raise Killed

    return on_progress


def lines(out, file="metrics.jsonl"):
    return [json.loads(line) for line in (out / file).read_text().splitlines()]


TIMED = ("seconds", "seconds_in_rollout", "seconds_in_update", "tokens_per_second")


def curve(out):
    """By step, all that is not a time; of steps that a resumed run did again, the last."""
    found = {line["step"]: line for line in lines(out) if "loss" in line}
    return {step: {name: v for name, v in line.items() if name not in TIMED} for step, line in found.items()}


def chains(out):
    return {(r["step"], r["pair"], r["side"], r["sample"]): r for r in lines(out, "chains.jsonl")}


def trained(out):
    return DescoreModel.from_pretrained(out / "model")


def assert_same(found, expected):
    found, expected = (model.state_dict() for model in (found, expected))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def rl(data):
    """Learn in a run directory, and give back what came of it."""
    write_table(data / "marked.csv", marked_rows())

    def run(out, *overrides, **options):
        torch.manual_seed(99)  # whatever was drawn before must not matter
        return train_rl(make_rl_config(data, out, *overrides), **options)

    return run


@pytest.fixture(scope="module")
def straight(rl, tmp_path_factory):
    """Four steps of query, head and adapters: one pass over eight pairs."""
    out = tmp_path_factory.mktemp("rl") / "run"
    return out, rl(out)


pytestmark = pytest.mark.filterwarnings("ignore:.*head was never trained")


def test_a_line_of_metrics_says_how_each_part_goes(straight):
    line = lines(straight[0])[1]
    assert set(line) >= {
        *("step", "epoch", "loss", "policy_loss", "pair_loss", "grad_norm", "learning_rate", "seconds"),
        *("rollout_reward", "quality", "format", "length_reward", "function", "chain_tokens"),
        *("pair_accuracy", "margin", "reward", "reward_drift", "kl", "entropy", "clip_share"),
        *("groups", "groups_without_spread", "groups_unrated", "groups_truncated"),
        *("chains", "truncated_chains", "unreadable_pairs"),
        *("seconds_in_rollout", "seconds_in_update", "tokens_per_second"),
    }
    assert line["loss"] == pytest.approx(line["policy_loss"] + 0.5 * line["pair_loss"], rel=1e-5)
    assert (line["groups"], line["chains"]) == (4, 12)
    first = lines(straight[0])[0]
    assert first["kl"] == 0.0  # the start is the policy
    assert first["reward_drift"] == pytest.approx(0.0, abs=1e-5)
    assert first["reward_gap"] < 1e-5
    assert line["kl"] > 0


def test_sampled_chains_are_kept_with_their_parts(straight):
    found = chains(straight[0])
    assert {step for step, *_ in found} == {1, 2, 3, 4}
    assert len(found) == 4 * 2 * 3  # a pair of each step, both sides, three samples
    for record in found.values():
        assert record["chain"] is not None
        known = record["parts"]
        worth = sum(
            weight * known.get(part, 0)
            for part, weight in {"quality": 0.7, "format": 0.1, "length": 0.2, "function": 1.0}.items()
        )
        if record["reference_marks"] is None:
            assert record["rollout_reward"] is None
            assert record["advantage"] == 0
        else:
            assert record["rollout_reward"] == pytest.approx(worth)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(("policy.num_iterations=2", "run.logging_steps=3"), marks=pytest.mark.slow),
        pytest.param(
            (
                "trainable.language_model.mode=full",
                "optim.per_device_train_batch_size=1",
                "optim.gradient_accumulation_steps=2",
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["lora", "two passes", "full"],
)
def test_killed_and_gone_on_with_is_the_same_to_the_last_bit(overrides, straight, rl, tmp_path):
    whole = straight[0] if not overrides else tmp_path / "whole"
    if overrides:
        rl(whole, *overrides)
    with pytest.raises(Killed):
        rl(tmp_path / "cut", *overrides, on_progress=kill_after(3))
    rl(tmp_path / "cut", *overrides)
    assert curve(tmp_path / "cut") == curve(whole)
    assert chains(tmp_path / "cut") == chains(whole)
    assert_same(trained(tmp_path / "cut"), trained(whole))
    assert {"resumed_at": 2} in lines(tmp_path / "cut")


@pytest.mark.slow
def test_killed_by_the_system_it_ends_the_same(straight, data, rl, tmp_path):
    """SIGKILL, with workers that read ahead."""
    write_config(make_rl_config(data, tmp_path / "run", "data.dataloader_num_workers=2"), tmp_path / "rl.yaml")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from descore.training.rl.config import RlConfig\n"
        "from descore.training.config_file import read_config\n"
        "from descore.training.rl.run import train_rl\n"
        "on_progress = lambda step, *_: os.kill(os.getpid(), signal.SIGKILL) if step == 3 else None\n"
        "train_rl(read_config(Path(sys.argv[1]), RlConfig), on_progress=on_progress)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": SOURCES}
    killed = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "rl.yaml"], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    rl(tmp_path / "run")
    assert curve(tmp_path / "run") == curve(straight[0])
    assert_same(trained(tmp_path / "run"), trained(straight[0]))


ROOT = Path(__file__).parents[3]
SOURCES = f"{ROOT / 'src'}{os.pathsep}{ROOT}"


def test_the_record_decides_a_draw_at_an_edge_and_no_other():
    """Four tokens of a quarter each: .25 is the edge of tokens 0 and 1."""
    logits_RV, uniform_R1 = torch.zeros(2, 4), torch.tensor([[0.25 + 1e-5], [0.6]], dtype=torch.float64)
    for recorded in ("1 2", "0 2"):
        assert RecordedSampler([recorded])(logits_RV, uniform_R1, temperature=1.0).tolist() == [int(recorded[0]), 2]
    with pytest.raises(AssertionError, match="draw 0"):
        RecordedSampler(["1 3"])(logits_RV, uniform_R1, temperature=1.0)


@pytest.mark.slow
def test_the_golden_run(tmp_path):
    record = json.loads(RL.read_text())["losses"]
    tokens = record.pop("tokens")
    found = golden_rl(make_data(tmp_path), tokens)
    assert found.pop("tokens") == tokens
    assert found.keys() == record.keys()
    for name, values in record.items():
        # Another processor or release sums in another order; updates of Adam amplify that, but not to a hundredth.
        assert found[name] == pytest.approx(values, rel=1e-2, abs=1e-4), name


@pytest.mark.slow
def test_batches_that_are_added_up_give_the_curve_of_one(rl, tmp_path):
    """Chains are drawn from seeds of their own, so they are the same; means are over the whole update."""
    options = ("optim.max_steps=3", "loss.opponents=all", "policy.mask_truncated_completions=true")
    rl(tmp_path / "whole", *options, "optim.per_device_train_batch_size=4")
    rl(tmp_path / "added", *options, "optim.per_device_train_batch_size=1", "optim.gradient_accumulation_steps=4")
    whole, added = curve(tmp_path / "whole"), curve(tmp_path / "added")
    assert whole.keys() == added.keys()
    for step, line in whole.items():
        rates = line.pop("learning_rate")
        assert added[step].pop("learning_rate") == rates
        # Clips beside others: float32 roundings, amplified by updates of Adam.
        assert added[step] == pytest.approx(line, rel=2e-3, abs=1e-5), step


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(data, rl, tmp_path):
    """Of seven pairs, two a step: at the end of a pass the second process has none."""
    seven = write_table(data / "seven.csv", marked_rows(7))
    options = ("optim.max_steps=5", f"data.train={seven}", f"data.eval={data / 'marked.csv'}", "loss.opponents=all")
    rl(tmp_path / "one", *options, "optim.per_device_train_batch_size=2", "optim.gradient_accumulation_steps=1")
    config = make_rl_config(
        data, tmp_path / "two", *options, "optim.per_device_train_batch_size=1", "data.dataloader_num_workers=1"
    )
    write_config(config, tmp_path / "two.yaml")
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launched, "-m", "descore", "train", "rl", tmp_path / "two.yaml"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: ") == 1
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert one.keys() == two.keys()
    for step, line in one.items():
        rates = line.pop("learning_rate")
        assert two[step].pop("learning_rate") == pytest.approx(rates)
        # Sums in another order, and clips beside others: float32 roundings, amplified by updates of Adam.
        assert two[step] == pytest.approx(line, rel=2e-3, abs=1e-5), step
    judged = [
        next(line for line in lines(tmp_path / run) if "eval_generated_pair_loss" in line) for run in ("one", "two")
    ]
    assert judged[1]["eval_generated_pair_loss"] == pytest.approx(judged[0]["eval_generated_pair_loss"], rel=1e-3)


def test_a_step_shows_each_pair_of_a_pass_once_whoever_reads_it():
    """Seven pairs, three a step: the third step of a pass has one, which the second process lacks."""

    def shown(**places):
        return [*StepSampler(EpochSampler(7, seed=1), batch_size=3, **places).between(0, 6)]

    whole = shown()
    assert [len(step) for step in whole] == [3, 3, 1, 3, 3, 1]
    assert sorted(number for step in whole[:3] for _, number in step) == list(range(7))
    assert {epoch for step in whole[3:] for epoch, _ in step} == {1}
    halves = [shown(processes=2, process=p) for p in (0, 1)]
    assert [len(step) for step in halves[1]] == [1, 1, 0, 1, 1, 0]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(step) for step in whole]
    assert [*StepSampler(EpochSampler(7, seed=1), batch_size=3).between(4, 6)] == whole[4:]


def thirds(out, name):
    """Means of the first and the last third of a run."""
    values = [line[name] for line in lines(out) if "loss" in line]
    third = len(values) // 3
    return sum(values[:third]) / third, sum(values[-third:]) / third


@pytest.mark.slow
def test_chains_get_better_at_what_they_are_worth(rl, tmp_path):
    """Vowels are the only part that counts."""
    worth = ("rewards.quality=0", "rewards.length=0", "policy.beta=0", "loss.bt_weight=0")
    faster = (
        "optim.learning_rate=1e-2",
        "optim.per_device_train_batch_size=4",
        "rollout.num_generations=6",
        "trainable.lora.lora_alpha=16",
    )
    rl(
        tmp_path / "run",
        *worth,
        *faster,
        "optim.max_steps=18",
        CONSTANT,
        "run.save_steps=99",
    )
    first, last = thirds(tmp_path / "run", "function")
    assert last > 1.3 * first


@pytest.mark.slow
def test_rewards_learn_the_pairs_where_no_chain_is_learned_from(rl, tmp_path):
    """All chains are cut off, so none is part of its group; nearly greedy, they are much the same at each step."""
    options = (
        "policy.mask_truncated_completions=true",
        "rollout.temperature=0.05",
        "optim.per_device_train_batch_size=4",
    )
    rl(
        tmp_path / "run",
        *options,
        "optim.max_steps=12",
        CONSTANT,
        "run.save_steps=99",
    )
    first, last = thirds(tmp_path / "run", "pair_loss")
    assert last < 0.7 * first
    last = lines(tmp_path / "run")[-1]
    assert last["groups_truncated"] + last["groups_unrated"] == last["groups"] == 8
    assert last["groups_without_spread"] == 0


@pytest.mark.parametrize("measured", [True, False])
def test_without_beta_kl_and_drift_are_logged_by_log_kl(rl, tmp_path, measured):
    options = ("policy.beta=0", f"policy.log_kl={str(measured).lower()}", "optim.max_steps=2")
    rl(tmp_path / "run", *options)
    last = lines(tmp_path / "run")[-1]
    assert ("kl" in last, "reward_drift" in last) == (measured, measured)


def test_the_first_rollout_is_learned_from_too(rl, tmp_path):
    """Four updates, two of them warm-up: half of the peak, all of it, and so on."""
    rl(tmp_path / "run", "optim.warmup_ratio=0.5", CONSTANT, FROZEN)
    rates = [line["learning_rate"] for line in curve(tmp_path / "run").values()]
    assert [rate["head"] for rate in rates] == pytest.approx([1.5e-2, 3e-2, 3e-2, 3e-2])
    assert [rate["query"] for rate in rates] == pytest.approx([1.5e-3, 3e-3, 3e-3, 3e-3])


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_behind_warm_up_a_schedule_is_that_of_the_other_stages(schedule):
    """transformers' own, which begins at 0 and stands one update behind while it rises."""
    warmup, updates = 3, 10
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    other = get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=updates)
    theirs = [other.lr_lambdas[0](update) for update in range(updates)]
    ours = [
        learning_rate_factor(update, schedule=schedule, warmup=warmup, updates=updates) for update in range(updates)
    ]
    assert ours[:warmup] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert theirs[:warmup] == pytest.approx([0.0, 1 / 3, 2 / 3])
    assert ours[warmup:] == pytest.approx(theirs[warmup:])


def test_query_and_head_move_and_nothing_else(rl, data, tmp_path):
    rl(tmp_path / "run", FROZEN, "optim.max_steps=2")
    start, after = DescoreModel.from_pretrained(data / "micro").state_dict(), trained(tmp_path / "run").state_dict()
    assert {name for name in start if not torch.equal(start[name], after[name])} == {"query", "head.weight"}


@pytest.mark.slow
def test_an_unreadable_pair_is_counted_and_not_replaced(rl, data, tmp_path):
    rows = [{**row, **{v: str(data / row[v]) for v in ("video_a", "video_b")}} for row in marked_rows()]
    rows[2]["video_b"] = "absent.mp4"
    table = write_table(tmp_path / "holes.csv", rows)
    with pytest.warns(DescoreWarning, match="left out"):
        found = rl(
            tmp_path / "run", f"data.train={table}", "data.max_unreadable=0.3", "run.num_completions_to_print=54"
        )
    assert found.unreadable == 1
    counts = [(line["unreadable_pairs"], line["groups"]) for line in curve(tmp_path / "run").values()]
    assert sorted(counts) == [(0, 4), (0, 4), (0, 4), (1, 2)]
    assert {pair for _, pair, *_ in chains(tmp_path / "run")} == set(range(8)) - {2}


@pytest.mark.slow
def test_held_out_pairs_are_judged_and_the_reward_is_calibrated(rl, data, tmp_path):
    write_table(data / "marked_eval.csv", marked_rows(4))
    out = tmp_path / "run"
    told = []
    options = (f"data.eval={data / 'marked_eval.csv'}", "run.eval_steps=2", "optim.max_steps=4")
    found = rl(out, *options, on_progress=lambda step, of, metrics: told.append((step, of, metrics.get("doing"))))
    judging = "judging held-out pairs"
    assert told == [(1, 4, None), (2, 4, judging), (2, 4, None), (3, 4, None), (4, 4, judging), (4, 4, None)]
    assert "eval_generated_pair_accuracy" in found.metrics
    assert sum("eval_generated_pair_accuracy" in line for line in lines(out)) == 2
    scorer = Scorer.from_pretrained(out / "model")
    score = scorer.score(data / "0.mp4", prompt="a red ball 0")
    assert score.score is not None
    assert scorer.model.settings.trained_on == "8 pairs"
    card = (out / "model" / "README.md").read_text()
    assert "whose head goes on" in card
    assert "num_generations: 3" in card
    last = lines(out)[-2]
    for said in (
        f"| mean rollout reward of a chain | {last['rollout_reward']:.3f} |",
        f"| marks that equal the reference marks | {last['quality']:.1%} |",
        f"| chains cut off at the limit | {last['truncated_chains']} of {last['chains']} |",
        f"| mean reward above what the start says of the same chains | {last['reward_drift']:+.3f} |",
    ):
        assert said in card
    assert "up to step 4" in card
    assert json.loads((out / "evaluation.json").read_text())[0]["chain_source"] == "generated"


def test_the_generative_paradigm_trains_without_a_head(rl, data, tmp_path):
    out = tmp_path / "run"
    rl(out, "paradigm=generative", "optim.max_steps=2")
    line = curve(out)[2]
    assert "pair_loss" not in line
    assert "pair_accuracy" not in line  # no chain of random weights has a score
    model = trained(out)
    assert model.settings.paradigm == "generative"
    assert not (out / "model" / "reward_head.safetensors").exists()
    assert all(record["rewards"] == [None] for record in chains(out).values())
    with pytest.raises(VideoError, match="no <answer>"):
        Scorer(model, name="run").score(data / "0.mp4", prompt="a ball")


def test_a_model_that_scores_is_where_it_starts(rl, tmp_path):
    with pytest.raises(SettingsError, match=r"model.checkpoint needed"):
        rl(tmp_path / "a", "model.checkpoint=null", "model.backbone=somewhere")
    rl(tmp_path / "g", "paradigm=generative", "optim.max_steps=1")
    with pytest.raises(CheckpointError, match="is generative"):
        rl(tmp_path / "b", f"model.checkpoint={tmp_path / 'g' / 'model'}")
    with pytest.warns(DescoreWarning, match="head was never trained; run descore train cold-start first"):
        rl(tmp_path / "c", "optim.max_steps=1")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainable.lora.lora_dropout=0.1", "must be 0"),
        ("rollout.num_generations=1", "must be at least 2"),
        ("rewards.function=vowels", "expected module:function"),
        ("rewards.length_full_from=1", "must be above length_none_below"),
        ("run.eval_steps=2", "needs data.eval"),
    ],
)
def test_what_does_not_go_together_is_refused(rl, tmp_path, override, said):
    with pytest.raises(SettingsError, match=said):
        rl(tmp_path / "run", override)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("tests.training.rl_case:nothing", "returned None in step 1; expected a number"),
        ("tests.training.rl_case:fails", "tests.training.rl_case:fails failed in step 1: KeyError: 'depth'"),
        ("tests.training.rl_case:absent", "has no function 'absent'"),
        ("tests.training.absent:nothing", "cannot be imported"),
    ],
)
def test_a_function_that_cannot_be_used_is_named(rl, tmp_path, function, said):
    with pytest.raises(ConfigError, match=said):
        rl(tmp_path / "run", f"rewards.function={function}", "optim.max_steps=1")


def test_the_model_remembers_what_its_start_was_trained_on(rl, tmp_path):
    rl(tmp_path / "first", "optim.max_steps=1", FROZEN)
    rl(tmp_path / "second", f"model.checkpoint={tmp_path / 'first' / 'model'}", "optim.max_steps=1", FROZEN)
    assert trained(tmp_path / "second").settings.trained_on == "8 pairs; before that 8 pairs"


def test_a_run_warns_as_it_begins_of_a_length_that_is_never_paid(rl, tmp_path):
    with pytest.warns(DescoreWarning, match="rewards.length is never paid: chains are cut off at 8 tokens"):
        rl(tmp_path / "run", "rewards.length_none_below=8", "rewards.length_full_from=9", "optim.max_steps=1")


def test_a_run_warns_of_a_table_without_marks_or_decided_pairs(rl, data, tmp_path):
    bare = [{**row, "preference": "tie", "marks_a": "", "marks_b": ""} for row in marked_rows(2)]
    table = write_table(data / "bare.csv", bare)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        rl(tmp_path / "run", f"data.train={table}", "optim.max_steps=1", FROZEN)
    said = [str(one.message) for one in found if "none of 2 pairs" in str(one.message)]
    assert [text.split("none of 2 pairs ")[1].split(",")[0] for text in said] == ["has marks", "is decided"]


@pytest.mark.slow
def test_it_learns_in_the_precision_that_it_ships_with(rl, data, tmp_path):
    """bfloat16, with every layer read again in the backward pass, and TensorBoard beside it."""
    pytest.importorskip("tensorboard")
    write_table(data / "marked_eval.csv", marked_rows(4))
    options = ("model.precision=bfloat16", "model.gradient_checkpointing=true", "run.tensorboard=true")
    found = rl(tmp_path / "run", *options, f"data.eval={data / 'marked_eval.csv'}", "optim.max_steps=6")
    assert "eval_generated_pair_accuracy" in found.metrics
    whole = curve(tmp_path / "run").values()
    # Rewards of about 1, read behind hidden states of eight binary digits: a hundredth is two units of the last one.
    # Chains are written with merged adapters, whose sum is rounded to as many digits once more.
    assert all(line["reward_gap"] < 0.01 for line in whole)
    assert all(line["kl"] >= 0 for line in whole)
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_tensorboard_has_every_number_of_a_line(rl, tmp_path):
    """Learning rates too, which come by part."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rl(tmp_path / "run", "run.tensorboard=true", "optim.max_steps=2", FROZEN)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    line = lines(tmp_path / "run")[-1]
    rates = line.pop("learning_rate")
    numbers = {name: v for name, v in line.items() if name not in ("step", "seconds")}
    for name, value in {**numbers, **{f"learning_rate/{part}": rate for part, rate in rates.items()}}.items():
        found = events.Scalars(f"train/{name}")
        assert [one.step for one in found] == [1, 2]
        assert found[-1].value == pytest.approx(value, rel=1e-6, abs=1e-12)
