"""Train a grown generator by a reward, and see what it becomes.

    python -m experiments.generator.tune grpo --generator runs/generator/model --reward think --out runs/grpo-think
                                         [--set updates=200 comparison=pointwise ...]

METHOD is raft, dpo, grpo or refl. --set changes fields of the plan (`tuning.TuningPlan`) or of the method's settings.
A run that was stopped goes on with the same command."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from descore.errors import ConfigError
from experiments.generator.dpo import Dpo, DpoSettings
from experiments.generator.grpo import Grpo, GrpoSettings
from experiments.generator.raft import Raft, RaftSettings
from experiments.generator.refl import Refl, ReflSettings
from experiments.generator.rewards import JUDGE, model_reward
from experiments.generator.rounds import RoundSettings
from experiments.generator.tuning import Method, TuningPlan, tune
from experiments.harness import one_line_errors, quiet

METHODS: Mapping[str, tuple[Any, Callable[[Any], Method]]] = {
    "raft": (RaftSettings(), Raft),
    "dpo": (DpoSettings(), Dpo),
    "grpo": (GrpoSettings(), Grpo),
    "refl": (ReflSettings(), Refl),
}
"""By name: the settings, and the method of some settings."""
OF_MODELS = ("raft", "dpo", "refl")
"""Methods that follow no hand-made reward."""
OPTIONS = ("method", "reward", "watched", "seed", "first_round")
"""Fields of the plan that are options of the command."""
MAY_BE_0 = ("beta", "anchor", "guidance", "least_sigma")


@one_line_errors()
def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--generator", type=Path, required=True, help="folder of a grown generator")
    parser.add_argument("--reward", default="think", help="a name of rewards.REWARDS, NAME=CHECKPOINT, or judge")
    parser.add_argument("--watched", nargs="*", default=["off"], help="rewards that are reported and not followed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-round", type=Path, metavar="FOLDER", help="of raft and dpo, for runs that share it")
    parser.add_argument("--set", nargs="*", default=[], dest="changes", metavar="FIELD=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    quiet()
    plan = TuningPlan(method=options.method, reward=options.reward, watched=tuple(options.watched), seed=options.seed)
    if options.method in OF_MODELS and (options.method == "refl" or options.reward != JUDGE):
        model_reward(options.reward)  # refused before the first look
    settings, method = METHODS[options.method]
    plan, settings = with_changes(options.changes, plan, settings)
    if options.first_round:
        if not isinstance(settings, RoundSettings):
            raise ConfigError(f"--first-round: {options.method} does not train in rounds; expected raft or dpo")
        settings = replace(settings, first_round=str(options.first_round))
    tune(plan, method(settings), generator=options.generator, out=options.out, settings=asdict(settings))


def with_changes(changes: Sequence[str], plan: TuningPlan, settings: Any) -> tuple[TuningPlan, Any]:  # noqa: ANN401
    """Plan and settings with some fields changed; a field that both have is changed in both. ConfigError for a field
    that neither has, and a value that is not of its type."""
    for change in changes:
        name, _, text = change.partition("=")
        homes = [one for one in (plan, settings) if name in {field.name for field in fields(one)}]
        if not homes:
            known = ", ".join(field.name for one in (plan, settings) for field in fields(one))
            raise ConfigError(f"--set: found '{name}', expected one of {known}")
        value: Any = _typed(homes[0], name, text)
        plan = replace(plan, **{name: value}) if plan in homes else plan
        settings = replace(settings, **{name: value}) if settings in homes else settings
    return plan, settings


def _typed(home: object, name: str, text: str) -> object:
    """The value of a field. Numbers are above 0, but for MAY_BE_0."""
    old, choices = getattr(home, name), get_args(get_type_hints(type(home))[name])
    if name in OPTIONS or not isinstance(old, int | float | str):
        raise ConfigError(f"--set: {name} has an option of its own")
    if isinstance(old, str):
        if text not in choices:
            raise ConfigError(f"--set: {name} is '{text}', expected one of {', '.join(choices)}")
        return text
    try:
        value = type(old)(text)
    except ValueError:
        raise ConfigError(f"--set: {name} is '{text}', expected a {type(old).__name__}") from None
    if not math.isfinite(value) or value < 0 or (value == 0 and name not in MAY_BE_0):
        raise ConfigError(f"--set: {name} is {text}, expected a number {'from' if name in MAY_BE_0 else 'above'} 0")
    return value


if __name__ == "__main__":
    main()
