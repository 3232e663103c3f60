"""Examples are functions of split and number, true, and each split keeps to what it is for."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from descore.rubric import read_answer
from descore.synthetic.degradations import VISIBLE, harm
from descore.synthetic.generators import HELD_OUT_GENERATORS, TRAINING_GENERATORS
from descore.synthetic.prompts import WORDINGS
from descore.synthetic.scene import ATTRIBUTES, HELD_OUT_LOOKS, HELD_OUT_TAKES, Style, is_held_out, tidy
from descore.synthetic.splits import (
    Split,
    corpus,
    draw_example,
    draw_pair,
    draw_plan,
    plan_example,
    plan_pair,
)
from descore.synthetic.truth import true_chain, true_preference, true_verdict
from descore.types import DIMENSIONS

EVERY = pytest.mark.parametrize("split", list(Split), ids=lambda split: split.value)
COUNT = 900


@cache
def plans(split, *, count=COUNT):
    """Plans of single examples and of both sides of pairs."""
    found = [plan_example(split, index) for index in range(count)]
    for index in range(count // 3):
        planned = plan_pair(split, index)
        found += [planned.a, planned.b]
    return found


def asks_held_out(planned):
    asked, request = planned.asked, planned.request
    looks = {"shape", "colour"} <= request and (asked.shape, asked.colour) in HELD_OUT_LOOKS
    return looks or ({"action", "camera"} <= request and (asked.action, asked.camera) in HELD_OUT_TAKES)


@EVERY
def test_chains_and_verdicts_are_true(split):
    for planned in plans(split, count=300):
        truth = (planned.asked, planned.shown, planned.request, planned.flaws)
        assert planned.chain == true_chain(*truth)
        assert planned.verdict == true_verdict(*truth) == read_answer(planned.chain)
        assert planned.asked == tidy(planned.asked)
        assert planned.shown == tidy(planned.shown)


@pytest.mark.slow
@EVERY
def test_only_one_split_has_held_out_combinations(split):
    for planned in plans(split):
        if split is Split.COMBINATIONS:
            assert asks_held_out(planned)
        else:
            assert not is_held_out(planned.asked)
            assert not is_held_out(planned.shown)


@EVERY
def test_only_one_split_has_held_out_generators(split):
    expected = HELD_OUT_GENERATORS if split is Split.GENERATORS else TRAINING_GENERATORS
    assert {planned.generator for planned in plans(split)} == {generator.name for generator in expected}


@EVERY
def test_only_one_split_has_held_out_wordings(split):
    """Shape and colour, one of which every prompt names, have wordings that are no part of others."""
    for planned in plans(split):
        names = planned.request & {"shape", "colour"}
        for wordings in (WORDINGS[getattr(planned.asked, name)] for name in names):
            held_out = any(phrase in planned.prompt.lower() for phrase in wordings.held_out)
            assert held_out == (split is Split.WORDINGS), planned.prompt


def test_splits_never_meet():
    seeds = [planned.seed for split in Split for planned in plans(split, count=300)]
    assert len(seeds) == len(set(seeds))
    prompts = [tuple(plan_example(split, index).prompt for index in range(20)) for split in Split]
    assert len(prompts) == len(set(prompts))


def test_a_number_always_gives_the_same_example():
    one, other = (draw_example(Split.IN_DOMAIN, 5) for _ in range(2))
    assert np.array_equal(one.clip.frames, other.clip.frames)
    assert (one.prompt, one.chain, one.asked, one.flaws) == (other.prompt, other.chain, other.asked, other.flaws)
    assert not np.array_equal(one.clip.frames, draw_example(Split.IN_DOMAIN, 6).clip.frames)


def test_the_size_changes_nothing_but_the_size():
    small, wide = (draw_example(Split.TRAIN, 3, size=size) for size in ((64, 64), (160, 96)))
    assert small.clip.frames.shape == (8, 64, 64, 3)
    assert wide.clip.size == (160, 96)
    assert small.chain == wide.chain


@pytest.mark.slow
def test_flaws_are_drawn():
    """Nearly every clip differs visibly from the same one without its flaws: small slow things leave little to harm."""
    flawed = [planned for index in range(400) if (planned := plan_example(Split.GENERATORS, index)).flaws][:60]
    harms = []
    for planned in flawed:
        clean = draw_plan(replace(planned, flaws=()))
        harms.append(harm(clean.clip.frames, draw_plan(planned).clip.frames))
    assert min(harms) > 0
    assert np.mean(np.array(harms) > VISIBLE) > 0.9


def test_uninformed_prompts_ask_nothing():
    for planned in (plan_example(Split.TRAIN, index, informed=False) for index in range(200)):
        assert planned.request == frozenset()
        assert [name for name in DIMENSIONS if planned.verdict.marks[name] is None] == [
            "subject",
            "camera",
            "environment",
        ]
    assert len({plan_example(Split.TRAIN, index, informed=False).prompt for index in range(200)}) < 10


def test_attributes_differ_at_the_given_rate():
    """A combination held out is drawn again, and what does not move has no speed: rates are near, not equal."""
    for p in (0.0, 0.3, 0.6):
        planned = [plan_example(Split.TRAIN, index, p_differs=p) for index in range(1000)]
        for name in set(ATTRIBUTES) - {"speed"}:
            rate = np.mean([getattr(one.asked, name) is not getattr(one.shown, name) for one in planned])
            assert abs(rate - p) < 0.07, name


def test_little_variety_leaves_most_attributes_usual():
    for planned in (plan_example(Split.TRAIN, index, variety=0.0, p_differs=0.0) for index in range(200)):
        usual = (
            planned.shown.size.value,
            planned.shown.count.value,
            planned.shown.camera.value,
            planned.shown.style.value,
        )
        assert usual == ("large", "one", "still", "flat")


@EVERY
def test_no_prompt_asks_for_a_colour_in_greyscale(split):
    assert not any("colour" in one.request and one.asked.style is Style.GREY for one in plans(split))


@EVERY
def test_preferences_follow_the_true_overalls(split):
    for index in range(300):
        planned = plan_pair(split, index)
        assert planned.a.prompt == planned.b.prompt
        assert planned.preference == true_preference(planned.a.verdict, planned.b.verdict)


def test_sides_are_even_and_ties_are_some():
    found = Counter(plan_pair(Split.IN_DOMAIN, index).preference for index in range(COUNT))
    assert abs(found["a"] - found["b"]) < 0.06 * COUNT
    assert 0.05 < found["tie"] / COUNT < 0.25


@EVERY
def test_a_hard_pair_differs_in_one_attribute_or_flaw(split):
    for index in range(300):
        planned = plan_pair(split, index, hard=1.0)
        a, b = planned.a, planned.b
        names = {name for name in ATTRIBUTES if getattr(a.shown, name) is not getattr(b.shown, name)}
        if "action" in names:
            names.discard("speed")
        kinds = {flaw.harms for flaw in set(a.flaws) ^ set(b.flaws)}
        assert len(names) + len(kinds) == 1
        assert names <= a.request
        assert names != {"colour"} or a.shown.style is not Style.GREY
        assert a.generator == b.generator


def test_easy_pairs_differ_in_more():
    easy = [plan_pair(Split.TRAIN, index, hard=0.0) for index in range(300)]
    differing = [
        sum(getattr(one.a.shown, name) is not getattr(one.b.shown, name) for name in ATTRIBUTES) for one in easy
    ]
    assert np.mean(differing) > 2


@pytest.mark.slow
def test_label_noise_flips_decided_pairs_alone():
    turned = 0
    for index in range(1000):
        plain, noisy = (plan_pair(Split.TRAIN, index, label_noise=noise) for noise in (0.0, 0.2))
        assert (plain.a, plain.b) == (noisy.a, noisy.b)
        assert (plain.preference == "tie") == (noisy.preference == "tie")
        turned += plain.preference != noisy.preference
    decided = sum(plan_pair(Split.TRAIN, index).preference != "tie" for index in range(1000))
    assert 0.15 < turned / decided < 0.25


def test_a_loose_pair_shares_its_prompt_and_true_preference():
    for index in range(100):
        planned = plan_pair(Split.TRAIN, index, loose=True)
        assert planned.a.prompt == planned.b.prompt != plan_pair(Split.TRAIN, index).a.prompt
        assert planned.preference == true_preference(planned.a.verdict, planned.b.verdict)


def test_a_drawn_pair_is_its_plan():
    planned, drawn = plan_pair(Split.WORDINGS, 4), draw_pair(Split.WORDINGS, 4, size=(32, 48))
    assert (drawn.a.chain, drawn.b.chain, drawn.preference) == (planned.a.chain, planned.b.chain, planned.preference)
    assert drawn.a.clip.size == (32, 48)
    assert np.array_equal(drawn.b.clip.frames, draw_plan(planned.b, size=(32, 48)).clip.frames)


def test_the_corpus_is_prompts_and_chains_of_training():
    texts = list(corpus(40))
    assert len(texts) == 80
    assert texts[2] == plan_example(Split.TRAIN, 1).prompt
    assert all(read_answer(chain) for chain in texts[1::2])
    assert plan_example(Split.TRAIN, 0, informed=False).prompt == texts[0]


def test_marks_are_spread():
    """No mark of a dimension is so common that to guess it would do."""
    found = [plan_example(Split.IN_DOMAIN, index).verdict.marks for index in range(COUNT)]
    for name in DIMENSIONS:
        assert max(Counter(marks[name] for marks in found).values()) < 0.75 * COUNT


def test_training_shows_every_value():
    shown = [planned.shown for planned in plans(Split.TRAIN)]
    for name, kind in ATTRIBUTES.items():
        assert {getattr(scene, name) for scene in shown} == set(kind)
