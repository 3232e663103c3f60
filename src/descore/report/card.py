"""Draw what a model said of clips: the sampled frames with their times, the chain, the marks, reward and score.

In: scores, in sections, and the words around them. Out: an image, the same for the same input. Reads records only:
no model, no disk, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from PIL import Image

from descore.report import drawing as draw
from descore.report.text import MARK_WORDS, facts, flags, one_line, plain, prose, signed
from descore.types import DIMENSIONS, Clip, Mark, Score

WIDTH = 1240
"""Pixels. Made to be read at 100 %."""

_MARGIN, _PADDING = 48, 30
_INNER = WIDTH - 2 * _MARGIN - 2 * _PADDING
_MARKS_WIDTH, _BODY_GAP = 268, 48
_FRAME_HEIGHT, _MOST_FRAMES, _FRAME_GAP = 126, 8, 8
_MOST_LINES = 12  # of a chain

_PAGE, _PANEL, _BORDER = "#f5f3ee", "#ffffff", "#e4e0d8"
_INK, _SOFT, _ACCENT, _ALARM = "#22262e", "#757a84", "#2b5c8a", "#a3372f"

MARK_COLOURS: dict[Mark, tuple[str, str]] = {
    2: ("#1d6a43", "#dcefe3"),
    1: ("#84590a", "#fbeecb"),
    0: ("#9c2f2a", "#f8dedb"),
    None: ("#757a84", "#eeeef0"),
}
"""Ink and fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Clips that belong together."""

    title: str
    scores: Sequence[Score]
    note: str = ""
    ranked: bool = False
    """The scores are of one prompt and come best first: they are numbered, and the prompt is said once."""


def draw_page(sections: Sequence[Section], *, title: str, note: str = "", footer: str = "") -> Image.Image:
    """All sections below one another."""
    inside = WIDTH - 2 * _MARGIN
    blocks = [_text(title, size=40, width=inside), *_optional(note, size=18, width=inside)]
    for section in sections:
        blocks.append(draw.blank(inside, 14, _PAGE))
        blocks += [_section_head(section), *(_card(score, place) for place, score in _placed(section))]
    blocks += _optional(footer, size=14, width=inside)
    column = draw.stack(blocks, gap=16, paper=_PAGE, width=inside)
    page = draw.blank(WIDTH, column.height + 2 * _MARGIN, _PAGE)
    page.paste(column, (_MARGIN, _MARGIN))
    return page


def draw_card(score: Score) -> Image.Image:
    """A single clip on a page of its own."""
    card = _card(score, None)
    page = draw.blank(WIDTH, card.height + 2 * _MARGIN, _PAGE)
    page.paste(card, (_MARGIN, _MARGIN))
    return page


def _placed(section: Section) -> list[tuple[int | None, Score]]:
    return [(place if section.ranked else None, score) for place, score in enumerate(section.scores, start=1)]


def _section_head(section: Section) -> Image.Image:
    width = WIDTH - 2 * _MARGIN
    blocks = [_text(section.title, size=26, width=width)]
    if section.ranked and section.scores:
        blocks.append(_text(f"“{one_line(section.scores[0].prompt)}”", size=20, width=width, ink=_ACCENT, most=4))
    return draw.stack([*blocks, *_optional(section.note, size=16, width=width)], gap=6, paper=_PAGE)


def _optional(text: str, *, size: int, width: int) -> list[Image.Image]:
    return [_text(text, size=size, width=width, ink=_SOFT)] if text else []


def _text(text: str, *, size: int, width: int, ink: str = _INK, most: int = 6) -> Image.Image:
    return draw.paragraph(plain(text), width=width, size=size, ink=ink, paper=_PAGE, most=most)


def _card(score: Score, place: int | None) -> Image.Image:
    """A white panel. Without a place the clip has a prompt of its own."""
    blocks = [_head(score, place)]
    if place is None:
        said = f"“{one_line(score.prompt)}”"
        blocks.append(draw.paragraph(said, width=_INNER, size=19, ink=_ACCENT, paper=_PANEL, most=4))
    blocks += [_filmstrip(score.clip), draw.blank(1, 2, _PANEL), _body(score)]
    content = draw.stack(blocks, gap=14, paper=_PANEL, width=_INNER)
    height = content.height + 2 * _PADDING
    panel = draw.rounded(WIDTH - 2 * _MARGIN, height, radius=14, fill=_PANEL, paper=_PAGE, border=_BORDER)
    panel.paste(content, (_PADDING, _PADDING))
    return panel


def _head(score: Score, place: int | None) -> Image.Image:
    """Place, name and facts on the left; the reward on the right."""
    right = _numbers(score)
    room = _INNER - right.width - 90
    name = draw.shorten(one_line(PurePath(score.clip.source).name), width=room, size=22)
    lines = [(name, 22, _INK), (draw.shorten(facts(score.clip), width=room, size=14), 14, _SOFT)]
    left = draw.stack([_on_panel(*line) for line in lines], gap=0, paper=_PANEL)
    if place is not None:
        badge = draw.chip(str(place), size=24, ink="#ffffff", fill=_ACCENT, paper=_PANEL, width=42)
        left = draw.beside([badge, left], gap=16, paper=_PANEL, middle=True)
    return draw.apart(left, right, width=_INNER, paper=_PANEL)


def _numbers(score: Score) -> Image.Image:
    spread = "" if score.std is None else f" ± {score.std:.2f}"
    found = [("reward", signed(score.reward, digits=2) + spread)]
    if score.score is not None:
        found.append(("score", signed(score.score, digits=2)))
    pairs = [
        draw.beside([_on_panel(title, 15, _SOFT), _on_panel(value, 28, _INK)], gap=10, paper=_PANEL, middle=True)
        for title, value in found
    ]
    return draw.beside(pairs, gap=32, paper=_PANEL, middle=True)


def _filmstrip(clip: Clip) -> Image.Image:
    """Frames spread over the clip, as the model saw them, as many as there is room for."""
    aspect = clip.size[0] / clip.size[1]
    fitting = round((_INNER + _FRAME_GAP) / (_FRAME_HEIGHT * aspect + _FRAME_GAP))
    count = max(1, min(len(clip.times), _MOST_FRAMES, fitting))
    # As wide as fills the line, but a few frames of a short clip are not blown up for it.
    width = min((_INNER - (count - 1) * _FRAME_GAP) // count, round(1.3 * _FRAME_HEIGHT * aspect))
    size = max(1, width), min(max(1, round(width / aspect)), 4 * _FRAME_HEIGHT)
    cells = []
    for index in (round(k * (len(clip.times) - 1) / max(1, count - 1)) for k in range(count)):
        frame = Image.fromarray(clip.frames[index]).resize(size, Image.Resampling.BICUBIC)
        cells.append(draw.stack([frame, _on_panel(f"{clip.times[index]:.2f} s", 13, _SOFT)], gap=3, paper=_PANEL))
    return draw.beside(cells, gap=_FRAME_GAP, paper=_PANEL)


def _body(score: Score) -> Image.Image:
    """The chain on the left, the marks on the right; without marks the chain has the whole width."""
    verdict = score.verdict
    width = _INNER if verdict is None else _INNER - _MARKS_WIDTH - _BODY_GAP
    chain = _chain(score, width)
    if verdict is None:
        return chain
    rows = [_mark_row(name, verdict.marks[name]) for name in DIMENSIONS]
    overall = draw.apart(
        _on_panel("overall", 16, _INK),
        _on_panel(f"{verdict.overall:.2f} of 5", 16, _INK),
        width=_MARKS_WIDTH,
        paper=_PANEL,
    )
    marks = draw.stack([*rows, overall], gap=6, paper=_PANEL)
    return draw.beside([chain, marks], gap=_BODY_GAP, paper=_PANEL)


def _chain(score: Score, width: int) -> Image.Image:
    typical = score.typical
    said = prose(typical) if typical.text else "(scored without thinking)"
    ink = _INK if typical.text else _SOFT
    blocks = [draw.paragraph(said, width=width, size=17, ink=ink, paper=_PANEL, most=_MOST_LINES)]
    for flag in flags(typical):
        blocks.append(draw.paragraph(flag, width=width, size=15, ink=_ALARM, paper=_PANEL, most=2))
    return draw.stack(blocks, gap=8, paper=_PANEL, width=width)


def _mark_row(name: str, mark: Mark) -> Image.Image:
    ink, fill = MARK_COLOURS[mark]
    pill = draw.chip(MARK_WORDS[mark], size=15, ink=ink, fill=fill, paper=_PANEL, width=104)
    return draw.apart(_on_panel(name, 16, _SOFT), pill, width=_MARKS_WIDTH, paper=_PANEL)


def _on_panel(text: str, size: int, ink: str) -> Image.Image:
    return draw.label(text, size=size, ink=ink, paper=_PANEL)
