"""The generator study's flow: words, velocities, the stochastic sampler against values by hand, and growth."""

import json
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from experiments.generator import flow, grow, model, sde, words
from experiments.generator.world import FRAMES, SIDE, Part, ask

from descore.errors import ConfigError

MICRO = model.GeneratorConfig(heads=1, head_width=24, layers=1, inner=32, patch=(4, 16, 16))


@pytest.fixture(scope="module")
def micro():
    """A network whose output is not zero, as it is before training."""
    torch.manual_seed(0)
    network = model.Generator(MICRO).eval()
    torch.nn.init.normal_(network.transformer.proj_out.weight, std=0.05)
    return network


def values(number):
    """A clip whose values are all this number."""
    return torch.full((1, 3, FRAMES, SIDE, SIDE), float(number))


# Words.


def test_every_word_of_the_worlds_prompts_is_known():
    numbers = words.read_prompts([ask(Part.TRAIN, number).prompt for number in range(200)])
    assert not (numbers == words.UNKNOWN).any()
    assert (numbers[:, -1] == words.NOTHING).float().mean() > 0.9  # there is room behind nearly all
    assert numbers.max() <= max(words.NUMBERS.values())


def test_a_word_that_is_not_known_is_unknown():
    (row,) = words.read_prompts(["A red dragon"]).tolist()
    assert row[:3] == [words.NUMBERS["a"], words.NUMBERS["red"], words.UNKNOWN]
    assert set(row[3:]) == {words.NOTHING}


# Values, velocities and the loss.


def test_frames_become_values_and_return():
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    there = flow.to_values([frames])
    assert (there.min(), there.max()) == (flow.LOW, flow.HIGH)
    assert np.array_equal(flow.to_frames(there)[0], frames)
    assert (flow.to_frames(values(9))[0] == 255).all()  # brighter than white


def test_the_velocity_of_the_true_clip_is_noise_minus_clip():
    clean, noise, sigma = values(1), values(3), torch.tensor([0.25])
    noisy = flow.mixed(clean, noise, sigma)
    assert noisy.unique().tolist() == [1.5]  # three quarters of 1 and a quarter of 3
    assert model.velocity_to(clean, noisy, sigma).unique().tolist() == [2.0]


def test_the_loss_of_a_network_that_says_zero():
    """Its velocity is noisy / sigma, so its error is clip / sigma: 1 / 0.5."""
    network = model.Generator(MICRO)
    errors = flow.flow_errors(
        network, values(1), words.read_prompts(["x"]), sigma_B=torch.tensor([0.5]), noise_BCTHW=values(3)
    )
    assert errors.tolist() == pytest.approx([4.0])


def test_guidance_goes_beyond_the_prompt(micro):
    noisy, sigma = flow.noise_of([1]), torch.tensor([0.5])
    asked, free = words.read_prompts(["a red star"]), torch.zeros(1, words.LENGTH, dtype=torch.int64)
    with torch.no_grad():
        with_prompt, without = (micro.velocity(noisy, sigma, one) for one in (asked, free))
        guided = micro.velocity(noisy, sigma, asked, guidance=3.0)
    assert not torch.allclose(with_prompt, without)
    torch.testing.assert_close(guided, without + 3 * (with_prompt - without), atol=1e-4, rtol=0)


def test_sigmas_lean_to_noise_and_some_prompts_are_dropped():
    rng = torch.Generator().manual_seed(0)
    sigmas = flow.random_sigmas(4000, rng)
    assert sigmas.median() == pytest.approx(flow.SHIFT / (1 + flow.SHIFT), abs=0.02)
    visited = flow.schedule(1000).sigmas
    for share in (0.1, 0.9):  # as often as sampling passes them
        assert sigmas.quantile(share) == pytest.approx(float(visited.quantile(share)), abs=0.02)
    numbers = torch.ones(4000, 2, dtype=torch.int64)
    dropped = (flow.without_some_prompts(numbers, rng) == words.NOTHING).all(dim=1)
    assert dropped.float().mean() == pytest.approx(flow.DROP, abs=0.02)


def test_a_clip_depends_on_its_prompt_and_seed_alone(micro):
    both = flow.generate(micro, ["a red star", "a blue box"], [1, 2], steps=2)
    alone = flow.generate(micro, ["a blue box"], [2], steps=2)
    other = flow.generate(micro, ["a blue box"], [3], steps=2)
    assert np.abs(both[1].astype(int) - alone[0]).max() <= 1
    assert not np.array_equal(other[0], alone[0])


def test_a_generator_is_saved_and_opened(micro, tmp_path):
    micro.save(tmp_path / "model")
    again = model.Generator.load(tmp_path / "model")
    assert again.config == micro.config
    assert np.array_equal(flow.generate(again, ["a"], [1], steps=2)[0], flow.generate(micro, ["a"], [1], steps=2)[0])


# The stochastic sampler.


def test_a_step_of_the_stochastic_sampler_by_hand():
    """t = .5 to t' = .25, a = .8, x = 2, v = -1: g^2 / t = .64 / .5 = 1.28; the noise is 2 - .5 = 1.5, so the mean is
    2 + (-1 + .64 * 1.5) * -.25 = 2.01, and the variance 1.28 * .5 * .25 = .16."""
    noise = sde.StepNoise(sigma=0.5, following=0.25, spread=0.8**2 / (1 - 0.5))
    assert sde.step_mean(values(2), values(-1), noise).unique().tolist() == pytest.approx([2.01])
    assert noise.deviation == pytest.approx(0.4)


def test_the_log_probability_of_a_step_by_hand():
    """One deviation off: -1/2 - log .4 - log(2 pi) / 2 = -.5 + .916291 - .918939."""
    assert sde.log_probability(values(2.4), values(2), 0.4).tolist() == pytest.approx([-0.502648], abs=1e-5)


def test_the_divergence_of_two_steps_by_hand():
    """(.2)^2 / (2 * .4^2)."""
    assert sde.step_kl(values(2.2), values(2), 0.4).tolist() == pytest.approx([0.125])


def test_without_noise_a_step_is_eulers():
    (first, *_) = sde.step_noises(4, level=0.0)
    assert first.deviation == 0
    assert sde.step_mean(values(2), values(-1), first).unique().tolist() == pytest.approx(
        [2 + (first.sigma - first.following)]
    )


def test_noise_levels_fall_and_stay_finite():
    noises = sde.step_noises(8)
    assert noises[0].sigma == 1
    assert noises[-1].following == 0
    assert all(now.following == then.sigma for now, then in pairwise(noises))
    assert all(0 < one.deviation < 1.5 for one in noises[:-1])
    assert noises[-1].deviation == 0  # nothing would take its noise away
    with pytest.raises(ConfigError, match="2 or more"):
        sde.step_noises(1)


def test_the_stochastic_sampler_keeps_the_distribution():
    """Clips of one value, normal around 1 with deviation .5: noise level t has mean 1 - t and variance
    (1 - t)^2 / 4 + t^2, and the best velocity is E[noise - clip | x], a line in x."""

    class Line(torch.nn.Module):
        def velocity(self, x, sigma_B, words_BL, *, guidance):  # noqa: ARG002
            t = sigma_B.view(-1, 1, 1, 1, 1)
            variance = (1 - t) ** 2 / 4 + t**2
            return -1 + (t - (1 - t) / 4) / variance * (x - (1 - t))

    rolled = sde.roll_out(Line(), [""], [0], steps=64, level=0.7, guidance=1.0)
    assert rolled.clips_BCTHW.mean() == pytest.approx(1, abs=0.02)
    assert rolled.clips_BCTHW.std() == pytest.approx(0.5, abs=0.03)


def test_a_rollout_knows_its_own_probabilities(micro):
    rolled = sde.roll_out(micro, ["a red star", "a blue box"], [1, 2], steps=3)
    assert rolled.values_SBCTHW.shape == (4, 2, 3, FRAMES, SIDE, SIDE)
    torch.testing.assert_close(rolled.values_SBCTHW[0], flow.noise_of([1, 2]))
    assert len(rolled.log_probability_SB) == 2
    for step, noise in enumerate(rolled.noises[:-1]):
        mean = sde.mean_of_step(micro, rolled, step)
        again = sde.log_probability(rolled.values_SBCTHW[step + 1], mean, noise.deviation)
        torch.testing.assert_close(again, rolled.log_probability_SB[step], atol=1e-5, rtol=0)
    torch.testing.assert_close(rolled.clips_BCTHW, sde.mean_of_step(micro, rolled, 2), atol=1e-5, rtol=0)
    assert sde.path_kl(micro, micro, rolled).tolist() == [0, 0]


# Growth.


def test_learning_rates_rise_stay_and_fall():
    plan = grow.GrowthPlan(steps=100, warmup=10, cooldown=0.2)
    shares = [grow.learning_rate_share(step, plan) for step in (0, 9, 50, 80, 90, 99)]
    assert shares == pytest.approx([0.1, 1, 1, 1, 0.5, 0.05])


@pytest.mark.slow
def test_a_stopped_growth_goes_on_as_if_it_had_not_been(tmp_path):
    whole = grow.grow(grow.DRY, out=tmp_path / "whole")
    (tmp_path / "stopped").mkdir()
    torch.manual_seed(grow.DRY.seed)
    stopped = grow._Growth(grow.DRY, tmp_path / "stopped")
    for _ in range(2):
        stopped.advance()
    stopped.save()
    stopped.advance()  # lost: it was not saved
    again = grow.grow(grow.DRY, out=tmp_path / "stopped")
    logs = [(tmp_path / name / grow.LOG).read_text().splitlines() for name in ("whole", "stopped")]
    losses = [[row["loss"] for line in log if "loss" in (row := json.loads(line))] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == grow.DRY.steps
    first, second = model.Generator.load(whole), model.Generator.load(again)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert (tmp_path / "whole" / "sheets" / "000004.png").is_file()
    young = model.Generator.load(tmp_path / "whole" / grow.LOOKS / "000002")
    assert any(not torch.equal(a, b) for a, b in zip(young.parameters(), first.parameters(), strict=True))
    older = grow._Growth(replace(grow.DRY, start=str(whole)), tmp_path / "older").model
    assert all(torch.equal(a, b) for a, b in zip(older.parameters(), first.parameters(), strict=True))


def test_a_folder_of_another_plan_is_refused(tmp_path):
    (tmp_path / grow.PLAN).write_text(json.dumps(asdict(grow.DRY)))
    with pytest.raises(ConfigError, match=r"holds a generator of another plan; choose another --out, or the plan in"):
        grow.grow(grow.GrowthPlan(), out=tmp_path)
