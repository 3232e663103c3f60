"""Small pictures of text and shapes, and ways to put them together. Every block is an image that knows its own size.

Knows Pillow; knows nothing of records. The font is the scalable one that comes with Pillow: letters that it lacks are
drawn as boxes."""

from collections.abc import Iterator, Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

Colour = str
Picture = Image.Image

_LINE = 1.42  # height of a line, in font sizes
_SMOOTH = 4  # shapes are drawn this much larger and scaled down, which smooths their edges
_LONGEST = 6000  # letters of a text that are looked at: what lies beyond would not be shown anyway


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font at a size in pixels."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


def blank(width: int, height: int, colour: Colour) -> Picture:
    """A plain area."""
    return Image.new("RGB", (width, height), colour)


def label(text: str, *, size: int, ink: Colour, paper: Colour) -> Picture:
    """One line, as wide as it is."""
    height = round(size * _LINE)
    picture = blank(max(1, round(font(size).getlength(text))), height, paper)
    ImageDraw.Draw(picture).text((0, height / 2), text, font=font(size), fill=ink, anchor="lm")
    return picture


def paragraph(text: str, *, width: int, size: int, ink: Colour, paper: Colour, most: int = 100) -> Picture:
    """Wrapped lines; of more than `most` the last one ends with an ellipsis."""
    lines = wrap(text[:_LONGEST], width=width, size=size)
    if len(lines) > most:
        lines = [*lines[: most - 1], shorten(f"{lines[most - 1]} …", width=width, size=size)]
    return stack([label(line, size=size, ink=ink, paper=paper) for line in lines], gap=0, paper=paper, width=width)


def wrap(text: str, *, width: int, size: int) -> list[str]:
    """Lines that fit the width in pixels. Breaks at spaces; a word that is wider than a line is broken anywhere."""
    return [line for part in text.split("\n") for line in _wrap_one(part, width, size)]


def shorten(text: str, *, width: int, size: int) -> str:
    """The text, or as much of its beginning as fits together with an ellipsis."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def chip(text: str, *, size: int, ink: Colour, fill: Colour, paper: Colour, width: int) -> Picture:
    """A word on a coloured pill."""
    height = round(size * 1.75)
    picture = rounded(width, height, radius=height // 2, fill=fill, paper=paper)
    ImageDraw.Draw(picture).text((width / 2, height / 2), text, font=font(size), fill=ink, anchor="mm")
    return picture


def rounded(
    width: int, height: int, *, radius: int, fill: Colour, paper: Colour, border: Colour | None = None
) -> Picture:
    """An area with round corners and, if asked for, a thin border."""
    area = blank(width, height, fill)
    ImageDraw.Draw(area).rectangle((0, 0, width - 1, height - 1), outline=border or fill)
    # Only the corners need smoothing: a disc gives all four.
    large = blank(2 * radius * _SMOOTH, 2 * radius * _SMOOTH, paper)
    ImageDraw.Draw(large).ellipse(
        (0, 0, large.width - 1, large.height - 1), fill=fill, outline=border or fill, width=_SMOOTH
    )
    disc = large.resize((2 * radius, 2 * radius), Image.Resampling.LANCZOS)
    for left, x in ((0, 0), (radius, width - radius)):
        for top, y in ((0, 0), (radius, height - radius)):
            area.paste(disc.crop((left, top, left + radius, top + radius)), (x, y))
    return area


def stack(pictures: Sequence[Picture], *, gap: int, paper: Colour, width: int | None = None) -> Picture:
    """One below the other, at the left."""
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    page = blank(width or max(picture.width for picture in pictures), max(1, height), paper)
    y = 0
    for picture in pictures:
        page.paste(picture, (0, y))
        y += picture.height + gap
    return page


def beside(pictures: Sequence[Picture], *, gap: int, paper: Colour, middle: bool = False) -> Picture:
    """One beside the other, at the top or with their middles on one line."""
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    page = blank(width, max(picture.height for picture in pictures), paper)
    x = 0
    for picture in pictures:
        page.paste(picture, (x, (page.height - picture.height) // 2 if middle else 0))
        x += picture.width + gap
    return page


def apart(left: Picture, right: Picture, *, width: int, paper: Colour) -> Picture:
    """One at each end of a line, their middles level."""
    page = blank(width, max(left.height, right.height), paper)
    page.paste(left, (0, (page.height - left.height) // 2))
    page.paste(right, (width - right.width, (page.height - right.height) // 2))
    return page


def _wrap_one(text: str, width: int, size: int) -> list[str]:
    lines, line = [], ""
    for word in _fitting_words(text, width, size):
        longer = f"{line} {word}" if line else word
        if line and font(size).getlength(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


def _fitting_words(text: str, width: int, size: int) -> Iterator[str]:
    for word in text.split():
        while font(size).getlength(word) > width:
            count = max(1, next(n for n in range(1, len(word) + 1) if font(size).getlength(word[:n]) > width) - 1)
            yield word[:count]
            word = word[count:]
        if word:
            yield word
