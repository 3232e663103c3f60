"""How unlike the clips of one prompt are.

Three measures, since a generator that gets better loses some unlikeness that nobody misses: clips with a wrong setting
differ in nearly every pixel from those with the right one.

    pixels   root mean square difference of two clips of a prompt, in shares of black to white, at a quarter of the size
    place    root mean square distance of a shape's mean place in a clip from the mean of its prompt's clips, in shares
             of the side
    same_setting   pixels, of those clips alone that show the setting that was asked for

Shapes: T frames, H rows, W columns."""

from collections.abc import Sequence
from itertools import combinations, compress

import numpy as np

from experiments.generator.segmentation import centres, segment
from experiments.generator.world import Frames
from experiments.harness import known_mean

_SHRINK = 4


def diversities(groups: Sequence[Sequence[Frames]], right: Sequence[Sequence[bool]]) -> dict[str, float]:
    """All measures by name, each a mean over the prompts that it is known of. groups: the clips of each prompt; right:
    whether each shows the setting that was asked for."""
    alike = [list(compress(*both)) for both in zip(groups, right, strict=True)]
    return {
        "pixels": known_mean([pixel_diversity(group) for group in groups]),
        "place": known_mean([place_diversity(group) for group in groups]),
        "same_setting": known_mean([pixel_diversity(group) for group in alike]),
    }


def pixel_diversity(clips: Sequence[Frames]) -> float:
    """Of the clips of one prompt, the mean over all pairs; nan for a single clip."""
    if len(clips) < 2:
        return float("nan")
    small = [_shrunk(frames) for frames in clips]
    apart = [float(np.sqrt(np.square(one - other).mean())) for one, other in combinations(small, 2)]
    return float(np.mean(apart))


def place_diversity(clips: Sequence[Frames]) -> float:
    """Over the clips of one prompt that show a shape; nan if fewer than two do."""
    tracks = [centres(found) / frames.shape[1] for frames in clips if (found := segment(frames)) is not None]
    if len(tracks) < 2:
        return float("nan")
    place_N2 = np.asarray([np.nanmean(track_T2, axis=0) for track_T2 in tracks])
    return float(np.sqrt(np.square(place_N2 - place_N2.mean(axis=0)).sum(axis=1).mean()))


def _shrunk(frames: Frames) -> np.typing.NDArray[np.float32]:
    """Means of blocks of pixels, 0 to 1."""
    count, height, width, channels = frames.shape
    blocks = frames.reshape(count, height // _SHRINK, _SHRINK, width // _SHRINK, _SHRINK, channels)
    small: np.typing.NDArray[np.float32] = (blocks.mean(axis=(2, 4)) / 255).astype(np.float32)
    return small
