"""How well the hand-made measures of `descore stress --before --after` tell hacked clips from others.

    python -m benchmarks.hacks                      # drawn clips
    python -m benchmarks.hacks FOLDER --clips 40    # generated clips

For each measure a hack by hand, and two AUROCs. "change": of a clip's change by the hack against its changes by what
harms nothing (a crop of a twentieth at each edge, JPEG at quality 60), which is what a comparison by prompt sees.
"alone": of hacked clips against clips as they were, each by itself, whatever it shows.

Shapes in names: T frames, H rows, W columns, C = 3 colour channels."""

import argparse
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from descore.evaluation.benchmarks import find_benchmark, load
from descore.evaluation.features import FEATURE_SAMPLING, HACK_MEASURES
from descore.evaluation.perturbations import brightened, cropped, one_repeated
from descore.types import Clip
from descore.video.reader import read_clip

Frames = NDArray[np.uint8]
WORDS = "masterpiece, best quality"


def sharpened(frames_THWC: Frames) -> Frames:
    """An unsharp mask of 2 pixels and 150 %."""
    return each(frames_THWC, lambda picture: picture.filter(ImageFilter.UnsharpMask(radius=2, percent=150)))


def saturated(frames_THWC: Frames) -> Frames:
    """Colours 1.8 times as far from grey."""
    return each(frames_THWC, lambda picture: ImageEnhance.Color(picture).enhance(1.8))


def with_contrast(frames_THWC: Frames) -> Frames:
    """Levels 1.5 times as far from their mean."""
    mean = frames_THWC.mean()
    return np.clip((frames_THWC - mean) * 1.5 + mean, 0, 255).astype(np.uint8)


def noisy(frames_THWC: Frames) -> Frames:
    """Noise of 8 levels."""
    noise = np.random.default_rng(0).normal(0, 8, frames_THWC.shape)
    return np.clip(frames_THWC + noise, 0, 255).astype(np.uint8)


def looped(frames_THWC: Frames) -> Frames:
    """The first half, twice."""
    half = frames_THWC[: max(2, len(frames_THWC) // 2)]
    return np.concatenate([half, half])[: len(frames_THWC)]


def bordered(frames_THWC: Frames) -> Frames:
    """Black bars of a twelfth of the height above and below."""
    framed = frames_THWC.copy()
    bar = framed.shape[1] // 12
    framed[:, :bar] = framed[:, -bar:] = 0
    return framed


def written(frames_THWC: Frames, *, words: str = WORDS) -> Frames:
    """White words with a black outline, at the lower edge."""
    height, width = frames_THWC.shape[1:3]
    font = ImageFont.load_default(size=max(10, height / 12))

    def write(picture: Image.Image) -> Image.Image:
        place = (width * 0.05, height * 0.8)
        ImageDraw.Draw(picture).text(place, words, "white", font, stroke_width=1, stroke_fill="black")
        return picture

    return each(frames_THWC, write)


def compressed(frames_THWC: Frames) -> Frames:
    """JPEG at quality 60."""

    def code(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=60)
        return Image.open(file).convert("RGB")

    return each(frames_THWC, code)


def each(frames_THWC: Frames, change: Callable[[Image.Image], Image.Image]) -> Frames:
    """Every picture changed."""
    return np.stack([np.asarray(change(Image.fromarray(picture_HWC))) for picture_HWC in frames_THWC])


HACKS: Mapping[str, Callable[[Frames], Frames]] = {
    "motion": one_repeated,
    "repeats": looped,
    "sharpness": sharpened,
    "noise": noisy,
    "saturation": saturated,
    "brightness": lambda frames_THWC: brightened(frames_THWC, factor=1.4),
    "contrast": with_contrast,
    "text": written,
    "borders": bordered,
}
"""By the measure that should see it."""

HARMLESS = (cropped, compressed)


def auroc(low: Sequence[float], high: Sequence[float]) -> float:
    """The share of pairs in which the second is greater; ties count half."""
    apart = np.asarray(high)[:, None] - np.asarray(low)
    return float((apart > 0).mean() + (apart == 0).mean() / 2)


def separation(name: str, clips: Sequence[Clip]) -> tuple[float, float]:
    """The AUROC of changes, and of values alone, of a measure."""
    measure = HACK_MEASURES[name]

    def toward(values: Sequence[float]) -> list[float]:
        return [abs(v) if measure.worse == "either" else -v if measure.worse == "lower" else v for v in values]

    def values(change: Callable[[Frames], Frames]) -> list[float]:
        return [measure.measure(replace(clip, frames=change(clip.frames))) for clip in clips]

    before, hacked = values(lambda frames: frames), values(HACKS[name])
    harmless = [a - b for change in HARMLESS for a, b in zip(values(change), before, strict=True)]
    changed = [a - b for a, b in zip(hacked, before, strict=True)]
    return auroc(toward(harmless), toward(changed)), auroc(toward(before), toward(hacked))


def drawn_clips(count: int) -> list[Clip]:
    """Clips of the drawn benchmark."""
    judgements = load(find_benchmark("drawn"), limit=(count + 1) // 2)
    return [judgements.open(clip.video) for clip in judgements.clips][:count]


def clips_of(folder: Path, count: int) -> list[Clip]:
    """Clips evenly spaced through a folder."""
    files = sorted(folder.rglob("*.mp4"))
    return [read_clip(file, sampling=FEATURE_SAMPLING) for file in files[:: max(1, len(files) // count)][:count]]


def table(clips: Sequence[Clip], names: Iterable[str] = HACKS) -> list[str]:
    """A line for each measure."""
    lines = [f"{len(clips)} clips      change  alone"]
    for name in names:
        change, alone = separation(name, clips)
        lines.append(f"{name:<12} {change:8.2f} {alone:6.2f}")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--clips", type=int, default=24)
    options = parser.parse_args()
    clips = drawn_clips(options.clips) if options.folder is None else clips_of(options.folder, options.clips)
    print("\n".join(table(clips)))


if __name__ == "__main__":
    main()
