"""Draw pairs with what is known of them: the prompt, both clips' frames, their marks, and which is preferred.

In: entries. Out: one image for people to look at, the same for the same input. Reads records only: no disk, no clock;
knows nothing of where pairs come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from descore.report import drawing as draw
from descore.report.card import MARK_COLOURS
from descore.report.text import one_line, plain
from descore.rubric import mark_text
from descore.types import DIMENSIONS, Clip, Mark, Preference

_MARGIN, _PADDING, _GAP = 40, 22, 6
_FRAMES, _CELL, _TALLEST = 8, 104, 160
_STRIP, _LETTER, _MARKS = _FRAMES * (_CELL + _GAP) - _GAP, 46, 176
_INNER = _LETTER + _STRIP + 24 + _MARKS
_WIDTH = _INNER + 2 * (_PADDING + _MARGIN)
_PAGE, _PANEL, _BORDER = "#f5f3ee", "#ffffff", "#e4e0d8"
_INK, _SOFT, _ACCENT = "#22262e", "#757a84", "#2b5c8a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One clip of a pair."""

    clip: Clip
    marks: Mapping[str, Mark]
    rating: float
    """1.00 to 5.00."""
    note: str = ""
    """What is said below the frames."""
    source: str = ""
    """What made the clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A pair of one prompt."""

    title: str
    prompt: str
    a: Side
    b: Side
    preference: Preference


def draw_sheet(entries: Sequence[Entry], *, title: str, note: str = "") -> Image.Image:
    """All entries below one another."""
    head = [draw.paragraph(plain(title), width=_WIDTH - 2 * _MARGIN, size=30, ink=_INK, paper=_PAGE)]
    if note:
        head.append(draw.paragraph(plain(note), width=_WIDTH - 2 * _MARGIN, size=15, ink=_SOFT, paper=_PAGE))
    column = draw.stack([*head, *(_panel(entry) for entry in entries)], gap=14, paper=_PAGE)
    page = draw.blank(_WIDTH, column.height + 2 * _MARGIN, _PAGE)
    page.paste(column, (_MARGIN, _MARGIN))
    return page


def _panel(entry: Entry) -> Image.Image:
    said = draw.paragraph(f"“{one_line(entry.prompt)}”", width=_INNER - 150, size=18, ink=_ACCENT, paper=_PANEL, most=3)
    head = draw.apart(said, _text(entry.title, 13, _SOFT), width=_INNER, paper=_PANEL)
    rows = [_row("A", entry.a, best=entry.preference == "a"), _row("B", entry.b, best=entry.preference == "b")]
    content = draw.stack([head, *rows], gap=12, paper=_PANEL)
    height = content.height + 2 * _PADDING
    panel = draw.rounded(_INNER + 2 * _PADDING, height, radius=12, fill=_PANEL, paper=_PAGE, border=_BORDER)
    panel.paste(content, (_PADDING, _PADDING))
    return panel


def _row(letter: str, side: Side, *, best: bool) -> Image.Image:
    """The preferred clip's letter stands on colour; of a tie, neither does."""
    ink, fill = ("#ffffff", _ACCENT) if best else (_SOFT, "#eeeef0")
    badge = draw.chip(letter, size=18, ink=ink, fill=fill, paper=_PANEL, width=32)
    strip = draw.stack([_strip(side.clip), _note(side.note)], gap=4, paper=_PANEL, width=_STRIP)
    lead = draw.stack([badge], gap=0, paper=_PANEL, width=_LETTER)
    return draw.beside([lead, strip, draw.blank(24, 1, _PANEL), _marks(side)], gap=0, paper=_PANEL)


def _strip(clip: Clip) -> Image.Image:
    """Eight frames, or as many as there are, spread over the clip; pixels stay pixels where they are enlarged."""
    count = min(len(clip.times), _FRAMES)
    scale = min(_CELL / clip.size[0], _TALLEST / clip.size[1])
    size = max(1, round(clip.size[0] * scale)), max(1, round(clip.size[1] * scale))
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    chosen = [round(k * (len(clip.times) - 1) / max(1, count - 1)) for k in range(count)]
    return draw.beside(
        [Image.fromarray(clip.frames[index]).resize(size, way) for index in chosen], gap=_GAP, paper=_PANEL
    )


def _note(text: str) -> Image.Image:
    return draw.paragraph(one_line(text), width=_STRIP, size=13, ink=_SOFT, paper=_PANEL, most=3)


def _marks(side: Side) -> Image.Image:
    rows = [
        draw.apart(_text(name, 13, _SOFT), _pill(side.marks[name]), width=_MARKS, paper=_PANEL) for name in DIMENSIONS
    ]
    overall = draw.apart(_text("overall", 14, _INK), _text(f"{side.rating:.2f}", 14, _INK), width=_MARKS, paper=_PANEL)
    source = [_text(draw.shorten(side.source, width=_MARKS, size=12), 12, _SOFT)] if side.source else []
    return draw.stack([*rows, overall, *source], gap=3, paper=_PANEL)


def _pill(mark: Mark) -> Image.Image:
    ink, fill = MARK_COLOURS[mark]
    return draw.chip(mark_text(mark), size=11, ink=ink, fill=fill, paper=_PANEL, width=40)


def _text(text: str, size: int, ink: str) -> Image.Image:
    return draw.label(plain(text), size=size, ink=ink, paper=_PANEL)
