"""Tests of a leak: whether chains know the label by another way than by looking at the clip.

In: couples of chains, or single ones, with the label. Out: the figures of each test, and what they say in words."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descore.chains.filtering import FilteredChain, prose_of
from descore.chains.words import judge_by_features, judge_by_words
from descore.stats.agreement import share
from descore.stats.bootstrap import bootstrap_mean
from descore.types import DIMENSIONS

MOST_TEXTS = 4000
"""Chains whose words are compared: the first ones."""
_LEAST = 50
"""Labelled pairs or clips below which nothing is tested."""
_SHUFFLES = 200
_SURE = 0.95
"""Share of pairs from which one chain decides them alone."""


class LeakTests:
    """Numbers of labelled chains, and the words of some of them."""

    def __init__(self) -> None:
        self._sign, self._prompts = array("d"), list[str]()
        self._overalls: tuple[array[float], array[float]] = (array("d"), array("d"))
        self._texts, self._verdicts = list[str](), list[list[float]]()
        self._liked, self._groups = list[float](), list[str]()

    def add_pair(self, couple: Sequence[FilteredChain], sign: int, prompt: str) -> None:
        """Take a couple of which people prefer a (1) or b (-1)."""
        self._sign.append(sign)
        self._prompts.append(prompt)
        for overalls, chain, liked in zip(self._overalls, couple, (sign, -sign), strict=True):
            overalls.append(_features(chain)[0])
            self._add_text(chain, liked, prompt)

    def add_clip(self, chain: FilteredChain, rating: float, prompt: str) -> None:
        """Take the chain of a rated clip."""
        self._add_text(chain, rating, prompt)

    def _add_text(self, chain: FilteredChain, liked: float, prompt: str) -> None:
        if len(self._texts) < MOST_TEXTS:
            self._texts.append(prose_of(chain.candidate.text or ""))
            self._verdicts.append(_features(chain))
            self._liked.append(liked)
            self._groups.append(prompt)

    def record(self, sees: Mapping[str, int]) -> dict[str, Any]:
        """The figures of all tests, `findings`, one line each, and in `left_out` why not all were made. sees: how many
        chains saw what."""
        tests: dict[str, Any] = {}
        if len(self._sign) >= _LEAST:
            tests |= self._by_verdict()
        if len(self._texts) >= _LEAST:
            tests |= self._by_words()
        left_out = ""
        if tests and 0 < len(self._sign) < _LEAST:
            left_out = f"{len(self._sign):,} decided pairs are too few for the tests of pairs, which need {_LEAST}"
        elif not tests and len(self._texts) >= _LEAST:
            left_out = f"all {len(self._texts):,} labels are the same"
        counted = {"tested": len(self._sign) or len(self._texts), "left_out": left_out}
        return {**tests, **counted, "findings": _findings(tests, sees, pairs=bool(self._sign))}

    def _by_verdict(self) -> dict[str, Any]:
        sign_B, group_B = np.array(self._sign), np.array(self._prompts, np.str_)
        a_B, b_B = (np.array(overalls) for overalls in self._overalls)
        rng = np.random.default_rng(0)
        shuffled = [_agree(a_B, b_B, rng.permutation(sign_B)).mean() for _ in range(_SHUFFLES)]
        other_B = _of_other_prompts(group_B, rng)
        known_B = group_B[other_B] != group_B
        preferred_B, other_clip_B = np.where(sign_B > 0, a_B, b_B), np.where(sign_B > 0, b_B, a_B)
        exchanged_B = _agree(preferred_B, other_clip_B[other_B], np.ones(len(sign_B)))
        exchanged_B[~known_B] = np.nan
        low, high = np.percentile(shuffled, [2.5, 97.5])
        return {
            "own": _plain(share(_agree(a_B, b_B, sign_B), group_B)),
            "shuffled": {"value": float(np.mean(shuffled)), "low": float(low), "high": float(high), "n": len(sign_B)},
            "exchanged": _plain(share(exchanged_B, group_B)),
        }

    def _by_words(self) -> dict[str, Any]:
        liked_N, group_N = np.array(self._liked), np.array(self._groups, np.str_)
        middle = np.median(liked_N)
        class_N = liked_N > middle if liked_N.max() > middle else liked_N == middle  # most have the highest rating
        if class_N.all():
            return {}
        words = judge_by_words(self._texts, class_N, group_N)
        verdict_N = judge_by_features(np.array(self._verdicts), class_N, group_N)
        return {
            "words": _plain(share(words.right_N, group_N)),
            "verdict": _plain(share(verdict_N, group_N)),
            "words_over_verdict": _plain(bootstrap_mean(words.right_N - verdict_N, group_N)),
            "telling": list(words.telling),
        }


def _features(chain: FilteredChain) -> list[float]:
    """The overall, and each mark with whether it applies."""
    assert chain.verdict is not None, "only chains with a verdict are compared"
    marks = [chain.verdict.marks[name] for name in DIMENSIONS]
    return [chain.verdict.overall, *(-1.0 if mark is None else mark - 1.0 for mark in marks)]


def _agree(a_B: NDArray[Any], b_B: NDArray[Any], sign_B: NDArray[Any]) -> NDArray[np.float64]:
    """1 where the overalls order a pair as the label does; one half where they are equal."""
    return np.where(a_B == b_B, 0.5, np.sign(a_B - b_B) == sign_B).astype(np.float64)


def _of_other_prompts(group_B: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.int64]:
    """For each pair the number of another one, of another prompt wherever that is possible."""
    order_B = rng.permutation(len(group_B))
    by_prompt_B = order_B[np.argsort(group_B[order_B], kind="stable")]
    _, counts = np.unique(group_B, return_counts=True)
    other_B = np.empty(len(group_B), np.int64)
    other_B[by_prompt_B] = np.roll(by_prompt_B, -int(counts.max()))
    return other_B


def _plain(figure: Any) -> dict[str, Any]:  # noqa: ANN401  # a Figure
    values = {name: getattr(figure, name) for name in ("value", "low", "high")}
    return {name: None if value != value else float(value) for name, value in values.items()} | {"n": figure.n}


def _findings(tests: Mapping[str, Any], sees: Mapping[str, int], *, pairs: bool) -> list[str]:
    found = [
        f"{count:,} chains are of a teacher that was shown people's {what}: their agreement is no evidence"
        for what, count in sees.items()
        if what != "nothing"
    ]
    alone = {name: tests[name]["value"] or 0.0 for name in ("exchanged", "words", "verdict") if name in tests}
    if pairs and alone and max(alone.values()) >= _SURE:  # of a rated clip, one chain may tell all
        found.append(
            f"one chain alone tells for {max(alone.values()):.0%} of pairs which clip people prefer, without the other "
            "clip: the label may have leaked"
        )
    more = tests.get("words_over_verdict")
    if more and (more["low"] or 0) > 0:
        words = ", ".join(tests["telling"])
        found.append(
            f"the words of a chain tell the label in {more['value']:.0%} more of cases than its marks and overall do: "
            f"the label may have leaked; the most telling words are {words}"
        )
    return found
