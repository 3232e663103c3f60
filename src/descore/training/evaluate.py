"""The mean and deviation of the reward on clips that nothing was trained on: what makes a reward a score.

In: judged pairs. Out: settings that hold the two for each dimension. Knows rewards; knows nothing of models.

Shapes: C clips, K named dimensions."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from descore.errors import DescoreWarning
from descore.model.checkpoint import CheckpointSettings
from descore.model.generation import score_chains, think_and_score
from descore.model.modeling import DescoreModel
from descore.stats.agreement import TiedAccuracy, accuracy_with_ties, accuracy_without_ties
from descore.stats.bootstrap import Figure
from descore.training.collate import MISSING, TrainingPair, Unreadable
from descore.training.config import ChainSource
from descore.training.pair_dataset import PairTable, UnreadPair

IN_WORDS: Mapping[ChainSource, str] = {
    "reference": "with the table's chains",
    "generated": "with its own chains",
    "none": "without chains",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedPair:
    """A held-out pair and the rewards of its clips."""

    number: int
    """Its place in the table."""
    prompt: str
    videos: tuple[str, str]
    """Of a and b."""
    preference_K: NDArray[np.int8]
    """1 for a, -1 for b, 0 for a tie, MISSING where nobody said."""
    rewards: Mapping[ChainSource, NDArray[np.float64]]
    """By chain source, the rewards of a and b (2, K); nan where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """How a table is judged, and which share of it by whom."""

    batch_size: int
    """Pairs at a time."""
    workers: int
    """Processes that read clips ahead."""
    generated_pairs: int | None
    """Pairs, the first, for which the model writes chains itself; None: all."""
    autocast: Callable[[], AbstractContextManager[Any]]
    """The precision that the model trains in."""
    on_unreadable: Callable[[Sequence[Unreadable]], None]
    """Told of the pairs that cannot be read."""
    processes: int = 1
    process: int = 0
    """Which of them this is. Each judges its share of the pairs."""


def judge_pairs(
    model: DescoreModel, table: PairTable, sources: Sequence[ChainSource], judging: Judging
) -> Iterator[tuple[TrainingPair, dict[ChainSource, NDArray[np.float64]]]]:
    """A process's share of a table's pairs, each with its rewards (2, K) by chain source: nan for a pair one of whose
    videos cannot be read, and for one that a generative model leaves without a score."""
    numbers = iter(_share(table, judging))
    for items in _batches(table, judging):
        judging.on_unreadable([item for item in items if isinstance(item, Unreadable)])
        pairs = [
            table.unread(number) if isinstance(item, Unreadable) else item
            for item, number in zip(items, numbers, strict=False)
        ]
        found: list[dict[ChainSource, NDArray[np.float64]]] = [{} for _ in pairs]
        for source in sources:
            asked = [row for row, pair in enumerate(pairs) if _applies(source, pair, judging)]
            none = np.full((2, len(table.dimensions)), np.nan)
            rewards = dict.fromkeys(asked, none) | _read(model, pairs, asked, source, judging)
            for row, reward_2K in rewards.items():
                found[row][source] = reward_2K
        yield from zip(pairs, found, strict=True)


def _read(
    model: DescoreModel,
    pairs: Sequence[TrainingPair | UnreadPair],
    asked: Sequence[int],
    source: ChainSource,
    judging: Judging,
) -> dict[int, NDArray[np.float64]]:
    """By place, the rewards (2, K) of the pairs whose videos can be read."""
    there = {row: pair for row in asked if isinstance(pair := pairs[row], TrainingPair)}
    if not there:
        return {}
    with judging.autocast():
        return dict(zip(there, _rewards(model, list(there.values()), source), strict=True))


def record(pair: TrainingPair | UnreadPair, rewards: Mapping[ChainSource, NDArray[np.float64]]) -> JudgedPair:
    """What is kept of a judged pair: no pixels."""
    if isinstance(pair, UnreadPair):
        return JudgedPair(
            number=pair.number,
            prompt=pair.prompt,
            videos=pair.videos,
            preference_K=pair.preference_K,
            rewards=rewards,
        )
    return JudgedPair(
        number=pair.number,
        prompt=pair.a.prompt,
        videos=(pair.a.clip.source, pair.b.clip.source),
        preference_K=pair.preference_K,
        rewards=rewards,
    )


def quick_metrics(judged: Sequence[JudgedPair], *, dimensions: Sequence[str]) -> dict[str, float]:
    """How many `pairs` there are, and `pairs_without_score` with one of the chain sources; by source, how many are
    `SOURCE_pairs_scored` and how many labels of these `SOURCE_pairs_decided`, `SOURCE_pair_loss` (Bradley-Terry) and
    `SOURCE_pair_accuracy` over decided pairs of all dimensions, and `SOURCE_pair_accuracy.NAME` where there are
    several. Of a source without any decided pair there is neither loss nor accuracy."""
    asked = [pair for pair in judged if pair.rewards]
    whole = sum(all(is_scored(pair, source) for source in pair.rewards) for pair in asked)
    found: dict[str, float] = {"pairs": len(asked), "pairs_without_score": len(asked) - whole}
    for source in _sources(judged):
        margin_NK, preference_NK, _ = _margins(judged, source)
        decided_NK = (preference_NK != 0) & (preference_NK != MISSING)
        found |= {f"{source}_pairs_scored": len(margin_NK), f"{source}_pairs_decided": int(decided_NK.sum())}
        toward_NK = margin_NK * preference_NK
        if decided_NK.any():
            found[f"{source}_pair_loss"] = float(np.logaddexp(0, -toward_NK[decided_NK]).mean())
            found[f"{source}_pair_accuracy"] = float((toward_NK[decided_NK] > 0).mean())
        for k, name in enumerate(dimensions if len(dimensions) > 1 else ()):
            if decided_NK[:, k].any():
                found[f"{source}_pair_accuracy.{name}"] = float((toward_NK[decided_NK[:, k], k] > 0).mean())
    return found


def figures(judged: Sequence[JudgedPair], *, dimensions: Sequence[str]) -> list[Found]:
    """By chain source and dimension, accuracy with its interval over the pairs that have a label there and a score."""
    found = []
    for source in _sources(judged):
        margin_NK, preference_NK, prompt_N = _margins(judged, source)
        for k, name in enumerate(dimensions):
            rows_N = preference_NK[:, k] != MISSING
            asked = sum(source in pair.rewards and int(pair.preference_K[k]) != MISSING for pair in judged)
            of_dimension = (margin_NK[rows_N, k], preference_NK[rows_N, k], prompt_N[rows_N])
            if asked:
                ties = accuracy_with_ties(*of_dimension) if (of_dimension[1] == 0).any() else None
                accuracy = accuracy_without_ties(*of_dimension)
                counts = {"scored": int(rows_N.sum()), "of": asked}
                found.append(Found(chain_source=source, dimension=name, **counts, accuracy=accuracy, with_ties=ties))
    return found


def is_scored(pair: JudgedPair, source: ChainSource) -> bool:
    """Whether both clips have rewards with this chain source."""
    return source in pair.rewards and not np.isnan(pair.rewards[source]).any()


def _applies(source: ChainSource, pair: TrainingPair | UnreadPair, judging: Judging) -> bool:
    if source == "reference" and isinstance(pair, UnreadPair):
        return pair.has_chains
    if source == "reference":
        assert isinstance(pair, TrainingPair)
        return pair.a.chain is not None and pair.b.chain is not None
    return source == "none" or judging.generated_pairs is None or pair.number < judging.generated_pairs


def _rewards(model: DescoreModel, pairs: Sequence[TrainingPair], source: ChainSource) -> list[NDArray[np.float64]]:
    """Of each pair, the rewards of a and b (2, K)."""
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


def _share(table: PairTable, judging: Judging) -> range:
    """The numbers of the pairs that this process judges."""
    return range(judging.process, len(table), judging.processes)


def _batches(table: PairTable, judging: Judging) -> DataLoader[Any]:
    return DataLoader(
        Subset(table, _share(table, judging)),
        batch_size=judging.batch_size,
        collate_fn=list,
        num_workers=judging.workers,
        generator=torch.Generator(),  # evaluating must not move the random numbers that training draws
    )


def _sources(judged: Sequence[JudgedPair]) -> list[ChainSource]:
    return list(dict.fromkeys(source for pair in judged for source in pair.rewards))


def _margins(
    judged: Sequence[JudgedPair], source: ChainSource
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.str_]]:
    """Reward of a minus reward of b (N, K), preferences (N, K) and prompts (N) of the pairs that are scored."""
    there, width = [pair for pair in judged if is_scored(pair, source)], len(judged[0].preference_K)
    margin_NK = np.array([pair.rewards[source][0] - pair.rewards[source][1] for pair in there]).reshape(-1, width)
    preference_NK = np.array([pair.preference_K for pair in there], dtype=np.int64).reshape(-1, width)
    return margin_NK, preference_NK, np.array([pair.prompt for pair in there], dtype=np.str_)


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
        said = f"not calibrated: {len(clips)} clips with a spread of rewards; expected two at least"
        warnings.warn(said, DescoreWarning, stacklevel=2)
        return settings
    mean_K, std_K = reward_CK.mean(axis=0), reward_CK.std(axis=0, ddof=1)
    mean = {name: round(float(mean), 6) for name, mean in zip(settings.dimensions, mean_K, strict=True)}
    std = {name: float(f"{std:.6g}") for name, std in zip(settings.dimensions, std_K, strict=True)}
    return settings.model_copy(update={"reward_mean": mean, "reward_std": std})
