"""The records of a run of stage 2: a line of metrics for each log, and some of the completions.

    metrics.jsonl   step, epoch, loss and its parts, the rollout reward and its parts, pair accuracy, reward margin and
                    drift, KL, entropy, chain length, clip share, counts, seconds, learning rate by part
    chains.jsonl    a line for each completion that is kept: text, reward parts, advantage, reward

Where a run was killed and repeated steps, the last lines count."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from descore.errors import ConfigError, DataError
from descore.io import append_records, atomic_write, read_records
from descore.training.collate import TrainingPair
from descore.training.losses import equal_groups
from descore.training.metrics import METRICS_FILE, MetricAccumulator, ProgressCallback
from descore.training.rl.config import RlConfig
from descore.training.rl.rollout import Rollout
from descore.training.rl.update import advantages, reward_differences
from descore.training.runs import TENSORBOARD, need_tensorboard
from descore.types import PREFERENCE_SIGN, Completion

CHAINS_FILE = "chains.jsonl"
_RECORD: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("step", "pair", "sample"), int),
    **dict.fromkeys(("side", "prompt", "video", "chain"), str),
    **dict.fromkeys(("marks", "reference_marks"), (dict, type(None))),
    "parts": dict,
    "rollout_reward": (int, float, type(None)),
}
"""Fields of a line of chains.jsonl that its page reads."""
_PREFERENCE = {sign: preference for preference, sign in PREFERENCE_SIGN.items()}


def add_rollout_metrics(rollouts: Sequence[Rollout], *, config: RlConfig, metrics: MetricAccumulator) -> None:
    """Add the metrics of rollouts: rollout rewards by part, and how rewards order pairs."""
    for rollout in rollouts:
        for completion in (completion for group in rollout.groups for completion in group):
            metrics.add_mean("chain_tokens", completion.num_tokens)
            metrics.add_count("chains", 1)
            metrics.add_count("truncated_chains", completion.truncated)
            for part, value in (completion.reward_parts or {}).items():
                metrics.add_mean(part if part != "length" else "length_reward", value)
            if completion.rollout_reward is not None:
                metrics.add_mean("rollout_reward", completion.rollout_reward)
        _add_group_metrics(rollout, config=config, metrics=metrics)
        _add_pair_metrics(rollout, metrics)


def _add_group_metrics(rollout: Rollout, *, config: RlConfig, metrics: MetricAccumulator) -> None:
    """Count groups, and those that give the policy no gradient by their reason, each once."""
    rated_CG = rollout.counted(mask_truncated=False)
    counted_CG = rollout.counted(mask_truncated=config.policy.mask_truncated_completions)
    rated_C, left_C = rated_CG.any(dim=1), counted_CG.any(dim=1)
    equal_C = equal_groups(rollout.rollout_rewards, counted_CG)
    metrics.add_count("groups", len(rollout.groups))
    metrics.add_count("groups_unrated", int((~rated_C).sum()))
    metrics.add_count("groups_truncated", int((rated_C & ~left_C).sum()))
    metrics.add_count("groups_without_spread", int((left_C & equal_C).sum()))


def _add_pair_metrics(rollout: Rollout, metrics: MetricAccumulator) -> None:
    """Over decided pairs and their matched chains: how often rewards are in people's order, and by how much. Equal
    rewards are not in order; a chain without a score has none."""
    reward_CGK = rollout.rewards
    difference_BGK, preference_BGK, _ = reward_differences(reward_CGK, rollout.pairs, opponents="matched")
    margin_BGK = difference_BGK * preference_BGK
    scored_BGK = (preference_BGK != 0) & ~margin_BGK.isnan()
    metrics.add_mean("pair_accuracy", int((margin_BGK[scored_BGK] > 0).sum()), int(scored_BGK.sum()))
    metrics.add_mean("margin", float(margin_BGK[scored_BGK].sum()), int(scored_BGK.sum()))
    read = ~reward_CGK.isnan()
    metrics.add_mean("reward", float(reward_CGK[read].sum()), int(read.sum()))


def completion_records(rollouts: Sequence[Rollout], *, config: RlConfig, step: int) -> Iterator[dict[str, Any]]:
    """A record for each of the first completions, pair by pair, a before b: as many as the config says."""
    most = config.run.num_completions_to_print
    return islice(_all_records(rollouts, config, step), 2 * config.rollout.num_generations if most is None else most)


def _all_records(rollouts: Sequence[Rollout], config: RlConfig, step: int) -> Iterator[dict[str, Any]]:
    for rollout in rollouts:
        advantage_CG = advantages(rollout, config=config)
        for place, pair in enumerate(rollout.pairs):
            for clip, side in ((place, "a"), (place + len(rollout.pairs), "b")):
                for sample, completion in enumerate(rollout.groups[clip]):
                    of_pair = {"step": step, **_pair_record(pair, side), "sample": sample}
                    of_completion = _completion_record(completion, len(pair.preference_K))
                    yield {**of_pair, **of_completion, "advantage": round(float(advantage_CG[clip, sample]), 6)}


def _pair_record(pair: TrainingPair, side: str) -> dict[str, Any]:
    example = pair.a if side == "a" else pair.b
    return {
        "pair": pair.number,
        "prompt": example.prompt,
        "preference": _PREFERENCE.get(int(pair.preference_K[0])),
        "side": side,
        "video": example.clip.source,
        "reference_marks": None if example.marks is None else dict(example.marks),
    }


def _completion_record(completion: Completion, dimensions: int) -> dict[str, Any]:
    verdict = completion.verdict
    rewards = [None if math.isnan(reward) else reward for reward in completion.rewards.values()]
    return {
        "chain": completion.text,
        "tokens": completion.num_tokens,
        "truncated": completion.truncated,
        "marks": None if verdict is None else dict(verdict.marks),
        "overall": None if verdict is None else verdict.overall,
        "rewards": rewards or [None] * dimensions,
        "parts": dict(completion.reward_parts or {}),
        "rollout_reward": completion.rollout_reward,
    }


class RlLogger:
    """Writes the records of the main process and reports its progress."""

    def __init__(self, config: RlConfig, *, on_progress: ProgressCallback, is_main_process: bool) -> None:
        self.out = config.run.out
        self.on_progress = on_progress
        self.is_main_process = is_main_process
        self.progress = (0, 0)
        """Steps done, and steps in all."""
        self.last: dict[str, Any] = {}
        """The last line of metrics."""
        self._began = time.monotonic()
        self._board = _tensorboard(config) if is_main_process else None

    def report_progress(self, doing: str | None = None) -> None:
        """Call back with the progress, and with the name of long work that is no step."""
        self.on_progress(*self.progress, self.last if doing is None else {**self.last, "doing": doing})

    def write_resumed(self, step: int) -> None:
        """Write a line where a run resumes."""
        if self.is_main_process:
            append_records(self.out / METRICS_FILE, [{"resumed_at": step}], allow_nan=True)

    def write_metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Write a line of metrics. A loss that is not finite ends the run with a ConfigError."""
        record = {"step": step, **metrics, "seconds": round(time.monotonic() - self._began, 3)}
        if "loss" in metrics:
            self.last = record
        if self.is_main_process:
            append_records(self.out / METRICS_FILE, [record], allow_nan=True)
        if self._board is not None:
            self._write_board(self._board, step, metrics)
        if not math.isfinite(metrics.get("loss", 0.0)):
            raise ConfigError(f"step {step}: the loss is {metrics['loss']}; lower optim.learning_rate, and start anew")

    def drop_redone(self, step: int) -> None:
        """Take later steps out of chains.jsonl: a run that resumes after `step` samples their completions anew."""
        file = self.out / CHAINS_FILE
        records = read_records(file) if self.is_main_process else []
        for number, record in enumerate(records, start=1):
            if lacking := [name for name, kind in _RECORD.items() if not isinstance(record.get(name), kind)]:
                raise DataError(str(file), number, f"has no {lacking[0]} that can be read; delete the line")
        kept = [record for record in records if record["step"] <= step]
        if len(kept) < len(records):
            atomic_write(file, "".join(json.dumps(record) + "\n" for record in kept))

    def write_completions(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records of completions."""
        append_records(self.out / CHAINS_FILE, records, allow_nan=True)

    def _write_board(self, board: Any, step: int, metrics: Mapping[str, Any]) -> None:  # noqa: ANN401
        for name, value in _flat(metrics):
            board.add_scalar(name if name.startswith("eval_") else f"train/{name}", value, step)
        board.flush()


def _flat(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers by name; those by part, such as learning rates, as NAME/PART."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{part}", number) for part, number in value.items())
        else:
            yield name, value


def _tensorboard(config: RlConfig) -> Any:  # noqa: ANN401  # SummaryWriter, which is there only with tensorboard
    if not config.run.tensorboard:
        return None
    need_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(config.run.out / TENSORBOARD))
