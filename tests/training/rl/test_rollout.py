"""A chain is drawn with a seed of its own, and is worth the sum of its known parts."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from tests.conftest import build_micro
from tests.training.pairs import labelled
from tests.training.rl_case import fails, rl_settings

from descore.errors import ConfigError, VideoError
from descore.rubric import write_answer
from descore.training.collate import MISSING
from descore.training.config import LoraConfig, PairTrainableConfig
from descore.training.config_file import read_config
from descore.training.models import set_trainable
from descore.training.rl.config import RlConfig
from descore.training.rl.rollout import reward_groups, sample_rollout
from descore.types import Completion, Verdict

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 2, "style": 0}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    (folder / "rl.yaml").write_text(json.dumps(rl_settings(folder, folder / "out")))

    def make(*overrides):
        return read_config(folder / "rl.yaml", RlConfig, overrides=["rewards.function=null", *overrides])

    return make


def pair(number, preference=1, marks=MARKS):
    made = labelled(number, (preference,))
    return replace(made, a=replace(made.a, marks=marks), b=replace(made.b, marks=marks))


def texts(rollout):
    return [[chain.token_ids for chain in group] for group in rollout.groups]


def test_chains_depend_on_seed_and_step_but_not_on_the_batch(micro, config):
    both = texts(sample_rollout(micro, [pair(0), pair(1)], config=config(), step=3))
    alone = [texts(sample_rollout(micro, [pair(number)], config=config(), step=3)) for number in (0, 1)]
    assert both == [alone[0][0], alone[1][0], alone[0][1], alone[1][1]]
    assert texts(sample_rollout(micro, [pair(0)], config=config(), step=4)) != alone[0]
    assert texts(sample_rollout(micro, [pair(0)], config=config("optim.seed=1"), step=3)) != alone[0]
    assert len({tuple(tokens) for group in both for tokens in group}) == 12


def test_a_rollout_keeps_features_where_vision_is_frozen(config):
    model = build_micro()
    pixels = sample_rollout(model, [pair(0)], config=config(), step=3)
    set_trainable(model, PairTrainableConfig(lora=LoraConfig(r=4)), precision=torch.float32)
    features = sample_rollout(model, [pair(0)], config=config(), step=3)
    assert ["pixel_values_videos" in rollout.prompts for rollout in (pixels, features)] == [True, False]
    assert not features.prompts["vision_features"].is_inference()  # an update saves them for its backward
    assert texts(features) == texts(pixels)


def completion(overall=None, *, tokens=5, marks=MARKS):
    """A completion that ends with this overall score, or with none."""
    verdict = None if overall is None else Verdict(marks=marks, overall=overall)
    return Completion(
        token_ids=[1] * tokens,
        text="I see. " + (write_answer(verdict) if verdict else ""),
        truncated=False,
        verdict=verdict,
        flaw=None if verdict else "no answer",
        rewards={"overall": 0.0},
    )


def rated(groups, pairs, config):
    return reward_groups(groups, pairs, config=config, function=None)


def test_the_worth_of_a_chain_is_the_sum_of_its_parts(config):
    """Of five marks one differs: .7 · .8; it can be read: .1; of 1 to 8 tokens it has 5: .2 · 4 / 7."""
    [[chain], _] = rated([[completion(3.0, marks={**MARKS, "style": 1})], [completion()]], [pair(0)], config())
    assert chain.reward_parts == {"quality": 0.8, "format": 1.0, "length": pytest.approx(4 / 7)}
    assert chain.rollout_reward == pytest.approx(0.56 + 0.1 + 0.2 * 4 / 7)


@pytest.mark.parametrize(
    "said", [1, 0.5, Fraction(1, 2), np.float32(0.5), np.int64(2), np.array(0.5), torch.tensor(0.5)], ids=repr
)
def test_a_function_may_return_any_real_number(config, said):
    settings = config("rewards.function=tests.training.rl_case:share_of_vowels")
    [[chain], _] = reward_groups(
        [[completion(3.0)], [completion()]], [pair(0)], config=settings, function=lambda *_: said
    )
    assert chain.reward_parts["function"] == float(said)
    assert type(chain.reward_parts["function"]) is float


@pytest.mark.parametrize("said", [None, "1", True, np.bool_(True), np.ones(2), torch.ones(1), 1j, np.nan], ids=repr)
def test_what_is_no_number_is_refused(config, said):
    settings = config("rewards.function=tests.training.rl_case:share_of_vowels")
    with pytest.raises(
        ConfigError, match=r"rewards.function: tests.training.rl_case:share_of_vowels returned .*; expected"
    ):
        reward_groups([[completion(3.0)], [completion()]], [pair(0)], config=settings, function=lambda *_: said)


def test_a_function_that_raises_is_a_fault_of_the_config(config):
    settings = config("rewards.function=tests.training.rl_case:fails")
    with pytest.raises(
        ConfigError, match=r"rewards.function: tests.training.rl_case:fails failed in step 7: KeyError: 'depth'"
    ) as no:
        reward_groups([[completion(3.0)], [completion()]], [pair(0)], config=settings, function=fails, step=7)
    assert isinstance(no.value.__cause__, KeyError)


class OfItsOwn(Exception):  # noqa: N818
    """No type of Python's."""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OfItsOwn("two\nlines"), "OfItsOwn: two lines$"),
        (OfItsOwn(), "OfItsOwn$"),
        (SystemExit(2), "SystemExit: 2$"),
        (StopIteration(), "StopIteration$"),
        (EOFError("no input"), "EOFError: no input$"),
        (VideoError("a.mp4", "cut"), "VideoError: a.mp4: cut$"),
    ],
)
def test_whatever_a_function_raises_is_one_line(config, fault, reason):
    def raises(*_):
        raise fault

    settings = config("rewards.function=tests.training.rl_case:fails")
    with pytest.raises(ConfigError, match=rf"failed in step 7: {reason}") as no:
        reward_groups([[completion(3.0)], [completion()]], [pair(0)], config=settings, function=raises, step=7)
    assert no.value.__cause__ is fault


def test_an_interrupt_passes_through(config):
    def interrupts(*_):
        raise KeyboardInterrupt

    settings = config("rewards.function=tests.training.rl_case:fails")
    with pytest.raises(KeyboardInterrupt):
        reward_groups([[completion(3.0)], [completion()]], [pair(0)], config=settings, function=interrupts)


def test_weights_are_the_users(config):
    only_format = config("rewards.quality=0", "rewards.format=2", "rewards.length=0")
    [[completed], _] = rated([[completion(3.0)], [completion()]], [pair(0)], only_format)
    assert completed.rollout_reward == 2


def test_without_an_answer_only_length_is_rewarded(config):
    [_, [completed]] = rated([[completion(3.0)], [completion(tokens=8)]], [pair(0)], config())
    assert completed.reward_parts == {"quality": 0.0, "format": 0.0, "length": 1.0}
    assert completed.rollout_reward == pytest.approx(0.2)


def test_without_marks_a_chain_is_not_told_from_others(config):
    [[chain], _] = rated([[completion(3.0)], [completion()]], [pair(0, marks=None)], config())
    assert chain.rollout_reward is None
    assert "quality" not in chain.reward_parts


def correct(groups, pairs, config):
    return [[chain.reward_parts.get("correctness") for chain in group] for group in rated(groups, pairs, config)]


def test_a_generative_chain_is_rewarded_for_peoples_order(config):
    """Matched: 4 above 3 is right, 2 and 2 a tie where people see none. All: each is held against both."""
    groups = [[completion(4.0), completion(2.0)], [completion(3.0), completion(2.0)]]
    generative = config("paradigm=generative", "rewards.correctness=0.5")
    assert correct(groups, [pair(0)], generative) == [[1.0, 0.5], [1.0, 0.5]]
    assert correct(groups, [pair(0, -1)], generative) == [[0.0, 0.5], [0.0, 0.5]]
    against_all = generative.model_copy(update={"loss": generative.loss.model_copy(update={"opponents": "all"})})
    assert correct(groups, [pair(0)], against_all) == [[1.0, 0.25], [0.5, 0.75]]
    [[chain, _], _] = rated(groups, [pair(0, marks=None)], generative)
    assert chain.rollout_reward == pytest.approx(0.1 + 0.2 * 4 / 7 + 0.5)  # known also without marks


def test_a_chain_without_a_score_leaves_its_opponent_unrated(config):
    generative = config("paradigm=generative")
    chains = rated([[completion()], [completion(3.0)]], [pair(0)], generative)
    assert chains[0][0].reward_parts["correctness"] == 0.0
    assert chains[1][0].rollout_reward is None
    no_label = rated([[completion()], [completion(3.0)]], [pair(0, MISSING)], generative)
    assert "correctness" not in no_label[1][0].reward_parts
    assert no_label[1][0].rollout_reward is not None


def test_truncated_chains_count_only_without_the_mask(micro, config):
    rollout = sample_rollout(micro, [pair(0)], config=config("rollout.max_completion_length=4"), step=1)
    assert all(chain.truncated and len(chain.token_ids) == 5 for group in rollout.groups for chain in group)
    assert not rollout.counted(mask_truncated=True).any()
    assert rollout.counted(mask_truncated=False).all()
