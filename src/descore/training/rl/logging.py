"""What a run of stage 2 writes beside its weights: a line of metrics per log, and some of the chains as they were.

    metrics.jsonl   step, epoch, loss and its parts, the rollout reward and its parts, pair accuracy, reward margin and
                    drift, KL, entropy, chain length, clip share, counts, seconds, learning rate by part
    chains.jsonl    a line for each chain of the pairs that are shown: its text, its parts, its advantage, its reward

Of steps that a run did again after it was killed, the last lines count. Knows rollouts and files; knows nothing of how
anything is learned."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from descore.errors import ConfigError
from descore.io import append_records
from descore.training.collate import TrainingPair
from descore.training.metrics import METRICS_FILE, MetricAccumulator, ProgressCallback
from descore.training.rl.config import RlConfig
from descore.training.rl.grpo import equal_groups
from descore.training.rl.rollout import Rollout
from descore.training.rl.update import PairLabels, advantages, opposed
from descore.training.runs import TENSORBOARD, need_tensorboard
from descore.types import PREFERENCE_SIGN, Completion

CHAINS_FILE = "chains.jsonl"
_PREFERENCE = {sign: preference for preference, sign in PREFERENCE_SIGN.items()}


def tally_rollouts(rollouts: Sequence[Rollout], *, config: RlConfig, tally: MetricAccumulator) -> None:
    """Put what rollouts came to into a tally: what chains are worth, and how rewards order pairs."""
    for rollout in rollouts:
        for completion in (completion for group in rollout.groups for completion in group):
            tally.mean("chain_tokens", completion.num_tokens)
            tally.count("chains", 1)
            tally.count("truncated_chains", completion.truncated)
            for part, value in (completion.reward_parts or {}).items():
                tally.mean(part if part != "length" else "length_reward", value)
            if completion.rollout_reward is not None:
                tally.mean("rollout_reward", completion.rollout_reward)
        _tally_groups(rollout, config=config, tally=tally)
        _tally_pairs(rollout, tally)


def _tally_groups(rollout: Rollout, *, config: RlConfig, tally: MetricAccumulator) -> None:
    """How many groups there are, and of those that give the policy nothing why: each is counted once."""
    rated_CG = rollout.counted(mask_truncated=False)
    counted_CG = rollout.counted(mask_truncated=config.policy.mask_truncated_completions)
    rated_C, left_C = rated_CG.any(dim=1), counted_CG.any(dim=1)
    equal_C = equal_groups(rollout.rollout_rewards, counted_CG)
    tally.count("groups", len(rollout.groups))
    tally.count("groups_unrated", int((~rated_C).sum()))
    tally.count("groups_truncated", int((rated_C & ~left_C).sum()))
    tally.count("groups_without_spread", int((left_C & equal_C).sum()))


def _tally_pairs(rollout: Rollout, tally: MetricAccumulator) -> None:
    """Over decided pairs and their matched chains: how often rewards are in people's order, and by how much. Equal
    rewards are not in order; a chain without a score has none."""
    reward_CGK, labels = rollout.rewards, PairLabels.of(rollout.pairs)
    difference_BGK, preference_BGK, _ = opposed(reward_CGK, labels, opponents="matched")
    margin_BGK = difference_BGK * preference_BGK
    there_BGK = (preference_BGK != 0) & ~margin_BGK.isnan()
    tally.mean("pair_accuracy", int((margin_BGK[there_BGK] > 0).sum()), int(there_BGK.sum()))
    tally.mean("margin", float(margin_BGK[there_BGK].sum()), int(there_BGK.sum()))
    read = ~reward_CGK.isnan()
    tally.mean("reward", float(reward_CGK[read].sum()), int(read.sum()))


def chain_records(rollouts: Sequence[Rollout], *, config: RlConfig, step: int) -> Iterator[dict[str, Any]]:
    """A record for each of the first completions, pair by pair, a before b: as many as the config says."""
    most = config.run.num_completions_to_print
    return islice(_chain_records(rollouts, config, step), 2 * config.rollout.num_generations if most is None else most)


def _chain_records(rollouts: Sequence[Rollout], config: RlConfig, step: int) -> Iterator[dict[str, Any]]:
    for rollout in rollouts:
        advantage_CG = advantages(rollout, config=config)
        for place, pair in enumerate(rollout.pairs):
            for clip, side in ((place, "a"), (place + len(rollout.pairs), "b")):
                for sample, completion in enumerate(rollout.groups[clip]):
                    of_pair = {"step": step, **_told(pair, side), "sample": sample}
                    of_completion = _of_completion(completion, len(pair.preference_K))
                    yield {**of_pair, **of_completion, "advantage": round(float(advantage_CG[clip, sample]), 6)}


def _told(pair: TrainingPair, side: str) -> dict[str, Any]:
    shown = pair.a if side == "a" else pair.b
    return {
        "pair": pair.number,
        "prompt": shown.prompt,
        "preference": _PREFERENCE.get(int(pair.preference_K[0])),
        "side": side,
        "video": shown.clip.source,
        "reference_marks": None if shown.marks is None else dict(shown.marks),
    }


def _of_completion(completion: Completion, dimensions: int) -> dict[str, Any]:
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


class RlRecords:
    """Writes the two files, of the one process that speaks."""

    def __init__(self, config: RlConfig, *, watch: ProgressCallback, is_main_process: bool) -> None:
        self.out = config.run.out
        self.watch = watch
        self.is_main_process = is_main_process
        self.at = (0, 0)
        """Steps that are done, and how many there will be."""
        self.last: dict[str, Any] = {}
        """The last line of metrics."""
        self._began = time.monotonic()
        self._board = _tensorboard(config) if is_main_process else None

    def tell(self, doing: str | None = None) -> None:
        """Let whoever watches know how far the run is, and what takes it long where that is no step."""
        self.watch(*self.at, self.last if doing is None else {**self.last, "doing": doing})

    def resumed(self, step: int) -> None:
        """Note where a run goes on."""
        if self.is_main_process:
            append_records(self.out / METRICS_FILE, [{"resumed_at": step}], allow_nan=True)

    def line(self, step: int, found: Mapping[str, Any]) -> None:
        """A line of metrics. A loss that is not finite ends the run with a ConfigError."""
        record = {"step": step, **found, "seconds": round(time.monotonic() - self._began, 3)}
        if "loss" in found:
            self.last = record
        if self.is_main_process:
            append_records(self.out / METRICS_FILE, [record], allow_nan=True)
        if self._board is not None:
            self._show(self._board, step, found)
        if not math.isfinite(found.get("loss", 0.0)):
            raise ConfigError(f"step {step}: the loss is {found['loss']}; lower optim.learning_rate, and start anew")

    def chains(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Some chains as they were."""
        append_records(self.out / CHAINS_FILE, records, allow_nan=True)

    def _show(self, board: Any, step: int, found: Mapping[str, Any]) -> None:  # noqa: ANN401
        for name, value in _flat(found):
            board.add_scalar(name if name.startswith("eval_") else f"train/{name}", value, step)
        board.flush()


def _flat(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """By name, the numbers; of those by part, such as learning rates, NAME/PART."""
    for name, value in found.items():
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
