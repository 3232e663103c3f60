"""Sheets of clips: a row of frames for each clip, as one picture to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from experiments.generator.world import Frames

_CAPTION, _GAP = 12, 2  # rows of pixels


def write_sheet(path: Path, clips: Sequence[Frames], captions: Sequence[str], *, columns: int = 2) -> None:
    """A PNG: clips in `columns` columns, the frames of each side by side under its caption."""
    strips = [np.concatenate(list(frames), axis=1) for frames in clips]
    height, width = strips[0].shape[0] + _CAPTION + _GAP, strips[0].shape[1] + 4 * _GAP
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for number, (strip, caption) in enumerate(zip(strips, captions, strict=True)):
        left, top = number % columns * width, number // columns * height
        pen.text((left, top), caption[: width // 6], fill=(0, 0, 0))
        sheet.paste(Image.fromarray(strip), (left, top + _CAPTION))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
