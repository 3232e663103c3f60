"""Read a folder of odd, cut and damaged videos, and compare each with what is right for it.

    python -m tests.robustness.zoo [FOLDER]

Prints a line a file and how many are right; exits 1 unless all are. Without a folder it is ../shared/data/zoo.

Frames of "flats" have one colour, from RED in the first frame to BLUE in the last; where they have transparency, the
left half is transparent over a hidden green and must be white."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from descore.errors import VideoError
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling

DEFAULT = Path(__file__).parents[2] / ".." / "shared" / "data" / "zoo"
RED, BLUE, WHITE = (220, 40, 40), (40, 100, 220), (255, 255, 255)
LEVELS = 4
"""Levels that lossy coding may move a colour by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A file that is read, and the clip that is right for it."""

    frames: int
    seconds: float
    size: tuple[int, int] = (160, 96)
    flats: bool = False
    white_left: bool = False

    def fault(self, path: Path) -> str | None:
        """What is wrong with what is read."""
        try:
            clip = read_clip(path, sampling=VideoSampling())
        except VideoError as error:
            return f"refused ({error.reason})"
        got = clip.source_frames, round(clip.duration, 3), clip.source_size
        if got != (self.frames, self.seconds, self.size):
            return f"read as frames, seconds, size {got}"
        if not self.flats:
            return None
        half = clip.size[0] // 2
        for frame, colour in ((clip.frames[0], RED), (clip.frames[-1], BLUE)):
            for half_frame, right in (
                (frame[:, : half - 8], WHITE if self.white_left else colour),
                (frame[:, half + 8 :], colour),
            ):
                if np.abs(half_frame.astype(int) - right).max() > LEVELS:
                    return f"a half is {half_frame.mean((0, 1)).round().tolist()}, not {right}"
        return None


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is refused, and what the message must say."""

    words: str

    def fault(self, path: Path) -> str | None:
        """What is wrong with the refusal."""
        try:
            read_clip(path, sampling=VideoSampling())
        except VideoError as error:
            return None if self.words in error.reason else f"refused without {self.words!r}: {error.reason}"
        return f"read, though it is to be refused as {self.words!r}"


FLATS = Whole(frames=16, seconds=2.0, flats=True)
ON_WHITE = Whole(frames=16, seconds=2.0, flats=True, white_left=True)
FOUR_SECONDS = Whole(frames=96, seconds=4.0)
RECORDED = Whole(frames=96, seconds=3.999)
GIF = Whole(frames=16, seconds=2.01)
CUT, DAMAGED, STILL = Refused("cut off"), Refused("damaged"), Refused("a still image")

EXPECTED: dict[str, Whole | Refused] = {
    "seq.avif": FLATS,
    "seq_ffmpeg.avif": Whole(frames=8, seconds=1.0),
    "seq_alpha.avif": ON_WHITE,
    "alpha_vp9.webm": ON_WHITE,
    "alpha_vp8.webm": ON_WHITE,
    "flip_mjpeg.mov": DAMAGED,
    "flip_mjpeg.avi": DAMAGED,
    "flip_ffv1.mkv": DAMAGED,
    "raw_cut.mjpeg": CUT,
    "lost_page.ogv": DAMAGED,
    "flip_page.ogv": DAMAGED,
    "cut_page.ogv": CUT,
    "cut_mid.ogv": CUT,
    **{f"live_cut{part}.mkv": CUT for part in ("03", "06", "09", "12")},
    **{f"live_cut{part}.webm": CUT for part in ("05", "10")},
    "frag_cut_mehd.mp4": CUT,
    "frag_cut_sidx.mp4": CUT,
    "frag_cut_plain.mp4": Whole(frames=48, seconds=2.0),
    "second_default.mkv": RECORDED,
    **{f"still.{suffix}": STILL for suffix in ("png", "jpg", "webp", "avif", "heic")},
    "comfy.webp": Whole(frames=16, seconds=1.328, flats=True),
    "alpha.webp": ON_WHITE,
    "cut.webp": CUT,
    **{f"{what}_behind.gif": GIF for what in ("comment", "xmp", "control", "junk")},
    "joined.ts": FOUR_SECONDS,
    "raw_whole.mjpeg": Whole(frames=24, seconds=0.96),
    "cover.mp3": Refused("audio and a cover picture"),
    "cover.m4a": Refused("audio and a cover picture"),
    "encrypted.mp4": Refused("encrypted"),
    "wide_canvas.gif": Refused("max_source_pixels"),
    "live_whole.mkv": RECORDED,
}


def main() -> None:
    """Compare every file of the folder that is known."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    paths = sorted(path for path in folder.glob("*") if path.name in EXPECTED)
    faults = [EXPECTED[path.name].fault(path) for path in paths]
    for path, fault in zip(paths, faults, strict=True):
        print(f"{path.name:20} {fault or 'right'}")
    print(f"{faults.count(None)} of {len(EXPECTED)} right in {folder}")
    sys.exit(faults.count(None) < len(EXPECTED))


if __name__ == "__main__":
    main()
