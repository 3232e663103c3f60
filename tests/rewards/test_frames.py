"""Frames in memory: axes, ranges, sampling and scaling, against the file reader on the same clip."""

import itertools

import av
import numpy as np
import pytest
import torch
from av import VideoFrame
from PIL import Image

from descore.errors import ConfigError, DescoreWarning, VideoError
from descore.rewards.frames import LAYOUT, FrameFormat, check_layout, grey_levels, prepare, resize, split_videos
from descore.types import Clip
from descore.video.decoder import FrameConverter
from descore.video.reader import VideoSampling, read_clip

CPU = torch.device("cpu")
SMALL = VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16)


def made_videos(*, frames=6, height=32, width=48, count=2, seed=0):
    """Random frames (B, T, C, H, W), uint8."""
    shape = (count, frames, 3, height, width)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def smooth_frame(height, width, *, seed=0):
    """A picture (H, W, 3) of a few waves and hard edges, as generated videos have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-6, 6, (3, 3))]
    picture = np.stack(waves, axis=-1) * 110 + 127
    picture[height // 4 : height // 2, width // 3 : width // 2] = (250, 10, 60)
    return picture.round().clip(0, 255).astype(np.uint8)


def prepared(video, *, fps=8.0, sampling=SMALL, **form):
    return prepare(video, source="videos[0]", fps=fps, form=FrameFormat(**form), sampling=sampling, device=CPU)


def scaled_by_reader(frame_HWC, size):
    return FrameConverter(size).convert(VideoFrame.from_ndarray(frame_HWC, format="rgb24"))


def scaled_by_torch(frame_HWC, size):
    frames_TCHW = torch.from_numpy(frame_HWC).permute(2, 0, 1)[None]
    return resize(frames_TCHW, size=size)[0].permute(1, 2, 0).numpy()


def write_rgb(path, frames_THWC, *, fps):
    """A file without loss, in RGB."""
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames_THWC:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("layout", ["".join(p) for p in itertools.permutations(LAYOUT)])
def test_every_named_order_of_the_axes(layout):
    videos = made_videos(frames=3, height=16, width=32)  # 3 frames: by sizes alone the axes could not be told
    given = videos.permute([LAYOUT.index(letter) for letter in layout])
    for form in (given, given.numpy()):
        for got, video in zip(split_videos(form, layout=layout), videos, strict=True):
            assert torch.equal(torch.as_tensor(got), video)


@pytest.mark.parametrize("layout", ["TCHW", "CTHW", "THWC", "HWCT", "BCTHW"])
def test_a_list_has_the_layout_of_its_items(layout):
    video = made_videos(frames=5)[0]
    order = ["TCHW".index(letter) for letter in layout.replace("B", "")]
    [got] = split_videos([video.permute(order)], layout=layout)
    assert torch.equal(got, video)


def test_single_pictures_are_clips_of_one_frame():
    pictures = made_videos()[:, 0]
    got = split_videos(pictures, layout="BCHW")
    assert [one.shape[0] for one in got] == [1, 1]
    assert torch.equal(torch.stack(got)[:, 0], pictures)
    assert torch.equal(split_videos([pictures[0].permute(1, 2, 0)], layout="HWC")[0][0], pictures[0])


@pytest.mark.parametrize("shape", [(2, 3, 5, 8, 8), (2, 5, 3, 8, 8), (2, 5, 8, 8, 3)])
def test_axes_are_recognized_by_the_only_place_of_3(shape):
    assert [tuple(v.shape) for v in split_videos(torch.zeros(shape), layout=None)] == [(5, 3, 8, 8)] * 2


@pytest.mark.parametrize(
    ("videos", "layout", "message"),
    [
        (torch.zeros(2, 3, 3, 8, 8), None, r"may be BTCHW or BCTHW; write layout='BTCHW'"),
        (torch.zeros(2, 3, 8, 8, 3), None, r"may be BCTHW or BTHWC; write layout='BCTHW'"),
        (torch.zeros(2, 5, 4, 8, 8), None, r"has no axis of 3 colours in a usual place; write layout='BTCHW'"),
        (torch.zeros(5, 3, 8, 8), None, r"videos has shape \(5, 3, 8, 8\); expected 5 axes"),
        (torch.zeros(5, 3, 8, 8), "TCHW", r"names no B, but videos is one array; put a single video into a list"),
        (torch.zeros(2, 5, 8, 8, 3), "BTCHW", r"8 colours by layout BTCHW, expected 3"),
        (torch.zeros(2, 3, 8, 8), "BTCHW", r"4 axes; layout BTCHW names 5"),
        ([torch.zeros(3, 3, 8, 8)], None, r"videos\[0\] has shape \(1, 3, 3, 8, 8\), which may be"),
        ([[torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)]], None, r"videos\[0\]: frames of different shapes"),
        ("clip.mp4", None, "videos is a str; expected a list with one for each prompt"),
    ],
)
def test_axes_that_are_not_certain_are_refused(videos, layout, message):
    with pytest.raises(ConfigError, match=message):
        split_videos(videos, layout=layout)


@pytest.mark.parametrize("layout", ["", "BTHW", "BTCHWX", "BCTHWC", "btchw"])
def test_layouts_that_name_other_axes_are_refused(layout):
    with pytest.raises(ConfigError, match="expected the letters of BTCHW"):
        check_layout(layout)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_range_gives_the_levels_it_was_made_from(dtype):
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    unit = levels.to(dtype) / 255
    for black_white, given in (((0, 1), unit), ((-1, 1), unit * 2 - 1), ((0, 255), levels.to(dtype))):
        got, clamped = grey_levels(given, form=FrameFormat(range=black_white), source="clip")
        assert torch.equal(got, levels)
        assert clamped == 0


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float16, 0), (torch.bfloat16, 1)])
def test_half_precision_is_within_a_level(dtype, apart):
    # bfloat16 has 8 bits from .5 to 1, steps of 1/256: half a step is half a level.
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    got, _ = grey_levels((levels.float() / 255).to(dtype), form=FrameFormat(range=(0, 1)), source="clip")
    assert int((got.int() - levels.int()).abs().max()) <= apart


def test_an_overshoot_is_clamped_and_counted():
    frames = torch.full((1, 3, 4, 4), 0.5)
    frames[0, 0, 0, :3] = torch.tensor([1.0005, -0.0005, 1.0])
    levels, clamped = grey_levels(frames, form=FrameFormat(range=(0, 1)), source="clip")
    assert clamped == 2
    assert levels[0, 0, 0, :3].tolist() == [255, 0, 255]


@pytest.mark.parametrize(
    ("value", "form", "message"),
    [
        (1.03, {"range": (0, 1)}, r"clip: values from 0\.5 to 1\.03, beyond range=\(0, 1\) by over 0\.02"),
        (-1.05, {"range": (-1, 1)}, r"values from -1\.05 to 0\.5, beyond range=\(-1, 1\) by over 0\.04"),
        (1.0005, {"range": (0, 1), "overshoot": 0.0}, "by over 0"),
        (float("nan"), {"range": (0, 1)}, "not finite"),
        (float("inf"), {"range": (0, 1)}, "not finite"),
    ],
)
def test_values_beyond_the_overshoot_are_refused(value, form, message):
    frames = torch.full((1, 3, 4, 4), 0.5)
    frames[0, 0, 0, 0] = value
    with pytest.raises(VideoError, match=message):
        grey_levels(frames, form=FrameFormat(**form), source="clip")


@pytest.mark.parametrize("black_white", [(-1, 1), (0, 255)])
def test_frames_of_0_to_1_under_another_range_warn(black_white):
    frames = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(DescoreWarning, match=r"if its frames are 0 to 1, write range=\(0, 1\)"):
        grey_levels(frames, form=FrameFormat(range=black_white), source="clip")


def test_floats_without_a_range_and_other_types_are_refused():
    with pytest.raises(ConfigError, match=r"write their black and white: range=\(0, 1\)"):
        grey_levels(torch.zeros(1, 3, 4, 4), form=FrameFormat(), source="clip")
    with pytest.raises(ConfigError, match=r"type torch\.int64; expected uint8, or floats"):
        grey_levels(torch.zeros(1, 3, 4, 4, dtype=torch.int64), form=FrameFormat(), source="clip")
    with pytest.raises(ConfigError, match=r"range is \(0, 2\), expected \(0, 1\), \(-1, 1\), \(0, 255\)"):
        FrameFormat(range=(0, 2))


@pytest.mark.parametrize(("frames", "fps"), [(1, 8.0), (5, 1.0), (81, 16.0), (49, 23.976), (300, 24.0)])
def test_the_frames_and_times_are_those_of_the_reader(frames, fps):
    video = made_videos(frames=frames, height=32, width=32, count=1)[0]
    read = read_clip(video, sampling=SMALL, fps=fps)
    clip = prepared(video, fps=fps).clip
    assert np.array_equal(clip.frames, read.frames)
    assert torch.equal(clip.pixels, torch.from_numpy(read.frames).permute(0, 3, 1, 2))
    for name in set(Clip.__dataclass_fields__) - {"frames", "source"}:
        assert getattr(clip, name) == getattr(read, name)


def test_floats_give_the_frames_that_the_reader_makes_of_them():
    video = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(prepared(video, range=(0, 1)).clip.frames, read_clip(video, sampling=SMALL, fps=8).frames)


SIZES = [  # of a source, height first, and the width and height that it is scaled to
    ((480, 832), (576, 320)),
    ((64, 64), (128, 128)),
    ((256, 256), (128, 128)),  # a width that is halved: colours are averaged first
    ((720, 1280), (576, 320)),
    ((100, 90), (64, 96)),
    ((97, 131), (64, 64)),  # an odd one: they are not
    ((58, 150), (544, 544)),
    ((8, 8), (64, 64)),
]


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("content", ["picture", "noise"])
def test_scaling_is_that_of_the_reader_within_a_level(source, target, content):
    noise = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    frame = noise if content == "noise" else smooth_frame(*source)
    apart = scaled_by_torch(frame, target).astype(int) - scaled_by_reader(frame, target)
    assert np.abs(apart).max() <= 1
    assert np.abs(apart).mean() < 0.05  # nearly all are equal, and neither side is brighter


def test_torchs_own_bicubic_is_further_off():
    frame = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    frames_TCHW = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    other = torch.nn.functional.interpolate(frames_TCHW, (128, 128), mode="bicubic", antialias=True)
    apart = other[0].permute(1, 2, 0).round().numpy() - scaled_by_reader(frame, (128, 128))
    assert np.abs(apart).max() > 10


def test_floats_keep_fractions_and_gradients():
    frames = made_videos(frames=1, height=64, width=64)[0]
    floats = frames.double().requires_grad_()
    scaled = resize(floats, size=(32, 32))
    assert torch.equal(scaled.detach().round().to(torch.uint8), resize(frames, size=(32, 32)))
    scaled.mean().backward()
    assert float(floats.grad.sum()) == pytest.approx(1, abs=1e-6)  # a brighter clip is as much brighter when scaled


@pytest.mark.parametrize("size", [(4, 3), (12, 9)])
def test_gradients_of_scaling_are_those_of_finite_differences(size):
    frames = torch.rand(1, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 100 + 50
    assert torch.autograd.gradcheck(lambda x: resize(x, size=size), frames.requires_grad_())


def test_scaling_is_as_exact_under_a_trainers_autocast():
    frames = made_videos(frames=1, height=64, width=64)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = resize(frames, size=(32, 32))
    assert torch.equal(lowered, resize(frames, size=(32, 32)))


@pytest.mark.parametrize(("width", "height"), [(416, 240), (832, 480)])
def test_a_file_of_rgb_gives_the_frames_that_its_pixels_give(tmp_path, width, height):
    sampling = VideoSampling(max_pixels=128 * 128, max_frames=4)
    frames = np.stack([smooth_frame(height, width, seed=seed) for seed in range(5)])
    write_rgb(tmp_path / "clip.mkv", frames, fps=8)
    read = read_clip(tmp_path / "clip.mkv", sampling=sampling)
    [video] = split_videos(frames[None], layout="BTHWC")
    clip = prepared(video, fps=8, sampling=sampling).clip
    assert clip.times == pytest.approx(read.times, abs=1e-3)  # Matroska states milliseconds
    assert np.abs(clip.frames.astype(int) - read.frames).max() <= 1


def test_files_images_lists_and_clips_are_read_too(tmp_path):
    from descore.video.encoder import write_mp4

    frames = np.stack([smooth_frame(32, 48, seed=i) for i in range(6)])
    write_mp4(tmp_path / "clip.mp4", frames, fps=8)
    images = [Image.fromarray(frame) for frame in frames]
    read = read_clip(tmp_path / "clip.mp4", sampling=SMALL)
    [path, pictures, clip, arrays, tensors] = split_videos(
        [tmp_path / "clip.mp4", images, read, list(frames), list(torch.from_numpy(frames))], layout=None
    )
    for own in (path, clip):
        assert np.array_equal(prepared(own, fps=None).clip.frames, read.frames)
    expected = read_clip(images, sampling=SMALL, fps=8)
    for own in (pictures, arrays, tensors):
        got = prepared(own).clip
        assert np.array_equal(got.frames, expected.frames)
        assert got.times == expected.times


def test_flipped_and_read_only_arrays_are_read():
    frames = made_videos()[0].numpy()
    frames.flags.writeable = False
    expected = read_clip(frames[::-1].copy(), sampling=SMALL, fps=8)
    assert np.array_equal(prepared(frames[::-1]).clip.frames, expected.frames)


@pytest.mark.parametrize("fps", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_frames_need_their_fps(fps):
    with pytest.raises(ConfigError, match="fps"):
        prepared(made_videos()[0], fps=fps)
    with pytest.raises(ConfigError, match="fps"):
        prepared([Image.new("RGB", (32, 32))] * 4, fps=fps)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (4, 3, 0, 32)])
def test_frames_without_pixels_have_no_clip(shape):
    with pytest.raises(VideoError, match="no frames, or frames without pixels"):
        prepared(torch.zeros(shape, dtype=torch.uint8))


def test_frames_for_a_converted_checkpoint_are_the_readers():
    """The rule of qwen-vl-utils: frame numbers and pixels equal, whichever way the frames come."""
    sampling = SMALL.model_copy(update={"rule": "qwen_vl_utils"})
    video = np.stack([smooth_frame(90, 120, seed=k) for k in range(9)])
    own = prepared(torch.from_numpy(video).permute(0, 3, 1, 2), sampling=sampling).clip
    reader = read_clip(video, sampling=sampling, fps=8.0)
    assert own.frame_numbers == reader.frame_numbers == (0, 3, 5, 8)
    assert np.array_equal(own.frames, reader.frames)
