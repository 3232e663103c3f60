"""Wrong calls of the generator study and of the examples: one line each, and nothing is spoilt."""

import math

import pytest
import torch
from examples import best_of_n, dpo
from experiments import harness
from experiments.generator import best_of, by_eye, grow, grpo, judged_pairs, page, progress, raft, tune, tuning

from descore.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("comparison=grupwise", "comparison is 'grupwise', expected one of groupwise, pointwise"),
        ("level=0", "level is 0, expected a number above 0"),
        ("beta=-1", "beta is -1, expected a number from 0"),
        ("learning_rate=nan", "learning_rate is nan, expected a number above 0"),
        ("seed=3", "seed has an option of its own"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    plan = tuning.TuningPlan(method="grpo", reward="off")
    with pytest.raises(ConfigError, match=message):
        tune.with_changes([change], plan, grpo.GrpoSettings())


def test_a_noise_level_is_below_1():
    with pytest.raises(ConfigError, match="least_sigma is 1, expected a noise level from 0 to below 1"):
        tune.with_changes(["least_sigma=1"], tuning.TuningPlan(method="raft", reward="off"), raft.RaftSettings())


def test_a_setting_may_be_0_where_that_means_none():
    plan = tuning.TuningPlan(method="grpo", reward="off")
    assert tune.with_changes(["guidance=0"], *tune.with_changes(["beta=0"], plan, grpo.GrpoSettings()))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (tune, ["grpo", "--generator", "none", "--out", "out"], "none: has no generator.json; expected a folder that"),
        (tune, ["refl", "--reward", "sharpness", "--generator", "none", "--out", "out"], "expected a model: one of"),
        (
            tune,
            ["grpo", "--generator", "none", "--out", "out", "--first-round", "first"],
            "--first-round: grpo does not train in rounds; expected raft or dpo",
        ),
        (best_of, ["--model", "none", "--out", "out"], "none: has no generator.json"),
        (best_of, ["--model", "none", "--prompts", "0"], "--prompts: must be 1 or more, got 0"),
        (by_eye, ["--out", "out"], "expected --model, or --compare"),
        (by_eye, ["--out", "out", "--compare"], "eye.csv: no such file; make sheets and table with --model first"),
        (progress, ["none"], "none: found no looks"),
        (page, ["--best-of", "none"], "none/record.json: no such file"),
        (best_of_n, ["--generator", "none", "--prompt", "a red star"], "none: has no generator.json"),
        (best_of_n, ["--generator", "none", "--prompt", "a red star", "--n", "0"], "--n: must be 1 or more, got 0"),
        (dpo, ["--generator", "none", "--prompts", "none", "--out", "out"], "none: has no generator.json"),
        (judged_pairs, ["--model", "none", "--out", "out"], "none: has no generator.json"),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if hasattr(value, "__name__") else "",
)
def test_a_wrong_call_ends_in_one_line(module, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [module.__name__, *options])
    with pytest.raises(SystemExit) as left:
        module.main()
    line = capsys.readouterr().err.splitlines()[-1] if left.value.code == 2 else left.value.code
    assert message in line
    assert "\n" not in line


def test_a_generator_of_other_weights_is_named(tmp_path):
    grow.Generator(grow.DRY.network).save(tmp_path)
    (tmp_path / "generator.safetensors").write_bytes(b"half")
    with pytest.raises(ConfigError, match=r"is no generator that can be opened \(.*\); grow it anew"):
        grow.Generator.load(tmp_path)


def test_a_wrong_name_of_a_reward_spoils_no_folder(tmp_path):
    grow.Generator(grow.DRY.network).save(tmp_path / "model")
    method = grpo.Grpo(grpo.GrpoSettings())
    for name in ("thnik", "shrapness"):
        plan = tuning.TuningPlan(method="grpo", reward=name)
        with pytest.raises(ConfigError, match=f"reward: found '{name}', expected one of think, "):
            tuning.tune(plan, method, generator=tmp_path / "model", out=tmp_path / "run", settings={})


def test_gradients_that_are_not_finite_change_nothing(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    before = [weight.clone() for weight in model.parameters()]
    (model(torch.ones(1, 2)) * math.nan).sum().backward()
    plan = tuning.TuningPlan(method="refl", reward="off")
    parts = {"out": tmp_path, "model": model, "start": model, "followed": None, "scorers": {}, "optimizer": optimizer}
    assert math.isnan(tuning.apply_gradients(tuning.Run(plan=plan, **parts)))
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert all(weight.grad is None for weight in model.parameters())


def test_an_interrupt_and_a_full_disk_are_one_line(capsys):
    with pytest.raises(SystemExit) as left, harness.one_line_errors():
        raise KeyboardInterrupt
    assert (left.value.code, capsys.readouterr().err) == (130, "error: interrupted\n")
    with pytest.raises(SystemExit, match=r"^error: out\.json: No space left on device$"), harness.one_line_errors():
        raise OSError(28, "No space left on device", "out.json")
