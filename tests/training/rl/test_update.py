"""An update's gradients are those of the plain way: each chain a whole sequence of its own, all losses in one graph."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.conftest import build_micro
from tests.training.pairs import labelled
from tests.training.rl_case import rl_settings

from descore.model.generation import score_chains, suppressed_token_ids
from descore.training.collate import MISSING
from descore.training.config import LoraConfig, PairTrainableConfig, PartConfig
from descore.training.config_file import read_config
from descore.training.metrics import MetricAccumulator
from descore.training.models import set_trainable, trainable_weights
from descore.training.rl.config import RlConfig
from descore.training.rl.logging import add_rollout_metrics
from descore.training.rl.rollout import Rollout, encode_frozen_vision
from descore.training.rl.update import ReferenceModel, Updater
from descore.types import Completion

TEXTS = ("a red ball", "a ball rolls to the left", "red red red ball rolls", "left", "rolls to", "a red")
WORTH = ((0.2, 0.9, 0.4), (0.5, 0.5, 0.5), (None, 0.1, 0.8), (1.0, 0.3, 0.6))
"""Of chain g of clip c; the second group has no spread, and one chain is not rated."""
LORA = PairTrainableConfig(lora=LoraConfig(r=4, lora_alpha=8))
FULL = LORA.model_copy(update={"language_model": PartConfig(mode="full"), "merger": PartConfig(mode="full")})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")

    def make(*overrides):
        settings = rl_settings(folder, folder / "out")
        (folder / "rl.yaml").write_text(str(settings).replace("False", "false"))
        return read_config(folder / "rl.yaml", RlConfig, overrides=[*overrides])

    return make


def moved_model(trainable=LORA, *, dimensions=("overall",)):
    """A model that learned something since its start, and what it was."""
    model = build_micro(dimensions=dimensions)
    set_trainable(model, trainable, precision=torch.float32)
    reference, before = ReferenceModel.of(model, trainable), copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainable_weights(model).values():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return model, reference, before


def made_rollout(model, preferences=((1,), (-1,))):
    """Two pairs and three chains of unlike lengths for each clip, the last of which was cut off."""
    pairs = tuple(labelled(number, preference) for number, preference in enumerate(preferences))
    both = [p.a for p in pairs] + [p.b for p in pairs]
    prompts = model.chat.lay_out_prompts([s.clip for s in both], [s.prompt for s in both])
    groups = []
    written = [[model.chat.encode_chain(TEXTS[(c + g * (g + c)) % len(TEXTS)]) for g in range(3)] for c in range(4)]
    by_sample = [score_chains(model, prompts, [group[g] for group in written]) for g in range(3)]
    for c, group in enumerate(written):
        groups.append(
            tuple(
                Completion(
                    token_ids=tokens,
                    text="",
                    truncated=(c, g) == (3, 2),
                    verdict=None,
                    flaw=None,
                    rewards=dict(zip(model.settings.dimensions, by_sample[g][c].tolist(), strict=True)),
                    reward_parts={},
                    rollout_reward=WORTH[c][g],
                )
                for g, tokens in enumerate(group)
            )
        )
    return Rollout(pairs=pairs, prompts=prompts, groups=tuple(groups))


def gradients(model, reference, rollouts, config):
    """By weight, what the last pass left, and the metrics."""
    metrics, found = MetricAccumulator(), {}

    def step():
        found.update({n: w.grad.clone() for n, w in trainable_weights(model).items() if w.grad is not None})
        model.zero_grad()

    Updater(model, reference=reference, config=config, accelerator=Accelerator(cpu=True)).learn(
        rollouts, step=step, metrics=metrics
    )
    return found, metrics.summary


def log_probs(model, rollout, c, tokens):
    """Of a chain's tokens in its own whole sequence, at temperature 1, and its rewards (K)."""
    pair = rollout.pairs[c % 2]
    side = pair.a if c < 2 else pair.b
    prompt = model.chat.lay_out_prompts([side.clip], [side.prompt])
    inputs = model.chat.lay_out_chains(prompt, [tokens])
    hidden = model.hidden(inputs)
    logits = model.backbone.lm_head(hidden)[0].float()
    logits[:, suppressed_token_ids(model)] = -torch.inf
    length = len(tokens)
    said = logits[-length - 2 : -2].log_softmax(dim=-1)
    return said[torch.arange(length), torch.tensor(tokens)], model.rewards(hidden)[0]


def plain_loss(model, before, rollout, config):
    """Everything by loops, in one graph."""
    counted = [
        [chain.rollout_reward is not None and not chain.truncated for chain in group] for group in rollout.groups
    ]
    tokens = sum(
        len(ch.token_ids)
        for group, row in zip(rollout.groups, counted, strict=True)
        for ch, n in zip(group, row, strict=True)
        if n
    )
    policy = kl = 0.0
    rewards = {}
    for c, group in enumerate(rollout.groups):
        worth = [ch.rollout_reward for ch, n in zip(group, counted[c], strict=True) if n]
        deviation = np.std(worth, ddof=1)
        for g, chain in enumerate(group):
            log_prob, rewards[c, g] = log_probs(model, rollout, c, chain.token_ids)
            if not counted[c][g]:
                continue
            advantage = (chain.rollout_reward - np.mean(worth)) / (deviation + 1e-6)
            with torch.no_grad():
                first, _ = log_probs(before, rollout, c, chain.token_ids)
            policy = policy - (advantage * (log_prob - log_prob.detach()).exp()).sum() / tokens
            kl = kl + ((first - log_prob).exp() - (first - log_prob) - 1).sum() / tokens
    terms = []
    for b, pair in enumerate(rollout.pairs):
        for k, preference in enumerate(pair.preference_K):
            if preference in (0, MISSING):
                continue
            for g in range(3):
                for h in range(3) if config.loss.opponents == "all" else (g,):
                    margin = preference * (rewards[b, g][k] - rewards[b + 2, h][k])
                    terms.append(-torch.nn.functional.logsigmoid(margin))
    return policy + config.policy.beta * kl + config.loss.bt_weight * sum(terms) / len(terms)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # float32, and sums in another order: the largest entry of each weight's gradient is the scale.
        assert (found[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name


@pytest.mark.parametrize(
    ("overrides", "trainable"),
    [
        ((), LORA),
        (("policy.token_budget=70", "loss.opponents=all"), LORA),
        pytest.param((), FULL, marks=pytest.mark.slow),
    ],
    ids=["lora", "split, all opponents", "full"],
)
def test_gradients_are_those_of_whole_sequences_in_one_graph(config, overrides, trainable):
    settings = config("policy.mask_truncated_completions=true", *overrides)
    model, reference, before = moved_model(trainable, dimensions=("overall", "motion"))
    rollout = made_rollout(model, preferences=((1, -1), (0, MISSING)))
    found, line = gradients(model, reference, [rollout], settings)
    loss = plain_loss(model, before, rollout, settings)
    loss.backward()
    assert_close(found, {n: w.grad for n, w in trainable_weights(model).items() if w.grad is not None})
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert line["reward_gap"] < 1e-5
    assert line["clip_share"] == 0  # on-policy


def test_two_rollouts_are_learned_from_as_one_batch(config):
    """The means of policy and pairs are over the whole update."""
    settings = config("policy.mask_truncated_completions=true")
    model, reference, _ = moved_model()
    one, other = made_rollout(model), made_rollout(model, preferences=((1,), (0,)))
    found, _ = gradients(model, reference, [one, other], settings)
    apart = [gradients(model, reference, [rollout], settings)[0] for rollout in (one, other)]
    # The same tokens in both; decided pairs two and one.
    policy_only = [gradients(model, reference, [r], replace_bt(settings))[0] for r in (one, other)]
    for name, gradient in found.items():
        pairs = [a[name] - p.get(name, 0) for a, p in zip(apart, policy_only, strict=True)]
        policy = sum(p.get(name, torch.zeros(())) for p in policy_only) / 2
        expected = policy + (2 * pairs[0] + pairs[1]) / 3
        assert (gradient - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-7, name


def replace_bt(settings):
    return settings.model_copy(update={"loss": settings.loss.model_copy(update={"bt_weight": 0.0})})


def test_a_second_pass_has_new_rewards_and_the_first_ratios(config):
    settings = config("policy.num_iterations=2", "policy.epsilon=0.0001")
    model, reference, _ = moved_model()
    optimizer = torch.optim.SGD(trainable_weights(model).values(), lr=0.05)
    losses, metrics = [], MetricAccumulator()

    def step():
        losses.append(metrics.sums["pair_loss"][0])
        optimizer.step()
        optimizer.zero_grad()

    updater = Updater(model, reference=reference, config=settings, accelerator=Accelerator(cpu=True))
    updater.learn([made_rollout(model)], step=step, metrics=metrics)
    assert len(losses) == 2
    assert losses[1] - losses[0] < losses[0]  # the pairs are in better order after the first
    assert 0 < metrics.summary["clip_share"] < 1


@pytest.mark.parametrize("trainable", [LORA, pytest.param(FULL, marks=pytest.mark.slow)])
def test_the_reference_is_the_start_and_the_model_is_restored(trainable):
    model, reference, before = moved_model(trainable)
    rollout = made_rollout(before)
    tokens = rollout.groups[0][1].token_ids
    with torch.no_grad():
        now, first = log_probs(model, rollout, 0, tokens), log_probs(before, rollout, 0, tokens)
        with reference.activated(model) as was:
            found = log_probs(was, rollout, 0, tokens)
        again = log_probs(model, rollout, 0, tokens)
    assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(again, now, strict=True))
    assert not torch.equal(now[0], first[0])
    assert all(weight.requires_grad for weight in trainable_weights(model).values())
    assert len(trainable_weights(model)) == len(trainable_weights(before))


@pytest.mark.parametrize("trainable", [LORA, pytest.param(FULL, marks=pytest.mark.slow)])
def test_what_has_no_weight_is_measured_and_not_learned_from(config, trainable):
    """Without a weight of KL, the distance from the start is what it is with one, and no gradient has any of it."""
    model, reference, _ = moved_model(trainable)
    rollout = made_rollout(model)
    without, unmeasured = gradients(model, None, [rollout], config("policy.beta=0"))
    measured, line = gradients(model, reference, [rollout], config("policy.beta=0"))
    weighed, expected = gradients(model, reference, [rollout], config("policy.beta=0.1"))
    assert all(torch.equal(measured[name], gradient) for name, gradient in without.items())
    assert not all(torch.equal(weighed[name], gradient) for name, gradient in without.items())
    assert line["kl"] == expected["kl"] > 0
    assert line["reward_drift"] == expected["reward_drift"] != 0
    assert line["loss"] == unmeasured["loss"]
    assert not {"kl", "reward_drift"} & unmeasured.keys()


def test_without_marks_and_preferences_nothing_is_learned(config):
    settings = config("policy.beta=0")
    model, _, _ = moved_model()
    rollout = made_rollout(model, preferences=((0,), (MISSING,)))
    groups = tuple(tuple(replace(chain, rollout_reward=None) for chain in group) for group in rollout.groups)
    found, line = gradients(model, None, [replace(rollout, groups=groups)], settings)
    assert all(not gradient.any() for gradient in found.values())
    assert line["loss"] == 0.0
    assert "pair_loss" not in line  # a loss of nothing is not 0


def test_ties_are_learned_by_the_loss_that_knows_them(config):
    model, _, _ = moved_model()
    rollout = made_rollout(model, preferences=((0,), (0,)))
    found, line = gradients(model, None, [rollout], config("loss.kind=ties", "policy.beta=0"))
    assert found["head.weight"].any()
    # Rewards of a and b pulled together: -log P(tie) is least at d = 0, (k + 1) / (k - 1) = 1.5 there.
    assert line["pair_loss"] >= np.log(1.5) - 1e-6


def test_groups_that_give_the_policy_nothing_are_counted_by_why(config):
    """Four groups: one with a spread, one without, one that nobody rated, one of which every chain was cut off."""
    model = build_micro()
    rollout = made_rollout(model)
    worths = (WORTH[0], WORTH[1], (None, None, None), WORTH[3])
    groups = tuple(
        tuple(replace(chain, rollout_reward=worth, truncated=c == 3) for chain, worth in zip(*known, strict=True))
        for c, known in enumerate(zip(rollout.groups, worths, strict=True))
    )
    rollout = replace(rollout, groups=groups)
    masks, metrics, all_count = (
        config("policy.mask_truncated_completions=true"),
        MetricAccumulator(),
        MetricAccumulator(),
    )
    add_rollout_metrics([rollout], config=masks, metrics=metrics)
    add_rollout_metrics([rollout], config=config(), metrics=all_count)
    names = ("groups", "groups_without_spread", "groups_unrated", "groups_truncated")
    assert [metrics.summary[name] for name in names] == [4, 1, 1, 1]
    assert [all_count.summary[name] for name in names] == [4, 1, 1, 0]


@pytest.mark.slow
def test_vision_that_a_rollout_encoded_is_not_encoded_again(config):
    """Two passes with packs under a budget, and the reference model: none runs the vision tower."""
    settings = config("policy.num_iterations=2", "policy.token_budget=70")
    model, reference, _ = moved_model()
    rollout, runs = made_rollout(model), []
    encoded = replace(rollout, prompts=encode_frozen_vision(model, rollout.prompts))
    hook = model.backbone.model.visual.register_forward_hook(lambda *_: runs.append(1))
    expected, line = gradients(model, reference, [rollout], settings)
    assert len(runs) > 3
    runs.clear()
    found, same = gradients(model, reference, [encoded], settings)
    hook.remove()
    assert not runs
    assert_close(found, expected)
    assert same == pytest.approx(line, rel=1e-5, abs=1e-7)


def test_pixels_stay_where_vision_is_trained():
    model, _, _ = moved_model(FULL)  # the merger's weights move
    prompts = made_rollout(model).prompts
    assert encode_frozen_vision(model, prompts) is prompts
