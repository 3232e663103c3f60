"""A checkpoint as a function: rewards, terms, failures, threads and normalization."""

import math
import pickle
import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import descore
from descore import RewardFunction, Scorer
from descore.errors import ConfigError, DescoreWarning, VideoError
from descore.rewards import Rewards
from descore.rewards.terms import RunningMoments, terms_of, weighted
from descore.types import DIMENSIONS, Completion, Score, Verdict
from tests.conftest import build_micro, noise_clip
from tests.rewards.conftest import build_scorer
from tests.rewards.test_frames import made_videos

PROMPTS = ["a red ball", "a blue box", "a dog"]


@pytest.fixture(scope="module")
def videos():
    return made_videos(count=3)


def scored(marks=None, *, rewards=(1.0,), tokens=6, truncated=False):
    """A score by hand; `marks` is one mark for all dimensions, or a mapping, or None for no answer."""
    if marks is not None and not isinstance(marks, dict):
        marks = dict.fromkeys(DIMENSIONS, marks)
    chains = tuple(
        Completion(
            token_ids=list(range(tokens)),
            text="",
            truncated=truncated,
            verdict=None if marks is None else Verdict(marks=marks, overall=3.0),
            flaw=None,
            rewards={"overall": reward},
        )
        for reward in rewards
    )
    return Score(
        clip=noise_clip(0), prompt="", model="", reward=statistics.fmean(rewards), score=None, std=None,
        completions=chains,
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"think": "off"}, {"samples": 2, "seed": 3}])
def test_the_reward_is_the_scorers_on_the_same_frames(scorer, videos, options):
    function = RewardFunction(scorer, fps=8, **options)
    result = function(videos=videos, prompts=PROMPTS)
    for index, (video, prompt) in enumerate(zip(videos, PROMPTS, strict=True)):
        alone = scorer.score(video, prompt=prompt, fps=8, **options)
        assert result.raw[index] == pytest.approx(alone.reward, abs=1e-5)
        assert result.rewards[index] == pytest.approx(alone.score, abs=1e-5)
        assert result.scores[index].thinking == alone.thinking
        assert np.array_equal(result.scores[index].clip.frames, alone.clip.frames)
    assert result.rewards.dtype == torch.float32
    assert (
        result.rewards.tolist()
        == RewardFunction(scorer, fps=8, **options)(videos=videos, prompts=PROMPTS).rewards.tolist()
    )


@pytest.mark.slow
def test_all_forms_of_the_same_frames_have_the_same_rewards(scorer, videos):
    unit = videos / 255
    forms = [
        (videos.numpy(), {}),
        (unit, {"range": (0, 1)}),
        (unit * 2 - 1, {"range": (-1, 1)}),
        (unit.permute(0, 2, 1, 3, 4), {"range": (0, 1), "layout": "BCTHW"}),
        (list(videos), {"layout": "TCHW"}),
        ([[Image.fromarray(frame) for frame in video] for video in videos.permute(0, 1, 3, 4, 2).numpy()], {}),
    ]
    expected = RewardFunction(scorer, fps=8)(videos=videos, prompts=PROMPTS).rewards.tolist()
    for form, options in forms:
        in_constructor = RewardFunction(scorer, fps=8, **options)(videos=form, prompts=PROMPTS)
        assert in_constructor.rewards.tolist() == pytest.approx(expected, abs=1e-5)
        in_call = RewardFunction(scorer)(videos=form, prompts=PROMPTS, fps=[8, 8, 8], **options)
        assert in_call.rewards.tolist() == pytest.approx(expected, abs=1e-5)


def test_clips_of_unlike_length_and_size_go_together(scorer):
    clips = [made_videos(frames=4)[0], made_videos(frames=9, height=64, width=32)[1], made_videos(frames=1)[0]]
    together = RewardFunction(scorer)(videos=clips, prompts=PROMPTS, fps=[4.0, 8.0, 1.0])
    for clip, prompt, fps, reward in zip(clips, PROMPTS, [4.0, 8.0, 1.0], together.raw, strict=True):
        assert reward == pytest.approx(scorer.score(clip, prompt=prompt, fps=fps).reward, abs=1e-5)


def test_a_failed_clip_is_nan_in_its_place(scorer, videos, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    broken = videos[0] / 255
    broken[0, 0, 0, 0] = math.nan
    clips = [videos[0] / 255, tmp_path / "bad.mp4", broken, videos[1] / 255, videos[1] / 255]
    prompts = [*PROMPTS, " ", PROMPTS[1]]
    with pytest.warns(DescoreWarning, match=r"3 of 5 clips have no reward, first .*bad\.mp4"):
        result = RewardFunction(scorer, fps=8, range=(0, 1))(videos=clips, prompts=prompts)
    assert torch.isnan(result.rewards).tolist() == [False, True, True, True, False]
    assert all(torch.isnan(values[1:4]).all() for values in result.terms.values())
    assert list(result.errors) == [1, 2, 3]
    assert "videos[2]: frames with values that are not finite" in str(result.errors[2])
    assert "the prompt is empty" in str(result.errors[3])
    assert result.scores[1] is result.errors[1]
    sound = RewardFunction(scorer, fps=8)(videos=videos[:2], prompts=PROMPTS[:2])
    assert result.rewards[[0, 4]].tolist() == pytest.approx(sound.rewards.tolist(), abs=1e-5)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        RewardFunction(scorer, fps=8, range=(0, 1), on_error="raise")(videos=clips, prompts=prompts)


def test_a_clip_that_the_model_cannot_take_is_nan_too(scorer, videos):
    prompts = [PROMPTS[0], "and then " * 3000, PROMPTS[2]]
    with pytest.warns(DescoreWarning, match="1 of 3 clips have no reward"):
        result = RewardFunction(scorer, fps=8)(videos=videos, prompts=prompts)
    assert torch.isnan(result.rewards).tolist() == [False, True, False]
    with pytest.raises(VideoError, match="shorten the prompt"):
        RewardFunction(scorer, fps=8, on_error="raise")(videos=videos, prompts=prompts)


def test_clamped_values_are_counted_for_each_clip(scorer, videos):
    overshot = (videos / 255).clamp(0.1, 0.9)
    overshot[1, 0, 0, :2, 0] = torch.tensor([1.0005, -0.0005])
    result = RewardFunction(scorer, fps=8, range=(0, 1))(videos=overshot, prompts=PROMPTS)
    assert result.clamped.tolist() == [0, 2, 0]
    assert torch.isfinite(result.rewards).all()


@pytest.mark.slow
def test_threads_get_the_rewards_that_one_thread_gets(scorer, videos):
    function = RewardFunction(scorer, fps=8, samples=2)
    batches = [(videos[[i, j]], [PROMPTS[i], PROMPTS[j]]) for i in range(3) for j in range(3)]
    expected = [function(videos=v, prompts=p).rewards.tolist() for v, p in batches]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda batch: function(videos=batch[0], prompts=batch[1]).rewards.tolist(), batches * 2))
    assert got == expected * 2


def test_the_reward_is_the_same_under_a_trainers_modes(scorer, videos):
    function = RewardFunction(scorer, fps=8)
    expected = function(videos=videos, prompts=PROMPTS).rewards
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(function(videos=videos, prompts=PROMPTS).rewards, expected)
    with torch.inference_mode():
        assert torch.equal(function(videos=videos, prompts=PROMPTS).rewards, expected)
    unit = (videos / 255).requires_grad_()
    assert torch.allclose(function(videos=unit, prompts=PROMPTS, range=(0, 1)).rewards, expected, atol=1e-5)


def test_threads_lose_nothing_of_the_running_mean(scorer, videos):
    function = RewardFunction(scorer, fps=8, normalize="running", think="off")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: function(videos=videos, prompts=PROMPTS), range(12)))
    raw = function(videos=videos, prompts=PROMPTS).raw.tolist()
    state = function.state_dict()
    assert state["count"] == 13 * 3
    assert state["mean"]["overall"] == pytest.approx(statistics.fmean(raw), abs=1e-5)


def test_normalization_by_the_checkpoint_running_and_none(scorer, videos):
    def call(normalize):
        return RewardFunction(scorer, fps=8, normalize=normalize)(videos=videos, prompts=PROMPTS)

    raw = call("none").rewards
    assert torch.equal(raw, call("none").raw)
    assert torch.allclose(call("checkpoint").rewards, (raw - 0.5) / 2)
    assert torch.allclose(call("running").rewards, (raw - raw.mean()) / raw.std(), atol=1e-5)


def test_the_running_mean_resumes(scorer, videos):
    one = RewardFunction(scorer, fps=8, normalize="running")
    first, state = one(videos=videos[:2], prompts=PROMPTS[:2]), one.state_dict()
    second = one(videos=videos, prompts=PROMPTS)
    other = RewardFunction(scorer, fps=8, normalize="running")
    other.load_state_dict(state)
    assert other(videos=videos, prompts=PROMPTS).rewards.tolist() == second.rewards.tolist()
    assert second.rewards[:2].tolist() != first.rewards.tolist()
    with pytest.raises(ConfigError, match="expected count, mean and squares of overall"):
        other.load_state_dict({"count": 1, "mean": {"motion": 0.0}, "squares": {"motion": 0.0}})


def test_running_moments_are_those_of_all_values_at_once():
    values = np.random.default_rng(0).normal(1e6, 1.0, 1000).tolist()  # far from 0, where sums of squares cancel
    moments = RunningMoments(["overall"])
    for value in values:
        moments.add({"overall": value})
    assert moments.mean["overall"] == pytest.approx(statistics.fmean(values), rel=1e-12)
    assert moments.std("overall") == pytest.approx(statistics.stdev(values), rel=1e-6)


def test_a_running_deviation_of_equal_rewards_is_one():
    moments = RunningMoments(["overall"])
    for _ in range(3):
        moments.add({"overall": 2.0})
    assert moments.std("overall") == 1.0


def test_terms_by_hand():
    marks = {"subject": 2, "dynamics": 0, "camera": None, "environment": 1, "style": 2}
    terms = terms_of(scored(marks, rewards=(3.0, 5.0), truncated=True), moments={"overall": (2.0, 4.0)}, limit=12)
    assert terms["overall"] == terms["reward"] == (4.0 - 2.0) / 4.0
    assert [terms[f"marks.{name}"] for name in ("subject", "dynamics", "environment", "style")] == [1, -1, 0, 1]
    assert math.isnan(terms["marks.camera"])
    assert terms["marks"] == 0.25  # (1 - 1 + 0 + 1) / 4
    assert terms["length"] == 0.5  # 6 tokens of 12
    assert terms["truncated"] == 1.0


def test_a_mark_that_is_not_asked_for_adds_nothing():
    terms = terms_of(scored({**dict.fromkeys(DIMENSIONS, 2), "camera": None}), moments={"overall": (0.0, 1.0)}, limit=9)
    weights = {"reward": 1.0, "marks.camera": 0.5, "marks.subject": 0.25}
    assert weighted(terms, weights, has_answer=True) == 1.25


def test_without_an_answer_marks_leave_no_reward():
    terms = terms_of(scored(None), moments={"overall": (0.0, 1.0)}, limit=9)
    for name in ("marks", "marks.camera"):
        assert math.isnan(weighted(terms, {"reward": 1.0, name: 0.5}, has_answer=False))
    assert weighted(terms, {"reward": 1.0, "marks": 0.0}, has_answer=False) == 1.0


def test_weights_add_terms_up(scorer, videos):
    seen = []

    def brightness(**keywords):
        seen.append(keywords)
        return keywords["videos"].float().mean(dim=(1, 2, 3, 4)) / 255

    function = RewardFunction(
        scorer,
        fps=8,
        weights={"overall": 2.0, "length": -0.5, "truncated": -1.0, "brightness": 10.0},
        terms={"brightness": brightness},
    )
    result = function(videos=videos, prompts=PROMPTS)
    terms = result.terms
    expected = 2 * terms["overall"] - 0.5 * terms["length"] - terms["truncated"] + 10 * terms["brightness"]
    assert torch.allclose(result.rewards, expected)
    assert torch.allclose(terms["brightness"], videos.float().mean(dim=(1, 2, 3, 4)) / 255)
    assert terms["truncated"].tolist() == [1, 1, 1]  # random weights never end their turn
    assert [set(keywords) for keywords in seen] == [{"videos", "prompts", "fps"}]
    assert seen[0]["prompts"] == PROMPTS
    assert seen[0]["fps"] == 8


def test_another_reward_function_is_a_term(scorer, videos):
    cheap = RewardFunction(scorer, think="off")
    both = RewardFunction(scorer, fps=8, terms={"cheap": cheap}, weights={"reward": 1, "cheap": 0.5})
    result = both(videos=videos, prompts=PROMPTS)
    alone = cheap(videos=videos, prompts=PROMPTS, fps=8)
    assert isinstance(alone, Rewards)
    assert torch.allclose(result.rewards, result.terms["reward"] + 0.5 * alone.rewards)


def test_several_dimensions_are_normalized_each():
    model = build_micro(dimensions=("quality", "motion"))
    stored = {"reward_mean": {"quality": 1.0, "motion": 0.0}, "reward_std": {"quality": 2.0, "motion": 4.0}}
    model.settings = model.settings.model_copy(update={**stored, "trained_on": "a test"})
    function = RewardFunction(Scorer(model, name="two"), fps=8, weights={"quality": 1.0, "motion": 3.0})
    result = function(videos=made_videos(count=1), prompts=PROMPTS[:1])
    [score] = result.scores
    quality, motion = (score.rewards["quality"] - 1) / 2, score.rewards["motion"] / 4
    assert float(result.rewards) == pytest.approx(quality + 3 * motion, abs=1e-5)
    assert float(result.terms["reward"]) == pytest.approx((quality + motion) / 2, abs=1e-5)
    assert float(result.terms["reward"]) == pytest.approx(score.score, abs=1e-5)


def test_standard_errors_are_of_the_mean(scorer, videos):
    result = RewardFunction(scorer, fps=8, samples=4)(videos=videos, prompts=PROMPTS)
    expected = [statistics.stdev(c.reward for c in score.completions) / 2 for score in result.scores]
    assert result.standard_errors.tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.isnan(RewardFunction(scorer, fps=8)(videos=videos, prompts=PROMPTS).standard_errors).all()


def test_a_head_that_was_never_trained_is_refused():
    with pytest.warns(DescoreWarning, match="never trained"):
        fresh = build_scorer(trained_on=None)
    with pytest.raises(ConfigError, match=r"never trained.*allow_untrained=True"):
        RewardFunction(fresh)
    assert RewardFunction(fresh, allow_untrained=True).scorer is fresh


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "zero"}, "on_error is 'zero', expected nan or raise"),
        ({"normalize": "batch"}, "normalize is 'batch', expected one of checkpoint, running, none"),
        (
            {"weights": {"motion": 1.0}},
            r"weights has 'motion'; expected some of reward, overall, marks, marks\.subject",
        ),
        ({"weights": {"reward": math.nan}}, "the weight of reward is nan, expected a finite number"),
        ({"weights": {"reward": 0}}, "all weights are 0"),
        ({"weights": [1]}, r"^weights is \[1\], expected numbers by name"),
        ({"terms": [1]}, r"^terms is \[1\], expected callables by name"),
        ({"terms": {"own": 1}, "weights": {"own": 1}}, "the term own is 1, expected a callable"),
        ({"monitor": 3}, "monitor is 3, expected a RewardMonitor"),
        ({"terms": {"own": len}}, "terms has 'own', but weights does not; give it one, 0 to report it only"),
        ({"terms": {"overall": len}}, "which is a term of the model; give it another name"),
        ({"weights": {"marks": 1.0}, "think": "off"}, "weights has 'marks'; expected some of reward, overall$"),
        ({"batch_size": 4}, "those of the Scorer that is given"),
        ({"samples": 0}, "samples must be positive, got 0"),
        ({"layout": "BT"}, "layout is 'BT'"),
    ],
)
def test_options_that_cannot_be_used(scorer, options, message):
    with pytest.raises(ConfigError, match=message):
        RewardFunction(scorer, **options)


def test_a_checkpoint_without_a_mean_is_normalized_otherwise():
    bare = build_scorer(reward_mean=None, reward_std=None)
    with pytest.raises(ConfigError, match="stores no mean and deviation; write normalize='running' or 'none'"):
        RewardFunction(bare)
    assert RewardFunction(bare, normalize="none").normalize == "none"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"prompts": PROMPTS[:2]}, "3 videos, but 2 prompts"),
        ({"prompts": "a dog"}, "prompts is 'a dog'; expected a list of 3 texts"),
        ({"prompts": [1, 2, 3]}, r"prompts is \[1, 2, 3\]; expected a list of 3 texts"),
        ({"fps": None}, "frames from memory have no times; write fps="),
        ({"fps": [8, 8]}, r"fps is \[8, 8\]; expected a number, or one for each of 3 videos"),
        ({"fps": "fast"}, "fps is 'fast'; expected a number"),
        ({"prompts": None}, "prompts is None; expected a list of 3 texts"),
        ({"range": 1}, r"range is 1, expected \(0, 1\)"),
        ({"layout": "BCTHW"}, "6 colours by layout BCTHW"),
    ],
)
def test_calls_that_do_not_fit_are_refused(scorer, videos, call, message):
    with pytest.raises(ConfigError, match=message):
        RewardFunction(scorer)(**{"videos": videos, "prompts": PROMPTS, "fps": 8, **call})


def test_numbers_of_numpy_and_lists_of_yaml_are_taken(scorer, videos):
    expected = RewardFunction(scorer, fps=8)(videos=videos, prompts=PROMPTS).rewards
    for fps in (np.int64(8), np.full(3, 8.0), torch.tensor(8)):
        assert torch.equal(RewardFunction(scorer)(videos=videos, prompts=PROMPTS, fps=fps).rewards, expected)
    got = RewardFunction(scorer, fps=8, range=[0, 1])(videos=videos / 255, prompts=iter(PROMPTS))
    assert torch.allclose(got.rewards, expected, atol=1e-5)


def test_videos_and_prompts_cannot_be_given_by_position(scorer, videos):
    with pytest.raises(TypeError, match="positional"):
        RewardFunction(scorer, fps=8)(videos, PROMPTS)


def test_a_term_of_another_length_is_refused(scorer, videos):
    function = RewardFunction(scorer, fps=8, terms={"own": lambda **_: [1.0]}, weights={"own": 1.0})
    with pytest.raises(ConfigError, match="the term own gives 1 values for 3 videos"):
        function(videos=videos, prompts=PROMPTS)


def test_no_videos_have_no_rewards(scorer):
    result = RewardFunction(scorer, fps=8)(videos=[], prompts=[])
    assert len(result) == 0
    assert result.rewards.shape == (0,)


def test_the_public_name_opens_the_bundled_model():
    assert descore.RewardFunction is RewardFunction
    function = descore.RewardFunction("tiny", device="cpu", batch_size=3)
    assert (function.scorer.name, function.scorer.batch_size) == ("tiny", 3)


@pytest.mark.parametrize("values", [None, 1.0, "abc", ["x"], {"a": 1}, torch.ones(3, 1), torch.tensor(1.0)])
def test_a_term_without_numbers_is_named(scorer, videos, values):
    function = RewardFunction(
        scorer, fps=8, think="off", terms={"own": lambda **_: values}, weights={"reward": 1, "own": 1}
    )
    with pytest.raises(ConfigError, match=r"^the term own: found .*; expected a list of numbers, one for each clip$"):
        function(videos=videos, prompts=PROMPTS)


@pytest.mark.parametrize("fps", [-3, 0, math.nan, "x", [8, 9]])
def test_an_fps_that_cannot_be_used_is_refused_at_once(scorer, fps):
    with pytest.raises(ConfigError, match="fps"):
        RewardFunction(scorer, fps=fps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range": np.array([0, 1])}, "range is array"),
        ({"range": 1}, "range is 1"),
        ({"layout": 5}, "layout is 5"),
        ({"layout": ""}, "layout is ''"),
    ],
)
def test_a_format_that_cannot_be_used_is_refused_by_each_call(scorer, videos, options, message):
    function = RewardFunction(scorer, fps=8, think="off")
    with pytest.raises(ConfigError, match=message):
        function(videos=videos, prompts=PROMPTS, **options)
    with pytest.raises(ConfigError, match=message):
        RewardFunction(scorer, **options)
    with pytest.raises(ConfigError, match="overshoot is 'a'"):
        RewardFunction(scorer, overshoot="a")


@pytest.mark.parametrize("view", [lambda a: a.astype(">f4"), lambda a: a[..., ::-1].copy()[..., ::-1]])
def test_arrays_in_any_byte_order_or_stride_give_one_reward(scorer, unit_videos, view):
    function = RewardFunction(scorer, fps=8, range=(0, 1), think="off")
    plain = function(videos=unit_videos, prompts=PROMPTS).rewards
    array = view(unit_videos.numpy())
    assert torch.equal(function(videos=array, prompts=PROMPTS).rewards, plain)
    frames = [[frame for frame in video] for video in array]  # noqa: C416
    assert torch.equal(function(videos=frames, prompts=PROMPTS, layout="CHW").rewards, plain)


@pytest.mark.parametrize("dtype", ["O", "S1", "g"])
def test_arrays_of_no_numbers_of_torch_are_one_line(scorer, unit_videos, dtype):
    function = RewardFunction(scorer, fps=8, range=(0, 1), think="off")
    with pytest.raises(ConfigError, match=r"frames of type .*; expected uint8"):
        function(videos=unit_videos.numpy().astype(dtype), prompts=PROMPTS)


def test_frames_of_two_types_are_never_mixed(scorer, unit_videos):
    video = [unit_videos[0, 0], (unit_videos[0, 1] * 255).byte()]
    with pytest.raises(ConfigError, match="frames of different types, such as float32 and uint8"):
        RewardFunction(scorer, fps=8, range=(0, 255))(videos=[video], prompts=["x"], layout="CHW")


def test_rewards_travel_between_processes(scorer, videos):
    result = RewardFunction(scorer, fps=8)(videos=videos, prompts=PROMPTS)
    again = pickle.loads(pickle.dumps(result))  # made two words ago
    assert torch.equal(again.rewards, result.rewards)
    assert again.scores[0].thinking == result.scores[0].thinking
    assert again.terms.keys() == result.terms.keys()


def test_a_function_says_that_it_does_not_travel(scorer):
    with pytest.raises(ConfigError, match=r"does not pickle; make one in each process, or share .*\(Client\(url\)\)"):
        pickle.dumps(RewardFunction(scorer, fps=8))
