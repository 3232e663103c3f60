"""Gradients to the pixels against finite differences in float64, with and without checkpointing, alone and together."""

import re
from pathlib import Path

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from descore import RewardFunction
from descore.rewards import DifferentiableReward
from descore.rewards.frames import FrameFormat, differentiable_clip, prepare
from descore.video.sampling import VideoSampling
from tests.rewards.conftest import build_scorer
from tests.rewards.test_differentiable import MODES, PROMPTS, gradient, grid_videos
from tests.rewards.test_frames import made_videos


@pytest.fixture(scope="module")
def videos():
    return grid_videos()


@pytest.fixture
def double(monkeypatch):
    """A scorer in float64 through and through: transformers computes norms and rotations in float32."""
    scorer = build_scorer()
    scorer.model.double()
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return scorer


def check_against_differences(reward, videos, prompts, *, directions=3, step=1e-5, **options):
    """Central differences in random directions; the relative error of each is below 1e-5."""
    _, grad = gradient(reward, videos, prompts, **options)
    assert grad.dtype == torch.float64
    generator = torch.Generator().manual_seed(0)
    for _ in range(directions):
        direction = torch.randn(videos.shape, dtype=torch.float64, generator=generator)
        with torch.no_grad():
            above, below = (
                reward(videos=videos + sign * step * direction, prompts=prompts, **options).sum() for sign in (1, -1)
            )
        expected = float(above - below) / (2 * step)
        assert abs(expected) > 1e-6
        assert float((grad * direction).sum()) == pytest.approx(expected, rel=1e-5)
    return grad


@pytest.mark.parametrize("options", MODES)
def test_gradients_are_those_of_finite_differences(double, videos, options):
    reward = DifferentiableReward(double, fps=1, range=(0, 1), **options)
    check_against_differences(reward, videos[:2].double(), PROMPTS[:2])


@pytest.mark.parametrize(
    ("layout", "black_white", "size"),
    [("BCTHW", (-1, 1), (48, 80)), ("BTHWC", (0, 255), (160, 144)), ("BTCHW", (0, 1), (12, 20))],
)
def test_finite_differences_through_layout_range_and_size(double, layout, black_white, size):
    unit = made_videos(frames=2, height=size[0], width=size[1], count=1).double() / 255
    black, white = black_white
    videos = (black + (white - black) * unit).permute(["BTCHW".index(letter) for letter in layout]).contiguous()
    reward = DifferentiableReward(double, fps=1, range=black_white, layout=layout, think="off")
    # Noise at black and white would be clamped at a step to either side.
    videos = (videos - (black + white) / 2) * 0.6 + (black + white) / 2
    check_against_differences(reward, videos, PROMPTS[:1], step=1e-5 * (white - black))


def test_frames_that_are_not_chosen_have_no_gradient(scorer, videos):
    long = torch.cat([videos, videos.flip(1), videos], dim=1)
    reward = DifferentiableReward(scorer, fps=6, range=(0, 1), think="off")
    _, grad = gradient(reward, long)
    chosen = prepare(
        long[0], source="", fps=6, form=FrameFormat(range=(0, 1)), sampling=scorer.model.settings.sampling,
        device=torch.device("cpu"),
    ).chosen  # fmt: skip
    moved = (grad != 0).flatten(2).any(dim=2)
    assert 1 < len(chosen) < long.shape[1]
    assert [set(row.nonzero().flatten().tolist()) for row in moved] == [set(chosen)] * 3


@pytest.mark.parametrize("options", MODES)
def test_checkpointing_changes_no_gradient(scorer, videos, options):
    plain, checkpointed = (
        gradient(DifferentiableReward(scorer, fps=1, range=(0, 1), gradient_checkpointing=flag, **options), videos)
        for flag in (False, True)
    )
    assert torch.equal(plain[0], checkpointed[0])
    assert torch.equal(plain[1], checkpointed[1])
    assert plain[1].abs().max() > 0


@pytest.mark.parametrize(("checkpointing", "passes"), [(False, 1), (True, 2)])
def test_with_checkpointing_layers_run_again(scorer, videos, checkpointing, passes):
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1), think="off", gradient_checkpointing=checkpointing)
    layers = [module for module in reward._model.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert len(layers) == 4  # two of text, two of vision
    calls = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, _: calls.append(module))
    gradient(reward, videos[:1])
    assert sorted(map(id, calls)) == sorted(map(id, layers * passes))


@pytest.mark.parametrize("options", MODES)
def test_a_clip_alone_and_in_a_batch(scorer, videos, options):
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1), **options)
    prompts = ["a", "a blue box that stands on a green table", "a dog"]
    together, grads = gradient(reward, videos, prompts)
    for index in range(3):
        alone, grad = gradient(reward, videos[index : index + 1], prompts[index : index + 1])
        assert torch.allclose(alone, together[index], atol=1e-5, rtol=0)
        assert torch.allclose(grad[0], grads[index], atol=1e-5 * float(grad.abs().max()), rtol=1e-4)


def test_forms_of_the_same_frames_have_the_same_gradients(scorer, videos):
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1), think="off")
    expected, grads = gradient(reward, videos)
    leaf = videos.clone().requires_grad_()
    forms = [
        (list(leaf), {"layout": "TCHW"}),
        ([list(clip) for clip in leaf], {"layout": "CHW"}),
        (leaf * 2 - 1, {"range": (-1, 1)}),
        (leaf * 255, {"range": (0, 255)}),
        (leaf.transpose(1, 2), {"layout": "BCTHW"}),
        (leaf.double(), {}),
    ]
    for form, options in forms:
        leaf.grad = None
        rewards = reward(videos=form, prompts=PROMPTS, fps=[1, 1, 1], **options)
        rewards.sum().backward()
        assert torch.allclose(rewards, expected, atol=1e-5)
        assert torch.allclose(leaf.grad, grads, atol=1e-5 * float(grads.abs().max()))


def test_half_precision_gets_its_gradient_in_its_own_type(scorer, videos):
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1), think="off")
    _, expected = gradient(reward, videos.half().float())
    _, grads = gradient(reward, videos.half())
    assert grads.dtype == torch.float16
    assert torch.allclose(grads.float(), expected, atol=1e-3 * float(expected.abs().max()))


def test_values_between_grey_levels_move_the_reward(scorer, videos):
    """RewardFunction rounds the difference of a quarter of a level away; here it counts as the gradient says."""
    reward = DifferentiableReward(scorer, fps=1, range=(0, 1), think="off")
    rounding = RewardFunction(scorer, fps=1, range=(0, 1), think="off")
    first, grads = gradient(reward, videos[:1])
    moved = videos[:1] + 0.25 / 255 * grads.sign()
    assert torch.equal(*(rounding(videos=v, prompts=PROMPTS[:1]).rewards for v in (videos[:1], moved)))
    gained = (reward(videos=moved, prompts=PROMPTS[:1]) - first).item()
    assert gained == pytest.approx(0.25 / 255 * float(grads.abs().sum()), rel=0.1)


def test_the_exact_clip_is_the_prepared_one_within_half_a_level():
    form, small = FrameFormat(range=(-1, 1)), VideoSampling(max_pixels=64 * 64, min_pixels=256, size_multiple=16)
    frames = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2.02 - 1.01
    frames.requires_grad_()
    prepared = prepare(frames, source="", fps=1, form=form, sampling=small, device=torch.device("cpu"))
    exact = differentiable_clip(frames, prepared, form=form, sampling=small)
    apart = (exact.pixels - prepared.clip.pixels.float()).abs()
    assert 0.45 < apart.max().item() <= 0.5 + 1e-4
    [grad] = torch.autograd.grad(exact.pixels.sum(), frames)
    chosen = list(prepared.chosen)
    inside = frames[chosen].abs() < 1
    assert torch.equal(grad[chosen][inside].unique(), torch.tensor([127.5]))  # 255 levels over a range of 2
    assert not grad[chosen][~inside].any()
    assert 0 < int((~inside).sum()) == prepared.clamped


@pytest.mark.slow
@pytest.mark.parametrize(("think", "rate"), [("off", 0.002), ("on", 0.001)])
def test_steps_along_the_gradient_raise_the_reward(think, rate):
    """ReFL in small: the pixels themselves learn. The steps with chains are too small for the words to change."""
    options = {"fps": 2, "range": (0, 1), "device": "cpu", "think": think, "max_chain_tokens": 16}
    prompts = ["a red ball rolls to the left"]
    grey = torch.full((1, 4, 3, 64, 64), 0.4, requires_grad=True)
    reward, rewards = DifferentiableReward("tiny", **options), []
    optimizer = torch.optim.Adam([grey], lr=rate)
    for _ in range(4):
        loss = -reward(videos=grey, prompts=prompts).mean()
        rewards.append(-loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert rewards == sorted(rewards)
    seen = RewardFunction("tiny", **options)(videos=grey.detach(), prompts=prompts).rewards.item()
    assert seen > rewards[0] + rate * 5  # rounded to 8 bits, too


@pytest.mark.slow
def test_the_lines_of_the_page_raise_the_reward():
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    [example] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Differentiable" in block]
    names = {"seen": []}
    exec(example.replace("    (-rewards.", "    seen.append(rewards.item())\n    (-rewards."), names)
    assert len(names["seen"]) == 5
    assert names["seen"] == sorted(names["seen"])


def test_by_the_rule_of_qwen_vl_utils_too(videos):
    """Another scaler; its value is RewardFunction's to the rounding, its gradient that of a difference."""
    scorer = build_scorer()
    sampling = scorer.model.settings.sampling.model_copy(
        update={"rule": "qwen_vl_utils", "max_pixels": 24 * 24, "fps": 2.0}
    )
    scorer.model.settings = scorer.model.settings.model_copy(update={"sampling": sampling})
    options = {"fps": 1, "range": (0, 1), "think": "off"}
    reward = DifferentiableReward(scorer, **options)
    rewards, grads = gradient(reward, videos)
    expected = RewardFunction(scorer, **options)(videos=videos, prompts=PROMPTS).rewards
    assert torch.allclose(rewards, expected, atol=0.02)
    assert all(grad.abs().max() > 0 for grad in grads)
    step = 1e-2 * grads / grads.norm()
    above, below = (reward(videos=videos + sign * step, prompts=PROMPTS).sum() for sign in (1, -1))
    assert (above - below).item() / 2 == pytest.approx((grads * step).sum().item(), rel=1e-2)
