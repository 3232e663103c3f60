"""Single pairs that are worth a look: the worst mistakes with what is known of both clips, and what thinking turned.

In: findings. Out: frozen views of plain values. Knows records; knows nothing of markup."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePath
from typing import Any

from descore.evaluation.results import reward_of
from descore.report.findings import Flip, Mistake, ThinkingEffect
from descore.types import Mark

Record = Mapping[str, Any]

_LONGEST_CHAIN = 6000  # letters
_ANSWER = "<answer>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One clip of a mistake."""

    letter: str
    video: str
    source: str | None
    preferred: bool
    image: str | None
    """A data URI of its frames, if they were kept."""
    reward: float
    overall: float | None
    ratings: Mapping[str, float]
    marks: Mapping[str, Mark] | None
    true_marks: Mapping[str, Mark] | None
    chain: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MistakeView:
    """A mistake with its two sides."""

    mistake: Mistake
    sides: tuple[Side, Side]


def flips(effects: Sequence[ThinkingEffect], *, most: int) -> list[tuple[ThinkingEffect, Flip]]:
    """Pairs that thinking turned, each effect's in turn; a pair that turned under several labels is named once."""
    chosen: dict[tuple[str, ...], tuple[ThinkingEffect, Flip]] = {}
    for turn in zip_longest(*(effect.flips for effect in effects)):
        for effect, flip in zip(effects, turn, strict=True):
            if flip is not None and len(chosen) < most:
                chosen.setdefault((effect.on.name, flip.prompt, *sorted((flip.preferred, flip.other))), (effect, flip))
    return list(chosen.values())


def mistake_view(mistake: Mistake) -> MistakeView:
    """Both clips, with all that is known of them."""
    pair = mistake.pair
    said = pair.preference[mistake.label]
    sides = [_side(mistake, letter, video, said) for letter, video in (("a", pair.video_a), ("b", pair.video_b))]
    return MistakeView(mistake=mistake, sides=(sides[0], sides[1]))


def short_path(video: str) -> str:
    """A file's name with its folder's, which often says what made it."""
    return "/".join(PurePath(video).parts[-2:]) or video


def _side(mistake: Mistake, letter: str, video: str, said: str) -> Side:
    run = mistake.by.run
    place = next((k for k, c in enumerate(run.clips) if (c.video, c.prompt) == (video, mistake.pair.prompt)), None)
    clip = None if place is None else run.clips[place]
    record = run.records[(video, mistake.pair.prompt)]
    frames = None if place is None else run.frames.get(place)
    return Side(
        letter=letter,
        video=short_path(video),
        source=mistake.pair.source_a if letter == "a" else mistake.pair.source_b,
        preferred=said == letter,
        image=None if frames is None else f"data:image/jpeg;base64,{base64.b64encode(frames).decode()}",
        reward=reward_of(record, mistake.label),
        overall=record["overall"],
        ratings={} if clip is None else clip.ratings,
        marks=record["marks"],
        true_marks=None if clip is None else clip.marks,
        chain=_chain(record),
        flags=_flags(record),
    )


def _chain(record: Record) -> str:
    """The chain without its answer where that was read: the marks say the same."""
    text = record["thinking"] or ""
    if record["marks"] is not None and _ANSWER in text:
        text = text[: text.rindex(_ANSWER)]
    text = text.strip()
    more = len(text) - _LONGEST_CHAIN
    return text if more <= 0 else f"{text[:_LONGEST_CHAIN]} … ({more:,} more letters)"


def _flags(record: Record) -> tuple[str, ...]:
    unread = bool(record["thinking"]) and record["marks"] is None
    return (*(["The thinking was cut off."] * bool(record["truncated"])), *(["No marks could be read."] * unread))
