"""A converted checkpoint of the official code sees the frames that qwen-vl-utils 0.0.14 reads for it.

Numbers marked "by the package" were computed once by qwen-vl-utils 0.0.14 with torchcodec 0.12. The rest is compared
with the published rule written out here, PyAV's plain conversion to RGB, and torchvision's resize."""

import json
import math
import re
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import descore
from descore.errors import ConfigError, VideoError
from descore.model import import_torchvision
from descore.model.checkpoint import read_settings
from descore.model.convert_official import SAMPLING, convert_official
from descore.scorer import Scorer
from descore.video.reader import read_clip
from descore.video.sampling import Timeline, VideoSampling, choose_frames, fit_size
from tests.conftest import RUBRIC, noise_clip
from tests.model.official_cases import rewards_by_hand, whole_model
from tests.video.films import grey, grey_film, write_film

RABBIT = descore.__path__[0] + "/bundled/clips/rabbit.mp4"
PLACED = "Text: {prompt}\nVideo: {video}\n" + RUBRIC.replace("{prompt}", "it")


def even(count, *, fps):
    return Timeline.of(range(count), tick=1 / Fraction(fps), last=1)


def package_rule(count, fps):
    """The published rule: duration times 2, within 4 and 768 and the frames there are, to an even number below; and
    their even spacing, which for an even number of frames never falls halfway between two."""
    wanted = math.floor(min(max(count / fps * 2, 4), 768, count) / 2) * 2
    return [round(Fraction((count - 1) * k, wanted - 1)) for k in range(wanted)]


def plain_frames(path, indices, *, size):
    """PyAV's RGB, and torchvision's resize."""
    import_torchvision()
    from torchvision.transforms import InterpolationMode, functional

    with av.open(path) as container:
        frames = list(container.decode(video=0))
    rgb_TCHW = torch.stack([torch.from_numpy(frames[i].to_ndarray(format="rgb24")).permute(2, 0, 1) for i in indices])
    bicubic = InterpolationMode.BICUBIC
    return functional.resize(rgb_TCHW, list(size[::-1]), interpolation=bicubic, antialias=True).float()


def noise_film(file, *, size=(90, 70), count=24, **how):
    """Frames of coarse random colours."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    return write_film(file, list(coarse.repeat(10, axis=1).repeat(10, axis=2)), **how)


@pytest.mark.parametrize(
    ("count", "fps", "indices"),
    [  # by the package; the first five are the clips of VideoAlign's example
        (126, 24, [0, 14, 28, 42, 56, 69, 83, 97, 111, 125]),
        (152, 30, [0, 17, 34, 50, 67, 84, 101, 117, 134, 151]),
        (144, 24, [0, 13, 26, 39, 52, 65, 78, 91, 104, 117, 130, 143]),
        (128, 24, [0, 14, 28, 42, 56, 71, 85, 99, 113, 127]),
        (60, 16, [0, 12, 24, 35, 47, 59]),
        (3, 24, [0, 2]),
        (2, 24, [0, 1]),
        (5, 1, [0, 1, 3, 4]),
        (49, 10, [0, 7, 14, 21, 27, 34, 41, 48]),
        (150, 25, [0, 14, 27, 41, 54, 68, 81, 95, 108, 122, 135, 149]),
    ],
)
def test_frames_are_those_of_the_package(count, fps, indices):
    assert list(choose_frames(even(count, fps=fps), sampling=SAMPLING)) == indices == package_rule(count, fps)


def test_a_long_video_has_768_frames():
    """By the package; the sum holds all of them."""
    chosen = choose_frames(even(24_000, fps=24), sampling=SAMPLING)
    assert (len(chosen), chosen[:3], chosen[-2:], sum(chosen)) == (768, (0, 31, 63), (23_968, 23_999), 9_215_615)


@given(count=st.integers(2, 2000), fps=st.sampled_from([1, 8, 16, 23.976, 24, 25, 29.97, 30, 60]))
def test_any_frames_follow_the_published_rule(count, fps):
    timeline = even(count, fps=fps)
    assert list(choose_frames(timeline, sampling=SAMPLING)) == package_rule(count, timeline.fps)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(2, 300))
def test_counts_are_even_within_uneven_bounds(least, more, count):
    bounds = {"min_frames": least, "max_frames": max(least + more, 2)}
    chosen = choose_frames(even(count, fps=24), sampling=SAMPLING.model_copy(update=bounds))
    assert len(chosen) % 2 == 0
    assert 2 <= len(chosen) <= min(bounds["max_frames"], count)


@pytest.mark.parametrize(
    ("source", "size"),
    [  # by the package; the first five are the clips of VideoAlign's example
        ((1360, 752), (576, 320)),
        ((1280, 720), (576, 320)),
        ((672, 384), (576, 320)),
        ((1280, 768), (576, 320)),
        ((688, 384), (576, 320)),
        ((720, 1280), (320, 576)),
        ((448, 448), (448, 448)),
        ((336, 240), (320, 256)),  # halves go to the even multiple: 10.5 to 10, 7.5 to 8
        ((80, 400), (64, 384)),
        ((48, 32), (96, 64)),
        ((24, 24), (64, 64)),
        ((360, 1280), (224, 832)),
    ],
)
def test_sizes_are_those_of_the_package(source, size):
    assert fit_size(*source, sampling=SAMPLING) == size


def test_a_strip_keeps_one_multiple():
    """The package gives it a height of 0, and fails."""
    assert fit_size(6800, 36, sampling=SAMPLING) == (6144, 32)


def test_pixels_are_those_of_the_package():
    """By the package: red, green and blue at nine places of the first frame and the last. Another processor's
    arithmetic may move a value by a level; the uniform rule's scaling moves some by more."""
    first = (51, 56, 20, 52, 84, 81, 223, 224, 255, 63, 66, 88, 132, 134, 63, 195, 174, 170, 178, 211, 89)
    last = (122, 116, 107, 85, 108, 103, 218, 222, 253, 83, 88, 114, 119, 128, 57, 123, 112, 105, 151, 184, 80)

    def apart(rule):
        clip = read_clip(RABBIT, sampling=SAMPLING.model_copy(update={"rule": rule}))
        places = clip.frames[:, [32, 96, 160]][:, :, [53, 160, 266]].reshape(len(clip.frames), 27)[:, :21]
        return np.abs(places[[0, -1]].astype(int) - np.array([first, last])).max()

    clip = read_clip(RABBIT, sampling=SAMPLING)
    assert (clip.frame_numbers, clip.source_fps, clip.size) == ((0, 20, 39, 59), 24, (320, 192))
    assert apart("qwen_vl_utils") <= 1
    assert apart("uniform") > 1


@pytest.mark.parametrize(
    ("how", "size"),
    [
        ({"size": (90, 70)}, (96, 64)),
        ({"size": (90, 70), "tags": {"sample_aspect_ratio": Fraction(2)}}, (96, 64)),
        ({"size": (90, 70), "tags": {"color_trc": 16, "colorspace": 9}}, (96, 64)),  # PQ is not mapped
        ({"size": (800, 600)}, (512, 384)),
        ({"size": (640, 320)}, (608, 288)),
    ],
)
def test_pixels_are_torchvisions(tmp_path, how, size):
    path = noise_film(tmp_path / "film.mp4", **how)
    clip = read_clip(path, sampling=SAMPLING)
    assert (clip.source_size, clip.size) == (how["size"], size)
    expected_TCHW = plain_frames(path, package_rule(24, 24), size=size)
    assert torch.equal(torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float(), expected_TCHW)


def test_a_turned_film_is_read_upright(tmp_path):
    path = noise_film(tmp_path / "film.mp4", size=(90, 60), rotation=(90,))
    clip = read_clip(path, sampling=SAMPLING)
    lying_TCHW = plain_frames(path, clip.frame_numbers, size=(96, 64))
    upright = np.rot90(lying_TCHW.permute(0, 2, 3, 1).numpy(), axes=(1, 2))
    assert clip.size == (64, 96)
    assert np.abs(upright - clip.frames).max() <= 1  # turned before scaling, not after


def test_frames_from_memory_follow_the_rule():
    clip = read_clip(np.stack([grey(i) for i in range(49)]), sampling=SAMPLING, fps=10)
    assert clip.frame_numbers == (0, 7, 14, 21, 27, 34, 41, 48)
    assert clip.frames[:, 0, 0, 0].tolist() == [16 + 4 * i for i in clip.frame_numbers]


def test_one_frame_is_refused(tmp_path):
    film = grey_film(tmp_path / "film.mp4", 1)
    assert len(read_clip(film, sampling=VideoSampling()).frames) == 1
    with pytest.raises(VideoError, match=r"one frame; .*pairs"):
        read_clip(film, sampling=SAMPLING)
    with pytest.raises(VideoError, match=r"one frame; .*pairs"):
        read_clip(noise_clip(0, frames=1), sampling=SAMPLING)


def test_bounds_below_a_pair_are_refused():
    with pytest.raises(ConfigError, match="max_frames must be at least 2 with the rule qwen_vl_utils, got 1"):
        VideoSampling(rule="qwen_vl_utils", min_frames=1, max_frames=1)
    with pytest.raises(ConfigError, match="rule"):
        VideoSampling(rule="qwen")


def converted(tmp_path, *, longest=25_165_824):
    """An official checkpoint whose processor bounds a whole video, and the scorer of its conversion."""
    source = whole_model(tmp_path / "theirs")
    source.processor.video_processor.size = {"shortest_edge": 4096, "longest_edge": longest}
    source.processor.save_pretrained(source.folder)
    out = tmp_path / "ours"
    convert_official(source.folder, out, rubric=PLACED, layout="chain and query in the user's turn")
    return source, Scorer.from_pretrained(out, device="cpu")


def official_reward(source, path, *, prompt):
    """As the official `inference.py` has it: frames and metadata of the package to the processor, which may scale them
    again; behind an empty chain the query."""
    indices = package_rule(60, 24)
    frames_TCHW = plain_frames(path, indices, size=fit_size(320, 180, sampling=SAMPLING_16))
    before, after = PLACED.replace("{prompt}", prompt).split("{video}")
    text = f"<|im_start|>user\n{before}<|video_pad|>{after}<Reward>"
    metadata = {"fps": 24.0, "frames_indices": indices, "total_num_frames": 60, "video_backend": "torchcodec"}
    inputs = source.processor(
        text=[text],
        videos=[frames_TCHW],
        videos_kwargs={"video_metadata": [metadata], "do_sample_frames": False},
        return_tensors="pt",
    )
    return inputs, float(rewards_by_hand(source, dict(inputs))[0, 0])


SAMPLING_16 = SAMPLING.model_copy(update={"size_multiple": 16})
"""Of the small checkpoints: patches of 8 pixels."""


@pytest.mark.parametrize(("longest", "tokens"), [(25_165_824, 440), (100_000, 182)])
def test_a_file_gives_the_official_reward(tmp_path, longest, tokens):
    """1e-4 is asked; sums in another order differ by some 1e-6. Frames of 320 x 176 pixels are 2 · 20 · 11 tokens. The
    processor bounds the second video, and scales its frames again: to 208 x 112 pixels, or 2 · 13 · 7 tokens."""
    source, scorer = converted(tmp_path, longest=longest)
    inputs, reward = official_reward(source, RABBIT, prompt="a rabbit")
    score = scorer.score(RABBIT, prompt="a rabbit", think="off")
    assert int((inputs["mm_token_type_ids"] == 2).sum()) == tokens
    assert score.reward == pytest.approx(reward, abs=1e-4)
    uniform = scorer.score(read_clip(RABBIT, sampling=VideoSampling()), prompt="a rabbit", think="off")
    assert abs(uniform.reward - reward) > 0.01


def test_times_are_written_as_there(tmp_path):
    """Frames 0, 20, 39 and 59 at 24 a second are merged two by two: 0.417 and 2.042 s."""
    _, scorer = converted(tmp_path)
    chat = scorer.model.chat
    text = chat.tokenizer.decode(
        chat.lay_out_prompts([read_clip(RABBIT, sampling=SAMPLING_16)], ["it"])["input_ids"][0]
    )
    assert "<0.4 seconds>" in text
    assert "<2.0 seconds>" in text


def test_times_come_from_numbers_where_a_clip_has_them(tmp_path):
    """The clip's own seconds, 0 to 3 at one frame a second, are merged to 0.5 and 2.5; the numbers to 0.5 and 6.5."""
    _, scorer = converted(tmp_path)
    chat, clip = scorer.model.chat, noise_clip(0)
    for numbers, times in ((None, "0.5 2.5"), ((0, 1, 4, 9), "0.5 6.5")):
        inputs = chat.lay_out_prompts([replace(clip, frame_numbers=numbers)], ["it"])
        written = re.findall(r"<([\d.]+) seconds>", chat.tokenizer.decode(inputs["input_ids"][0]))
        assert " ".join(written) == times


def test_only_converted_checkpoints_have_the_rule(tmp_path):
    _, scorer = converted(tmp_path)
    assert scorer.model.settings.sampling == SAMPLING_16
    assert scorer.model.chat.resize
    file = tmp_path / "ours" / "descore.json"
    content = json.loads(file.read_text())
    assert content["sampling"]["rule"] == "qwen_vl_utils"
    del content["sampling"]["rule"]  # as a checkpoint of yesterday
    file.write_text(json.dumps(content))
    assert read_settings(tmp_path / "ours").sampling.rule == "uniform"
    assert not Scorer.from_pretrained(tmp_path / "ours", device="cpu").model.chat.resize
