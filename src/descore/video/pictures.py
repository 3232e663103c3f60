"""Pictures that need more than a decoder and a scaler.

Animations and picture sequences, told from still images: in, an open file with the start of a PNG, JPEG, WebP, GIF or
AVIF; out, a Clip, or a VideoError of one line. Sizes are checked before anything is decoded. Pillow decodes what FFmpeg
cannot: animated WebP, AVIF with transparency, and APNG whose cleared areas have no alpha.

Broadcast footage: in, a decoded frame that is interlaced, or scaled pictures in PQ or HLG; out, the same as progressive
frames and as SDR.

Pictures of checkpoints that the official code trained: scaled by torch, as there."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

import numpy as np
from av import VideoFrame
from av.filter import Graph
from av.video.reformatter import ColorTrc
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from descore.types import Clip
from descore.video.containers import jpeg_pictures
from descore.video.decoder import FrameConverter, Orientation, clip_of, decode_video, fitting_size, over_white
from descore.video.packets import PacketTable, open_video
from descore.video.sampling import DecodeJob, Timeline, choose_frames

if TYPE_CHECKING:
    from torch import Tensor

MILLISECOND = Fraction(1, 1000)

SHORTEST, USUAL = 11, 100
"""Milliseconds. A shorter delay than the first is shown as the second, as browsers and FFmpeg do."""

PNG_CHUNKS, WEBP_CHUNKS = 8, 12
"""Bytes before the first chunk."""

JPEG_READ = 2**26
"""Bytes within which the first picture of a JPEG file ends."""

WITHOUT_ALPHA = (0, 2)
"""Colour types of PNG: grey and RGB. A palette is decoded with alpha."""

CLEARED, RESTORED = 1, 2
"""Disposals of APNG: what becomes of a frame's area behind it."""

SDR_WHITE, HDR_PEAK, PQ_PEAK = 203.0, 1000.0, 10_000.0
"""Luminance in cd/m2: what SDR white stands for (ITU-R BT.2408), the brightest that HDR pictures are taken to hold, and
the brightest that PQ can state."""

HLG_GAMMA = 1.2
"""Of a display of 1000 cd/m2 (ITU-R BT.2100, table 5)."""

SDR_GAMMA = 2.4
"""Of the display that SDR is made for (ITU-R BT.1886)."""

LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Of linear BT.2020 colours (ITU-R BT.2087)."""


def decode_pictures(file: BinaryIO, *, job: DecodeJob) -> Clip:
    """Sample a file that begins as a picture."""
    file.seek(0)
    head = file.read(32)
    if head.startswith(b"\x89PNG"):
        return _decode_png(file, job=job)
    if head.startswith(b"GIF8"):
        _check_size(*struct.unpack("<HH", head[6:10]), frames=1, kind="a GIF", job=job)
    elif head.startswith(b"\xff\xd8\xff"):
        file.seek(0)
        if jpeg_pictures(file.read(JPEG_READ)) == 1:
            raise job.error("a still image (JPEG), not a video")
        job = replace(job, container="mjpeg")
    elif head.startswith(b"RIFF"):
        return _decode_webp(file, job=job)
    else:
        return _decode_avif(file, job=job)
    return decode_video(file, job=job)


def _check_size(width: int, height: int, *, frames: int, kind: str, job: DecodeJob) -> None:
    """Raise for an animation beyond the bounds: it is decoded to 4 bytes a pixel, where a video has 1.5."""
    most, most_in_all = job.sampling.max_source_pixels * 3 // 8, job.sampling.max_decode
    if width * height > most:
        raise job.beyond(f"{kind} of {width}x{height} pixels, more than 3/8 of max_source_pixels ({most})")
    if width * height * frames > most_in_all:
        raise job.beyond(f"{frames} frames of {width}x{height} pixels, more than max_decode ({most_in_all}) in all")


@dataclass(kw_only=True)
class _Png:
    """What the chunks of an animation state."""

    size: tuple[int, int] = (0, 0)
    frames: int = 0
    has_alpha: bool = True
    has_still: bool = False
    """Whether a picture for programs without animation comes before the first frame."""
    areas: list["_PngArea"] = field(default_factory=list)
    """Of the frames of a picture without alpha."""

    @property
    def has_cleared(self) -> bool:
        """Whether nothing is left of an area at some time. What would be restored behind the first frame is nothing."""
        return any(
            area.disposal == CLEARED or (not n and area.disposal == RESTORED) for n, area in enumerate(self.areas)
        )


class _PngArea(NamedTuple):
    """Where a frame is drawn."""

    rows: slice
    columns: slice
    disposal: int

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Of an fcTL chunk."""
        width, height, x, y, _, _, disposal = struct.unpack(">IIIIHHB", content[4:25])
        return cls(slice(y, y + height), slice(x, x + width), disposal)


def _decode_png(file: BinaryIO, *, job: DecodeJob) -> Clip:
    """An animation. What a frame clears is transparent (PNG 3, 11.3.6.2), also in a picture without alpha, for which
    FFmpeg and Pillow make it black."""
    png = _read_png(file, job=job)
    if not png.frames:
        raise job.error("a still image (PNG), not a video")
    _check_size(*png.size, frames=png.frames, kind="an animated PNG", job=job)
    if png.has_cleared:
        with open_video(file, job=job) as video:
            timeline = PacketTable.of(video.rows, tick=video.tick).timeline
        if timeline is not None:
            return _decode_with_pillow(file, timeline, size=png.size, job=job, png=png)
    return decode_video(file, job=job)


def _read_png(file: BinaryIO, *, job: DecodeJob) -> _Png:
    """The chunks up to the first picture; without alpha up to the last frame, within the limit of frames."""
    png = _Png()
    for name, content in _chunks(file, at=PNG_CHUNKS):
        job.check_time()
        if name == b"IHDR" and len(content) >= 10:
            png.size, png.has_alpha = struct.unpack(">II", content[:8]), content[9] not in WITHOUT_ALPHA
        elif name == b"tRNS":
            png.has_alpha = True
        elif name == b"acTL":
            png.frames = int.from_bytes(content[:4], "big")
        elif name == b"fcTL" and len(content) >= 25:
            png.areas.append(_PngArea.of(content))
        elif name == b"IDAT" and not png.areas:
            png.has_still = True
        if (name == b"IDAT" and (png.has_alpha or not png.frames)) or len(png.areas) > png.frames:
            break
    return png if not png.has_alpha else replace(png, areas=[])


def _cleared(png: _Png) -> Iterator[NDArray[np.bool_]]:
    """Of each frame, where nothing is drawn (H, W)."""
    cleared_HW = np.ones(png.size[::-1], bool)
    for rows, columns, disposal in png.areas:
        before = cleared_HW[rows, columns].copy()
        cleared_HW[rows, columns] = False
        yield cleared_HW
        if disposal in (CLEARED, RESTORED):
            cleared_HW[rows, columns] = before if disposal == RESTORED else True


def _chunks(file: BinaryIO, *, at: int) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG or WebP file from a place on: name and first bytes of each. A WebP has the length, a PNG the
    name behind the other, and a checksum."""
    is_png = at == PNG_CHUNKS
    while True:
        file.seek(at)
        head = file.read(8 + 32)
        if len(head) < 8:
            return
        name, size = (
            (head[4:8], int.from_bytes(head[:4], "big")) if is_png else (head[:4], int.from_bytes(head[4:8], "little"))
        )
        yield name, head[8 : 8 + size]
        at += 8 + size + (4 if is_png else size % 2)


def _decode_webp(file: BinaryIO, *, job: DecodeJob) -> Clip:
    file.seek(4)
    stated = 8 + int.from_bytes(file.read(4), "little")
    size, delays = (0, 0), list[int]()
    for name, content in _chunks(file, at=WEBP_CHUNKS):
        if name == b"VP8X" and len(content) >= 10:
            size = 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little")
        elif name == b"ANMF":
            delays.append(int.from_bytes(content[12:15], "little"))
    if file.seek(0, 2) < stated:
        raise job.error(f"cut off: the file ends after {len(delays)} frames, before the end that it states")
    if not delays:
        raise job.error("a still image (WebP), not a video")
    _check_size(*size, frames=len(delays), kind="an animated WebP", job=job)
    ticks = [0]
    for delay in delays:
        ticks.append(ticks[-1] + (delay if delay >= SHORTEST else USUAL))
    timeline = Timeline.of(ticks[:-1], tick=MILLISECOND, last=ticks[-1] - ticks[-2])
    return _decode_with_pillow(file, timeline, size=size, job=job)


def _decode_avif(file: BinaryIO, *, job: DecodeJob) -> Clip:
    """An image sequence, whose mask, if it has one, is a video stream of its own."""
    with open_video(file, job=job) as video:
        timeline = PacketTable.of(video.rows, tick=video.tick).timeline
        size, masked = (video.stream.width, video.stream.height), len(video.streams) > 1
    if masked and timeline is not None:
        return _decode_with_pillow(file, timeline, size=size, job=job)
    return decode_video(file, job=job)


def _decode_with_pillow(
    file: BinaryIO, timeline: Timeline, *, size: tuple[int, int], job: DecodeJob, png: _Png | None = None
) -> Clip:
    chosen = choose_frames(timeline, sampling=job.sampling)
    sampling = job.sampling
    converter = FrameConverter(fitting_size(*size, source=job.source, sampling=sampling), rule=sampling.rule)
    pictures = [
        converter.convert(VideoFrame.from_ndarray(over_white(rgba_HWC), format="rgb24"))
        for rgba_HWC in _pillow_frames(file, chosen, job=job, png=png)
    ]
    return clip_of(pictures, chosen=chosen, timeline=timeline, source=job.source, source_size=size, sampling=sampling)


def _pillow_frames(
    file: BinaryIO, chosen: Sequence[int], *, job: DecodeJob, png: _Png | None = None
) -> Iterator[NDArray[np.uint8]]:
    """The chosen frames (H, W, 4); without what `png` has cleared."""
    file.seek(0)
    masks = None if png is None else enumerate(_cleared(png))
    try:
        with Image.open(file) as image:
            for index in chosen:
                job.check_time()
                image.seek(index + (png is not None and png.has_still))
                rgba_HWC = np.array(_of_8_bits(image).convert("RGBA"))
                if masks is not None:
                    rgba_HWC[next(cleared_HW for number, cleared_HW in masks if number == index)] = 0
                yield rgba_HWC
    except UnidentifiedImageError as error:
        raise job.error("transparency that cannot be read: this Pillow does not know the format") from error
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise job.error(f"damaged: a frame cannot be decoded ({error})") from error


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as 8 bits, which Pillow would cut off at 255."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode == "I;16" else image


def resized_by_torch(frame: VideoFrame, size: tuple[int, int], *, orientation: Orientation) -> NDArray[np.uint8]:
    """The picture (H, W, 3) of a frame, turned, then scaled to a width and height: pixels as torchcodec and decord give
    them, and torchvision's antialiased bicubic resize of uint8."""
    import torch  # who scores with a checkpoint of the official code has it

    rgb_HWC = np.asarray(_filtered(frame, "format", "rgb24").to_ndarray(), np.uint8)
    picture_1CHW = torch.from_numpy(orientation.apply(rgb_HWC).copy()).permute(2, 0, 1)[None]
    return np.asarray(antialiased(picture_1CHW, size=size)[0].permute(1, 2, 0).contiguous().numpy())


def antialiased(frames_TCHW: "Tensor", *, size: tuple[int, int]) -> "Tensor":
    """Frames of uint8 at another width and height, as torchvision's antialiased bicubic resize gives them; floats of 0
    to 255 are clamped and keep their fractions and gradients."""
    from torch.nn.functional import interpolate

    floats_TCHW = frames_TCHW if frames_TCHW.is_floating_point() else frames_TCHW.float()
    scaled_TCHW = interpolate(floats_TCHW, size=size[::-1], mode="bicubic", antialias=True).clamp(0, 255)
    return scaled_TCHW if frames_TCHW.is_floating_point() else scaled_TCHW.round().byte()


def deinterlaced(frame: VideoFrame) -> VideoFrame:
    """The first field of a frame, its missing lines drawn along edges."""
    progressive = _filtered(frame, "estdif", "mode=frame:deint=all")
    progressive.colorspace, progressive.color_range = frame.colorspace, frame.color_range
    return progressive


def _filtered(frame: VideoFrame, name: str, options: str) -> VideoFrame:
    """A frame behind one of FFmpeg's filters."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    filter_, sink = graph.add(name, options), graph.add("buffersink")
    source.link_to(filter_)
    filter_.link_to(sink)
    graph.configure()
    graph.push(frame)
    graph.push(None)
    result = graph.pull()
    assert isinstance(result, VideoFrame)
    return result


def tone_mapped(picture_HWC: NDArray[np.uint16], *, transfer: int) -> NDArray[np.uint8]:
    """The SDR picture of one in PQ or HLG with BT.2020 primaries, 16 bits a channel (ITU-R BT.2390, 5.4)."""
    signal_HWC = picture_HWC / 65535
    light_HWC = _hlg_light(signal_HWC) if transfer == ColorTrc.ARIB_STD_B67 else _pq_light(signal_HWC)
    brightest_HW1 = light_HWC.max(axis=2, keepdims=True).clip(1e-6, None)
    light_HWC = light_HWC * (_compressed(brightest_HW1) / brightest_HW1)
    linear_HWC = (light_HWC / SDR_WHITE @ TO_BT709.T).clip(0, 1)
    return np.asarray((linear_HWC ** (1 / SDR_GAMMA) * 255).round(), np.uint8)


def _compressed(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Luminance up to HDR_PEAK brought to at most SDR_WHITE: as it is below a knee, along a Hermite spline above."""
    peak = _pq_signal(np.array(HDR_PEAK))
    most = float(_pq_signal(np.array(SDR_WHITE)) / peak)
    knee = 1.5 * most - 0.5
    level = (_pq_signal(light) / peak).clip(0, 1)
    t = ((level - knee) / (1 - knee)).clip(0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return _pq_light(np.where(level < knee, level, spline) * peak)


def _pq_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Luminance of a PQ signal (ITU-R BT.2100, table 4)."""
    power = signal ** (1 / 78.84375)
    ratio = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return np.asarray(PQ_PEAK * ratio ** (1 / 0.1593017578125))


def _pq_signal(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """PQ signal of a luminance."""
    power = (light / PQ_PEAK) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def _hlg_light(signal_HWC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Luminance of an HLG signal on a display of 1000 cd/m2 (ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene_HWC = np.where(signal_HWC <= 0.5, signal_HWC**2 / 3, (np.exp((signal_HWC - c) / a) + b) / 12)
    return np.asarray(HDR_PEAK * scene_HWC * (scene_HWC @ LUMINANCE)[..., None] ** (HLG_GAMMA - 1))
