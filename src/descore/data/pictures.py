"""Turn a decoded frame into RGB pixels at the size and the way up that the model sees.

In: PyAV frames of any pixel format, their display matrix and pixel shape. Out: (H, W, 3) uint8 arrays.
Knows nothing of files, times or which frames are taken."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

WHITE = 255

# Bicubic, because the video processor of the backbone scales so; like there, swscale's filter widens with the step, so
# that shrinking averages instead of skipping pixels. The flags ask for colour in full: without them the picture comes
# out darker by a level or two, and is not the same on every processor.
FILTER = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Turn(NamedTuple):
    """How a stored picture becomes the shown one: first transposed, then mirrored."""

    transpose: bool
    mirror_x: bool
    mirror_y: bool

    def apply(self, picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture (H, W, C)."""
        turned = picture_HWC.transpose(1, 0, 2) if self.transpose else picture_HWC
        return turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after turning; also before, since turning swaps them or does not."""
        return (height, width) if self.transpose else (width, height)


UPRIGHT = Turn(transpose=False, mirror_x=False, mirror_y=False)


def turn_of(frame: VideoFrame) -> Turn:
    """How a frame is to be turned, from its display matrix; angles between are taken to the nearest quarter."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV names no side data at all if it does not know one kind among them
        return _quarter_turns(frame.rotation)
    if matrix is None:
        return UPRIGHT
    # Stored (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()  # type: ignore[call-overload]  # a buffer
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Turn(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
    return Turn(transpose=False, mirror_x=a < 0, mirror_y=d < 0)


def _quarter_turns(degrees: int) -> Turn:
    """The turn for an angle, counterclockwise."""
    quarters = round(degrees / 90) % 4
    return (UPRIGHT, Turn(True, False, True), Turn(False, True, True), Turn(True, True, False))[quarters]


def shown_size(frame: VideoFrame, *, turn: Turn, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height of a frame as a player shows it: square pixels, turned upright."""
    aspect = pixel_aspect if pixel_aspect else Fraction(1)
    return turn.size(max(1, round(frame.width * aspect)), frame.height)


class Painter:
    """Scales, converts and turns frames of one video to one size.

    Colours follow the frame's own tags for matrix and range. An untagged matrix is taken for BT.601, whatever the
    size: the usual writers of generated clips convert from RGB so, and tag nothing."""

    def __init__(self, size: tuple[int, int], *, turn: Turn = UPRIGHT) -> None:
        self.size = size
        self.turn = turn
        self._scaler = VideoReformatter()

    def paint(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The frame's picture, (H, W, 3), on white where it is transparent."""
        if _may_be_transparent(frame):
            # Before scaling, or the hidden colour of transparent pixels would bleed into their neighbours.
            rgba = frame.reformat(format="rgba", dst_color_range=ColorRange.JPEG)
            frame = VideoFrame.from_ndarray(over_white(_pixels(rgba)), format="rgb24")
        width, height = self.turn.size(*self.size)
        rgb = self._scaler.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=FILTER, dst_color_range=ColorRange.JPEG
        )
        return self.turn.apply(_pixels(rgb))


def over_white(rgba_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a picture with alpha (H, W, 4) on white: the page that transparent clips are made to lie on."""
    colour, alpha = rgba_HWC[..., :3], rgba_HWC[..., 3:]
    if (alpha == WHITE).all():
        return np.ascontiguousarray(colour)
    mixed = colour.astype(np.uint16) * alpha + WHITE * (WHITE - alpha.astype(np.uint16))
    return ((mixed + WHITE // 2) // WHITE).astype(np.uint8)


def _pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_ndarray(), np.uint8)


def _may_be_transparent(frame: VideoFrame) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
