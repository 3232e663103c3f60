"""Clips as cards on one page of HTML: frames with their times, chain, marks, reward and score.

In: cards in sections. Out: the page, the same text for the same cards. All text of cards is untrusted and is escaped;
the page has no script and fetches nothing."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from PIL import Image

from descore.report.page import fill
from descore.report.text import chain_prose, clip_facts, completion_warnings, signed
from descore.types import DIMENSIONS, Clip, Score, Verdict

FRAMES = 8
"""Frames of a card at most."""
SIDE = 256
"""Longest side of a frame, in pixels; larger frames are scaled down."""
QUALITY = 90
"""Of the frames' JPEGs, of 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCard:
    """One clip with what is known of it."""

    clip: Clip
    title: str
    badge: str = ""
    """A rank or a letter before the title."""
    emphasized: bool = False
    """The badge is filled with colour."""
    prompt: str = ""
    """Empty where the section names it."""
    numbers: Mapping[str, str] = field(default_factory=dict)
    """Reward and score, by name."""
    text: str = ""
    """The chain without its answer."""
    warnings: Sequence[str] = ()
    """Why the chain may not be trusted."""
    verdict: Verdict | None = None
    truth: Verdict | None = None
    """The true marks; where they differ from the verdict's, both are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSection:
    """Cards that belong together."""

    title: str
    cards: Sequence[ClipCard]
    prompt: str = ""
    """The prompt that all its clips have."""
    note: str = ""
    compact: bool = False
    """Frames and text beside the marks, not above them: for pages of many clips."""


def score_card(score: Score, *, rank: int | None = None, truth: Verdict | None = None) -> ClipCard:
    """The card of a scored clip. With a rank, the section names the prompt; without one, the card does."""
    typical = score.typical
    spread = "" if score.std is None else f" ± {score.std:.2f}"
    numbers = {"reward": signed(score.reward, digits=2) + spread}
    if score.score is not None:
        numbers["score"] = signed(score.score, digits=2)
    return ClipCard(
        clip=score.clip,
        title=PurePath(score.clip.source).name,
        badge="" if rank is None else str(rank),
        emphasized=True,
        prompt=score.prompt if rank is None else "",
        numbers=numbers,
        text=chain_prose(typical) if typical.text else "(scored without thinking)",
        warnings=completion_warnings(typical),
        verdict=typical.verdict,
        truth=truth,
    )


def render_cards(
    sections: Sequence[CardSection], *, title: str, generator: str, note: str = "", footer: str = ""
) -> str:
    """The page. generator: the command that writes it."""
    return fill(
        "cards.html.j2",
        generator=generator,
        title=title,
        note=note,
        footer=footer,
        sections=sections,
        dimensions=DIMENSIONS,
        clip_facts=clip_facts,
        frames=_frames,
    )


def _frames(clip: Clip) -> list[tuple[str, float]]:
    """Data URI and time of up to FRAMES frames, evenly spaced from the first to the last."""
    count = min(len(clip.times), FRAMES)
    chosen = [round(k * (len(clip.times) - 1) / max(1, count - 1)) for k in range(count)]
    return [(_data_uri(Image.fromarray(clip.frames[index])), clip.times[index]) for index in chosen]


def _data_uri(frame: Image.Image) -> str:
    frame.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    frame.save(file, "JPEG", quality=QUALITY, subsampling=0)  # thin coloured edges stay sharp
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
