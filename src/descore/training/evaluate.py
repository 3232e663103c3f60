"""Held-out pairs: their rewards with chains of each source, how well these agree with people, and the calibration.

An `Evaluator` reads the rewards of whole tables, shared by all processes, and gives metrics for a line of
metrics.jsonl, the agreements of evaluation.json and the reward's mean and deviation.

Shapes: N pairs, C clips, R = 2 B sequences (all a, then all b), K named dimensions."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from descore.errors import DescoreWarning
from descore.model.checkpoint import CheckpointSettings
from descore.model.generation import score_chains, think_and_score
from descore.model.modeling import DescoreModel
from descore.stats.agreement import TiedAccuracy, accuracy_with_ties, accuracy_without_ties
from descore.stats.bootstrap import Figure
from descore.training.collate import MISSING, TrainingPair, Unreadable, split_unreadable
from descore.training.config import ChainSource, EvaluateConfig
from descore.training.dataset import JudgedPair, PairTable, end_with_parent

SourceRewards = dict[ChainSource, NDArray[np.float64]]
"""By chain source, the rewards of a and b (2, K); nan where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """How well the rewards of one chain source and dimension agree with people."""

    chain_source: ChainSource
    dimension: str
    scored: int
    """Pairs with a label that both have a reward."""
    of: int
    """Pairs with a label that were to be judged with this chain source."""
    accuracy: Figure
    """Share of decided pairs in the right order; its interval resamples whole prompts."""
    with_ties: TiedAccuracy | None
    """Accuracy with the best threshold for ties; None where people call no pair a tie."""


@dataclass(slots=True, kw_only=True)
class Evaluator:
    """Judges the held-out pairs of a run. All processes judge together, and each of them gets all results."""

    model: DescoreModel
    data: Mapping[str, PairTable]
    """By name (eval, calibration ...), the run's tables."""
    config: EvaluateConfig
    batch_size: int
    """Pairs at a time."""
    num_workers: int
    """Processes that read clips ahead."""
    accelerator: Accelerator
    autocast: Callable[[], AbstractContextManager[Any]]
    """The precision that the model trains in."""
    on_unreadable: Callable[[Sequence[Unreadable]], None]
    """Called with the pairs that cannot be read."""
    on_table: Callable[[str], None] = lambda _: None
    """Called with the name of a table before it is judged."""
    judged: list[JudgedPair] = field(default_factory=list)
    """The pairs of the last evaluation."""

    def evaluate(self) -> dict[str, float]:
        """Judge the eval table with the config's chain sources."""
        self.judged = self.judge_table("eval", self.config.chain_sources)
        return evaluation_metrics(self.judged, dimensions=self.data["eval"].dimensions)

    def evaluate_unless_done(self) -> None:
        """Judge the eval table, if there is one, in a run that was killed after its last checkpoint."""
        if "eval" in self.data and not self.judged:
            self.evaluate()

    def agreements(self) -> list[PairAgreement]:
        """Of the last evaluation, by chain source and dimension."""
        return pair_agreements(self.judged, dimensions=self.data["train"].dimensions)

    def calibrate(self, settings: CheckpointSettings, *, source: ChainSource) -> CheckpointSettings:
        """The settings with the reward's mean and deviation with this chain source, from the calibration table or else
        the eval table."""
        name = "calibration" if "calibration" in self.data else "eval"
        is_judged = name == "eval" and source in self.config.chain_sources
        return calibrated(settings, self.judged if is_judged else self.judge_table(name, [source]), source=source)

    @torch.no_grad()
    def judge_table(self, name: str, sources: Sequence[ChainSource]) -> list[JudgedPair]:
        """All pairs of a table with their rewards: nan for a pair with a video that cannot be read, and for one that a
        generative model leaves without a score."""
        self.on_table(name)
        self.model.eval()
        own = list(self._judge_own_pairs(self.data[name], sources))
        return sorted(gather_object(own), key=lambda pair: pair.number)

    def _judge_own_pairs(self, table: PairTable, sources: Sequence[ChainSource]) -> Iterator[JudgedPair]:
        """Judge the share of this process."""
        numbers = range(self.accelerator.process_index, len(table), self.accelerator.num_processes)
        remaining = iter(numbers)
        for items in self._batches(table, numbers):
            self.on_unreadable(split_unreadable(items)[1])
            pairs = [table.unjudged(number) for _, number in zip(items, remaining, strict=False)]
            rewards: list[SourceRewards] = [{} for _ in pairs]
            for source in sources:
                rows = [row for row, pair in enumerate(pairs) if self._judges(pair, source)]
                for row, reward_2K in zip(rows, self._rewards([items[row] for row in rows], source), strict=True):
                    rewards[row][source] = reward_2K
            yield from (replace(pair, rewards=reward) for pair, reward in zip(pairs, rewards, strict=True))

    def _batches(self, table: PairTable, numbers: Sequence[int]) -> DataLoader[Any]:
        return DataLoader(
            Subset(table, numbers),
            batch_size=self.batch_size,
            collate_fn=list,
            num_workers=self.num_workers,
            generator=torch.Generator(),  # evaluating must not move the random numbers that training draws
            worker_init_fn=end_with_parent,
        )

    def _judges(self, pair: JudgedPair, source: ChainSource) -> bool:
        if source == "reference":
            return pair.has_chains
        limit = self.config.generated_pairs
        return source == "none" or limit is None or pair.number < limit

    def _rewards(
        self, items: Sequence[TrainingPair | Unreadable], source: ChainSource
    ) -> Iterator[NDArray[np.float64]]:
        """Of each pair, the rewards of a and b (2, K)."""
        pairs, _ = split_unreadable(items)
        with self.autocast():
            rewards = iter(read_rewards(self.model, pairs, source) if pairs else ())
        unread_2K = np.full((2, len(self.model.settings.dimensions)), np.nan)
        return (unread_2K if isinstance(item, Unreadable) else next(rewards) for item in items)


def read_rewards(model: DescoreModel, pairs: Sequence[TrainingPair], source: ChainSource) -> list[NDArray[np.float64]]:
    """Of each pair, the rewards of a and b (2, K) with chains of this source."""
    both, chat = [p.a for p in pairs] + [p.b for p in pairs], model.chat
    laid_out = chat.lay_out_prompts([e.clip for e in both], [e.prompt for e in both])
    prompts = {name: value.to(model.device) for name, value in laid_out.items()}
    reward_RK: Tensor
    if source == "generated":
        completions = think_and_score(model, prompts, limit=model.settings.max_chain_tokens)
        unread = [math.nan] * len(model.settings.dimensions)
        reward_RK = torch.tensor([list(c.rewards.values()) or unread for [c] in completions])
    else:
        chains = [chat.encode_chain(e.chain) if source == "reference" and e.chain else chat.no_thinking for e in both]
        reward_RK = score_chains(model, prompts, chains)
    reward_2BK = reward_RK.double().numpy().reshape(2, len(pairs), -1)
    return [reward_2BK[:, row] for row in range(len(pairs))]


def evaluation_metrics(judged: Sequence[JudgedPair], *, dimensions: Sequence[str]) -> dict[str, float]:
    """How many `pairs` there are, and `pairs_without_score` with one of the chain sources; by source, how many are
    `SOURCE_pairs_scored` and how many labels of these `SOURCE_pairs_decided`, `SOURCE_pair_loss` (Bradley-Terry) and
    `SOURCE_pair_accuracy` over decided pairs of all dimensions, and `SOURCE_pair_accuracy.NAME` where there are
    several. A source without any decided pair has neither loss nor accuracy."""
    eligible = [pair for pair in judged if pair.rewards]
    scored = sum(all(is_scored(pair, source) for source in pair.rewards) for pair in eligible)
    metrics: dict[str, float] = {"pairs": len(eligible), "pairs_without_score": len(eligible) - scored}
    for source in _sources(judged):
        margin_NK, preference_NK, _ = _margins(judged, source)
        decided_NK = (preference_NK != 0) & (preference_NK != MISSING)
        metrics |= {f"{source}_pairs_scored": len(margin_NK), f"{source}_pairs_decided": int(decided_NK.sum())}
        toward_NK = margin_NK * preference_NK
        if decided_NK.any():
            metrics[f"{source}_pair_loss"] = float(np.logaddexp(0, -toward_NK[decided_NK]).mean())
            metrics[f"{source}_pair_accuracy"] = float((toward_NK[decided_NK] > 0).mean())
        for k, name in enumerate(dimensions if len(dimensions) > 1 else ()):
            if decided_NK[:, k].any():
                metrics[f"{source}_pair_accuracy.{name}"] = float((toward_NK[decided_NK[:, k], k] > 0).mean())
    return metrics


def pair_agreements(judged: Sequence[JudgedPair], *, dimensions: Sequence[str]) -> list[PairAgreement]:
    """By chain source and dimension, accuracy with its interval over the pairs that have a label there and a score."""
    agreements = []
    for source in _sources(judged):
        margin_NK, preference_NK, prompt_N = _margins(judged, source)
        for k, name in enumerate(dimensions):
            labelled_N = preference_NK[:, k] != MISSING
            of = sum(source in pair.rewards and int(pair.preference_K[k]) != MISSING for pair in judged)
            values = (margin_NK[labelled_N, k], preference_NK[labelled_N, k], prompt_N[labelled_N])
            if of:
                agreement = PairAgreement(
                    chain_source=source,
                    dimension=name,
                    scored=int(labelled_N.sum()),
                    of=of,
                    accuracy=accuracy_without_ties(*values),
                    with_ties=accuracy_with_ties(*values) if (values[1] == 0).any() else None,
                )
                agreements.append(agreement)
    return agreements


def is_scored(pair: JudgedPair, source: ChainSource) -> bool:
    """Whether both clips have rewards with this chain source."""
    return source in pair.rewards and not np.isnan(pair.rewards[source]).any()


def _sources(judged: Sequence[JudgedPair]) -> list[ChainSource]:
    return list(dict.fromkeys(source for pair in judged for source in pair.rewards))


def _margins(
    judged: Sequence[JudgedPair], source: ChainSource
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.str_]]:
    """Reward of a minus reward of b (N, K), preferences (N, K) and prompts (N) of the pairs that are scored."""
    scored, width = [pair for pair in judged if is_scored(pair, source)], len(judged[0].preference_K)
    margin_NK = np.array([pair.rewards[source][0] - pair.rewards[source][1] for pair in scored]).reshape(-1, width)
    preference_NK = np.array([pair.preference_K for pair in scored], dtype=np.int64).reshape(-1, width)
    return margin_NK, preference_NK, np.array([pair.prompt for pair in scored], dtype=np.str_)


def calibrated(
    settings: CheckpointSettings, judged: Sequence[JudgedPair], *, source: ChainSource
) -> CheckpointSettings:
    """Settings with `reward_mean` and `reward_std` (the sample's) over the pairs' clips, each clip of a prompt once.

    Fewer than two clips, or rewards that are all the same, have no deviation: then a warning, and settings as they
    were."""
    clips = {
        (pair.prompt, video): reward_K
        for pair in judged
        if is_scored(pair, source)
        for video, reward_K in zip(pair.videos, pair.rewards[source], strict=True)
    }
    reward_CK = np.array(list(clips.values()))
    if len(clips) < 2 or not reward_CK.std(axis=0, ddof=1).all():
        message = f"not calibrated: {len(clips)} clips with a spread of rewards; expected two at least"
        warnings.warn(message, DescoreWarning, stacklevel=2)
        return settings
    mean_K, std_K = reward_CK.mean(axis=0), reward_CK.std(axis=0, ddof=1)
    mean = {name: round(float(mean), 6) for name, mean in zip(settings.dimensions, mean_K, strict=True)}
    std = {name: float(f"{std:.6g}") for name, std in zip(settings.dimensions, std_K, strict=True)}
    return settings.model_copy(update={"reward_mean": mean, "reward_std": std})
