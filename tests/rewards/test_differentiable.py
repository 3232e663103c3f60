"""A reward with a gradient: its values are RewardFunction's, failures, what it refuses, and what it leaves alone."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from descore import RewardFunction, Scorer
from descore.errors import ConfigError, DescoreWarning, VideoError
from descore.model.chat import Layout
from descore.rewards import DifferentiableReward
from tests.conftest import build_micro
from tests.rewards.conftest import build_scorer
from tests.rewards.test_frames import made_videos

PROMPTS = ["a red ball", "a blue box", "a dog"]
MODES = [{"think": "off"}, {"think": "on"}, {"samples": 2, "seed": 3}]


def grid_videos():
    """Three videos of 0 to 1 on the grid of 8 bits, away from black and white."""
    return (made_videos(frames=4, height=32, width=32, count=3).int() * 3 // 4 + 30) / 255


@pytest.fixture(scope="module")
def videos():
    return grid_videos()


def gradient(reward, videos, prompts=PROMPTS, **options):
    """The rewards, and the gradient of their sum."""
    leaf = videos.detach().clone().requires_grad_()
    rewards = reward(videos=leaf, prompts=prompts[: len(videos)], **options)
    rewards.nansum().backward()
    return rewards.detach(), leaf.grad


@pytest.mark.parametrize("options", [*MODES, {"normalize": "none"}, {"weights": {"reward": 1.0, "overall": -0.25}}])
def test_the_value_is_the_reward_functions(scorer, videos, options):
    expected = RewardFunction(scorer, fps=1, range=(0, 1), **options)(videos=videos, prompts=PROMPTS).rewards
    got = DifferentiableReward(scorer, fps=1, range=(0, 1), **options)(
        videos=videos.clone().requires_grad_(), prompts=PROMPTS
    )
    assert got.requires_grad
    assert got.dtype == torch.float32
    assert torch.allclose(got.detach(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", list(Layout))
def test_the_value_is_the_same_in_every_token_layout(videos, layout):
    model = build_micro()
    settings = model.settings.model_copy(update={"trained_on": "a test", "layout": layout})
    model.settings = settings
    object.__setattr__(model.chat, "layout", layout)
    scorer = Scorer(model, name="micro")
    options = {"fps": 1, "range": (0, 1), "normalize": "none"}
    expected = RewardFunction(scorer, **options)(videos=videos, prompts=PROMPTS).rewards
    got = DifferentiableReward(scorer, **options)(videos=videos, prompts=PROMPTS)
    assert torch.allclose(got, expected, atol=1e-5, rtol=0)


def test_in_double_precision_the_rewards_are_too(videos):
    scorer = build_scorer()
    scorer.model.double()
    exact, _ = gradient(DifferentiableReward(scorer, fps=1, range=(0, 1), think="off"), videos)
    assert exact.dtype == torch.float64
    single, _ = gradient(DifferentiableReward(build_scorer(), fps=1, range=(0, 1), think="off"), videos)
    assert torch.allclose(exact, single.double(), atol=1e-5)


def test_nothing_of_the_model_changes():
    scorer = build_scorer()
    model = scorer.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = {name: weight.requires_grad for name, weight in model.named_parameters()}
    assert all(asked.values())
    flags = [(m.training, getattr(m, "gradient_checkpointing", None)) for m in model.modules()]
    hooks = [len(m._forward_hooks) for m in model.modules()]
    clips = made_videos(frames=2, count=1) / 255
    for options in ({"think": "off"}, {"samples": 2}, {"gradient_checkpointing": False}):
        gradient(DifferentiableReward(scorer, fps=1, range=(0, 1), **options), clips)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == asked
    assert [(m.training, getattr(m, "gradient_checkpointing", None)) for m in model.modules()] == flags
    assert [len(m._forward_hooks) for m in model.modules()] == hooks


def test_the_weights_are_shared_and_not_copied():
    scorer = build_scorer()
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1), think="off")
    own = dict(reward._model.named_parameters())
    for name, weight in scorer.model.named_parameters():
        assert own[name].data_ptr() == weight.data_ptr()
        assert not own[name].requires_grad
    clips = made_videos(frames=2, count=1) / 255
    first = reward(videos=clips, prompts=PROMPTS[:1])
    with torch.no_grad():
        scorer.model.head.weight.mul_(2)
    second = reward(videos=clips, prompts=PROMPTS[:1])
    assert torch.allclose(second * 2 + 0.5, 2 * (first * 2 + 0.5), atol=1e-6)  # mean .5, deviation 2


def test_a_failed_clip_is_nan_without_a_gradient(scorer, videos):
    broken = videos[0].clone()
    broken[0, 0, 0, 0] = math.nan
    beyond = videos[0] * 3
    clips = [clip.clone().requires_grad_() for clip in (videos[0], broken, beyond, videos[1], videos[1])]
    prompts = [*PROMPTS, " ", PROMPTS[1]]
    for options in MODES:
        reward = DifferentiableReward(scorer, fps=1, range=(0, 1), **options)
        with pytest.warns(DescoreWarning, match=r"3 of 5 clips have no reward, first videos\[1\]: frames with") as seen:
            rewards = reward(videos=clips, prompts=prompts)
        assert seen[0].filename == __file__
        assert torch.isnan(rewards).tolist() == [False, True, True, True, False]
        grads = torch.autograd.grad(rewards.nansum(), clips, allow_unused=True)
        assert [g is not None and bool(g.any()) for g in grads] == [True, False, False, False, True]
        _, expected = gradient(reward, videos[:2], PROMPTS)
        assert torch.allclose(grads[0], expected[0], atol=1e-5 * float(expected.abs().max()))
        with pytest.raises(VideoError, match="not finite"):
            DifferentiableReward(scorer, fps=1, range=(0, 1), on_error="raise", **options)(
                videos=clips, prompts=prompts
            )


def test_a_blank_or_too_long_prompt_is_nan(scorer, videos):
    for options in ({"think": "off"}, {"think": "on"}):
        reward = DifferentiableReward(scorer, fps=1, range=(0, 1), **options)
        with pytest.warns(DescoreWarning, match="2 of 3 clips have no reward"):
            rewards, grads = gradient(reward, videos, ["and then " * 3000, "\n", PROMPTS[2]])
        assert torch.isnan(rewards).tolist() == [True, True, False]
        assert [bool(grad.any()) for grad in grads] == [False, False, True]
        with pytest.warns(DescoreWarning, match="1 of 1 clips"):
            assert not reward(videos=videos[:1], prompts=[""]).requires_grad


def test_a_reward_that_is_not_finite_spoils_no_other(scorer, videos):
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1), think="off")
    expected, expected_grads = gradient(reward, videos[[0, 2]], [PROMPTS[0], PROMPTS[2]])

    seen = []

    def spoil(_module, _inputs, rewards_BK):
        seen.append(len(rewards_BK))
        # The first batch holds clips 0 and 1; clip 1 overflows.
        return rewards_BK * torch.tensor([[1.0], [math.inf]]) if seen == [2] else rewards_BK

    handle = reward._model.register_forward_hook(spoil)
    with pytest.warns(DescoreWarning, match=r"first videos\[1\]: micro gives no finite reward \(-?inf\)"):
        rewards, grads = gradient(reward, videos)
    handle.remove()
    assert seen == [2, 1, 1]
    assert torch.allclose(rewards[[0, 2]], expected, atol=1e-5)
    assert torch.allclose(grads[[0, 2]], expected_grads, atol=1e-5 * float(expected_grads.abs().max()))
    assert not grads[1].any()


def test_frames_that_the_processor_scales_keep_their_gradient(videos):
    """As checkpoints of the official code have it: the processor scales what exceeds its own bound."""
    scorer = build_scorer()
    object.__setattr__(scorer.model.chat, "resize", True)
    scorer.model.chat.processor.video_processor.size = {"shortest_edge": 256, "longest_edge": 4 * 16 * 32}
    options = {"fps": 1, "range": (0, 1), "think": "off"}
    expected = RewardFunction(scorer, **options)(videos=videos, prompts=PROMPTS).rewards
    rewards, grads = gradient(DifferentiableReward(scorer, **options), videos)
    assert torch.allclose(rewards, expected, atol=1e-5)
    assert all(grad.abs().max() > 0 for grad in grads)


@pytest.mark.slow
def test_a_trainers_modes_and_threads_change_nothing(scorer, videos):
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1), samples=2)
    expected, grads = gradient(reward, videos)
    leaf = videos.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rewards = reward(videos=leaf, prompts=PROMPTS)
    rewards.sum().backward()  # outside, as torch's documentation has it
    assert torch.equal(rewards, expected)
    assert torch.equal(leaf.grad, grads)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            rewards = reward(videos=videos, prompts=PROMPTS)
        assert not rewards.requires_grad
        assert torch.equal(rewards, expected)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: gradient(reward, videos), range(8)):
            assert torch.equal(got[0], expected)
            assert torch.equal(got[1], grads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"normalize": "running"},
            "'running', which RewardFunction has alone; expected checkpoint or none",
        ),
        ({"normalize": "batch"}, "normalize is 'batch', expected one of"),
        ({"weights": {"marks": 1.0}}, "weights has 'marks'; expected some of reward, overall$"),
        ({"on_error": "zero"}, "on_error is 'zero', expected nan or raise"),
        ({"batch_size": 4}, "those of the Scorer that is given"),
        ({"samples": 2, "think": "off"}, "samples must be 1, got 2"),
        ({"layout": "BT"}, "layout is 'BT'"),
    ],
)
def test_options_that_cannot_be_used(scorer, options, message):
    with pytest.raises(ConfigError, match=message):
        DifferentiableReward(scorer, **options)


def test_a_generative_model_is_refused():
    with pytest.raises(ConfigError, match="a generative model's reward is in the text that it writes"):
        DifferentiableReward(build_scorer(paradigm="generative"))


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (lambda v: (v * 255).byte(), "torch.uint8"),
        (lambda v: v.numpy(), "ndarray"),
        (lambda v: [v[0], v[1], "clip.mp4"], "str"),
        (lambda v: [v[0], v[1], []], "list"),
        (lambda v: [v[0], v[1], list(v[2].numpy())], "ndarray"),
    ],
)
def test_frames_without_a_gradient_are_refused(scorer, videos, form, kind):
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1))
    with pytest.raises(ConfigError, match=rf"videos\[\d\] is of type {kind}, which has no gradient; expected"):
        reward(videos=form(videos), prompts=PROMPTS)


def test_several_dimensions_are_weighted(videos):
    model = build_micro(dimensions=("quality", "motion"))
    stored = {"reward_mean": {"quality": 1.0, "motion": 0.0}, "reward_std": {"quality": 2.0, "motion": 4.0}}
    model.settings = model.settings.model_copy(update={**stored, "trained_on": "a test"})
    scorer = Scorer(model, name="two")
    options = {"fps": 1, "range": (0, 1), "think": "off"}
    for weights in (None, {"quality": 1.0, "motion": 3.0}, {"reward": 2.0, "motion": -1.0}):
        expected = RewardFunction(scorer, weights=weights, **options)(videos=videos, prompts=PROMPTS).rewards
        got = DifferentiableReward(scorer, weights=weights, **options)(videos=videos, prompts=PROMPTS)
        assert torch.allclose(got, expected, atol=1e-5)
