"""What a page shows of a scored table: failures, the best and the worst clip of each prompt with their frames, and the
rewards of each source.

In: a scored table, and the videos that it names. Out: a record. The table is read twice, a row at a time; of each row a
few numbers are kept, and whole rows and frames of the prompts that are shown only."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from descore.data.tables import columns_of, nearest
from descore.errors import ConfigError, VideoError
from descore.rewards.ranking import Collected, Lead, LeftOut, RankedClip, collect, require_scored, together
from descore.rewards.scored import ScoredRow, read_scored
from descore.types import Clip
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

SOURCE = "source"
"""The column that rewards are divided by, unless another is named."""

_FRAMES = 8
_SAMPLING = VideoSampling(
    fps=0.01, min_frames=_FRAMES, max_frames=_FRAMES, min_pixels=1, max_pixels=256 * 256, size_multiple=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownClip:
    """A row of a scored table with frames of its video."""

    row: ScoredRow
    name: str
    """The video as the table has it."""
    clip: Clip | None
    """None if the video cannot be read."""
    error: str
    """Why it cannot be read; empty if it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPrompt:
    """The best and the worst clip of a prompt."""

    prompt: str
    group: str
    clips: int
    """Those with a reward."""
    best: ShownClip
    worst: ShownClip | None
    """None where there is one clip only."""
    lead: Lead | None
    """Of the best over the worst."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredOverview:
    """What a page shows of a scored table."""

    table: str
    model: str | None
    rows: int
    left_out: tuple[LeftOut, ...]
    prompts: tuple[ShownPrompt, ...]
    """The first ones, in the order of the table."""
    of_prompts: int
    """All prompts that have a reward."""
    column: str | None
    """What rewards are divided by; None: by nothing."""
    rewards: Mapping[str, NDArray[np.float64]]
    """By value of that column, the rewards; those with the highest mean first."""
    failed: Mapping[str, int]
    """By value, the rows without a reward."""


def read_overview(table: str | Path, *, prompts: int, column: str | None = None) -> ScoredOverview:
    """Read a scored table, and the videos of its first `prompts` prompts. column: what rewards are divided by; None for
    the column `source`, where there is one.

    ConfigError for a table that is not scored or has no such column, and the errors of `rank`. A video that cannot be
    read is shown without frames."""
    require_scored(table)
    column = _column(table, column)
    rewards: dict[str, list[float]] = {}
    failed: Counter[str] = Counter()
    rows = _noting(read_scored(table), column=column, rewards=rewards, failed=failed)
    collected = collect(rows, by=None, file=table)
    by_mean = sorted(rewards, key=lambda name: -float(np.mean(rewards[name])))
    return ScoredOverview(
        table=Path(table).name,
        model=collected.model,
        rows=sum(map(len, rewards.values())) + failed.total(),
        left_out=tuple(collected.left_out),
        prompts=_shown_prompts(table, collected, limit=prompts),
        of_prompts=len(collected.prompts),
        column=column,
        rewards={name: np.asarray(rewards[name], np.float64) for name in by_mean},
        failed=dict(failed),
    )


def _column(table: str | Path, column: str | None) -> str | None:
    names = columns_of(table)
    if column is None:
        return SOURCE if SOURCE in names else None
    if column not in names:
        close = nearest(column, names)
        hint = f" (is it {close!r}?)" if close else ""
        raise ConfigError(f"{table}: no column {column!r}{hint}; it has {', '.join(names)}")
    return column


def _noting(
    rows: Iterable[ScoredRow], *, column: str | None, rewards: dict[str, list[float]], failed: Counter[str]
) -> Iterator[ScoredRow]:
    """The rows, whose rewards are noted by the value of a column."""
    for row in rows:
        cell = None if column is None else {**row.columns, **row.results()}.get(column)
        value = "all clips" if column is None else "(none)" if cell in (None, "") else str(cell)
        if row.reward is None:
            failed[value] += 1
        else:
            rewards.setdefault(value, []).append(row.reward)
        yield row


def _shown_prompts(table: str | Path, collected: Collected, *, limit: int) -> tuple[ShownPrompt, ...]:
    sets = {key: _numbers(clips) for key, clips in islice(collected.prompts.items(), limit)}
    shown: dict[tuple[str, str], ShownPrompt] = {}
    for (prompt, group), rows in together(read_scored(table), sets):
        clips = collected.prompts[prompt, group]
        ends = [_shown(row, clip) for row, clip in zip(rows, (clips[0], clips[-1]), strict=False)]
        shown[prompt, group] = ShownPrompt(
            prompt=prompt,
            group=group,
            clips=len(clips),
            best=ends[0],
            worst=ends[1] if len(ends) > 1 else None,
            lead=collected.lead(clips[0], clips[-1]) if len(ends) > 1 else None,
        )
    return tuple(shown[key] for key in sets)


def _numbers(clips: Sequence[RankedClip]) -> list[int]:
    return [clips[0].number] if len(clips) == 1 else [clips[0].number, clips[-1].number]


def _shown(row: ScoredRow, ranked: RankedClip) -> ShownClip:
    try:
        clip, error = read_clip(row.video, sampling=_SAMPLING), ""
    except VideoError as fault:
        clip, error = None, fault.reason
    return ShownClip(row=row, name=ranked.name, clip=clip, error=error)
