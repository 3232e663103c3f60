"""Makes small video files whose frame i is a flat grey of brightness 16 + 4 i, so that its number can be read."""

import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from descore.video.packets import PacketRow
from descore.video.sampling import VideoSampling

SMALL = VideoSampling(min_pixels=16 * 16, size_multiple=16)

# 48 frames at 24 fps last 2 s: 4 frames at 2 fps, at 0, 47/3, 94/3 and 47 frames from the start.
FOUR = [0, 15, 31, 47]

TICK = Fraction(1, 24)


def packet(pts, *, key=False, hidden=False, non_reference=False, duration=1):
    return PacketRow(pts=pts, duration=duration, key=key, hidden=hidden, non_reference=non_reference)


def gop(start, length, *, key=True):
    """Packets of a group of pictures that begins with a key frame."""
    return [packet(start + k, key=key and k == 0) for k in range(length)]


def grey(index, *, width=64, height=48):
    return np.full((height, width, 3), 16 + 4 * index, dtype=np.uint8)


def frame_numbers(clip):
    """The numbers of a clip's frames, read from their brightness; coding may move it by less than two levels."""
    levels = (clip.frames.mean(axis=(1, 2, 3)) - 16) / 4
    numbers = levels.round()
    assert np.abs(levels - numbers).max() < 0.45
    return numbers.astype(int).tolist()


def write_film(
    file,
    frames,
    *,
    codec="libx264",
    pixels="yuv420p",
    rate=24,
    ticks=None,
    tick=None,
    rotation=None,
    container=None,
    container_format=None,
    tags=None,
    **options,
):
    """Encode RGB frames (or RGBA, by their shape). `ticks` are their times in units of `tick`; evenly at `rate` if not
    given. `options` are the encoder's."""
    tick = tick or Fraction(1, rate)
    with av.open(file, "w", format=container_format, options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate)
        height, width = frames[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = tick
        stream.options = {key: str(value) for key, value in options.items()}
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            stream.set_display_rotation(*rotation)
        for index, pixels_HWC in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgba" if pixels_HWC.shape[2] == 4 else "rgb24")
            frame.pts, frame.time_base = (ticks[index] if ticks else index), tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file


def grey_film(file, count=48, *, size=(64, 48), **how):
    return write_film(file, [grey(i, width=size[0], height=size[1]) for i in range(count)], **how)


def noise(count, *, width=64, height=48, seed=0):
    """Frames of coarse noise that no encoder can hide damage in."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return list(small.repeat(8, axis=1).repeat(8, axis=2))


def write_gif(file, images, *, durations):
    """A GIF with a delay of its own for each frame, in milliseconds."""
    first, *others = [Image.fromarray(image) for image in images]
    first.save(file, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return file


def write_sound(file):
    """A file with sound only."""
    with av.open(file, "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 16000, 0
        out.mux(stream.encode(sound))
        out.mux(stream.encode())
    return file


def bytes_of(**how):
    """A small film as bytes."""
    file = io.BytesIO()
    grey_film(file, container_format="mp4", **how)
    return file.getvalue()
