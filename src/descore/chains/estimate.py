"""What a run will take, before anything is asked: clips, requests, tokens, money and hours.

In: the settings. Out: an estimate, by a few clips that are read for it and the answers that there are already."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from descore.chains.asking import MissingChains, show_clip
from descore.chains.config import CollectConfig
from descore.chains.folder import ChainPlan, RunAnswers, check_same, holds_run, prices_of
from descore.chains.records import ChainRun
from descore.errors import VideoError

_PROBED = 12
"""Clips that are read for an estimate, spread over the table."""
_TOKENS_PER_SECOND = 50
"""At which a server is assumed to write one answer, before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionEstimate:
    """What is to be asked, and what that will take. Nothing was asked for it but what earlier sessions have."""

    clips: int
    """Unlike clips of the table, by prompt and contents."""
    requests: int
    """For these, K each."""
    missing: int
    """Requests that have no answer yet."""
    tokens_in: int
    """Of the missing requests, likely."""
    tokens_out: int
    """Of their answers: as long as those that came, or at first as long as they may be."""
    cost: float | None
    """Of both; None: the prices are not known."""
    most: float | None
    """The most that they may cost."""
    hours: float | None
    """At the limits' rates; None for a native teacher and batch files."""
    unreadable: int
    """Of the clips that were read for this."""
    read: int
    """Clips that were read for this."""


def estimate_collection(config: CollectConfig) -> CollectionEstimate:
    """What is still to be asked, and what that will take, by a few clips that are read for it. Nothing is asked or
    written, so that no key is needed. ConfigError as by `collect_chains`."""
    plan, run = ChainPlan.of(config), ChainRun(config.run.out)
    if holds_run(run, config):
        check_same(run, plan)
    answers = RunAnswers(run, config, plan)
    missing = answers.missing()
    count = sum(len(numbers) for _, numbers in missing)
    likely, most, unreadable, read = _probe(missing, config, plan)
    longest, known = plan.asked_with.max_tokens, len(answers.answered)
    answer = round(answers.tokens_out / known) if known else longest
    seconds = answers.seconds / known if answers.seconds else answer / _TOKENS_PER_SECOND
    prices = prices_of(config) if config.teacher.has_prices else None
    return CollectionEstimate(
        clips=len(plan.tasks),
        requests=sum(len(task.keys) for task in plan.tasks),
        missing=count,
        tokens_in=round(likely * count),
        tokens_out=answer * count,
        cost=None if prices is None else prices.cost(round(likely * count), answer * count),
        most=None if prices is None else prices.cost(math.ceil(most * count), longest * count),
        hours=_hours(config, count, tokens=(likely + answer) * count, seconds=seconds),
        unreadable=unreadable,
        read=read,
    )


def _probe(missing: Sequence[MissingChains], config: CollectConfig, plan: ChainPlan) -> tuple[float, float, int, int]:
    """Likely and most tokens of a request, by clips spread over the table; how many of these cannot be read."""
    spread = [missing[len(missing) * place // _PROBED][0] for place in range(_PROBED)] if missing else []
    tasks = list({task.keys: task for task in spread}.values())
    likely, most, unreadable = 0, 0, 0
    for task in tasks:
        try:
            estimate = show_clip(task, config, plan.asked_with).estimate
        except VideoError:
            unreadable += 1
            continue
        likely, most = likely + estimate.likely, most + estimate.most
    readable = max(1, len(tasks) - unreadable)
    return likely / readable, most / readable, unreadable, len(tasks)


def _hours(config: CollectConfig, count: int, *, tokens: float, seconds: float) -> float | None:
    """By the slowest of the rates: requests and tokens a minute, and as many requests at a time as are allowed.
    seconds: of one request."""
    if config.teacher.kind != "openai":
        return None
    limits = config.limits
    minutes = [count * seconds / limits.concurrency / 60]
    minutes += [count / limits.requests_per_minute] if limits.requests_per_minute else []
    minutes += [tokens / limits.tokens_per_minute] if limits.tokens_per_minute else []
    return max(minutes) / 60
