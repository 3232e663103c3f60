"""Prompts say what is asked and nothing else, in wordings of which some are kept for tests."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from descore.synthetic.prompts import _EMPTY, _LITTLE, WORDINGS, plural, with_article, write_prompt
from descore.synthetic.scene import (
    ATTRIBUTES,
    MOVING_ACTIONS,
    Action,
    Camera,
    Colour,
    Count,
    Light,
    Scene,
    Setting,
    Shape,
    Size,
    Speed,
    Style,
    any_scene,
    random_request,
)

VALUES = [value for kind in ATTRIBUTES.values() for value in kind]
ALL_KNOWN = {phrase for wordings in WORDINGS.values() for phrase in wordings.known}
SCENES = st.builds(Scene, **{name: st.sampled_from(list(kind)) for name, kind in ATTRIBUTES.items()})
REQUESTS = st.frozensets(st.sampled_from(sorted(ATTRIBUTES)))

BEACH = Scene(
    shape=Shape.CIRCLE,
    colour=Colour.RED,
    size=Size.SMALL,
    count=Count.TWO,
    action=Action.LEFT,
    speed=Speed.FAST,
    camera=Camera.PAN_LEFT,
    setting=Setting.BEACH,
    light=Light.DUSK,
    style=Style.PIXELATED,
)


def prompts(scene, *names, held_out=False, count=300):
    return {
        write_prompt(scene, frozenset(names), np.random.default_rng(seed), held_out=held_out) for seed in range(count)
    }


def says(prompt, phrase):
    """The phrase, or its plural, as whole words."""
    return re.search(rf"(?<![\w-]){re.escape(phrase)}(es|s)?(?![\w-])", prompt, re.IGNORECASE) is not None


def many_prompts(*, held_out, loose=False, count=3000):
    rng = np.random.default_rng(7)
    for _ in range(count):
        scene = any_scene(rng)
        yield write_prompt(scene, random_request(scene, rng), rng, held_out=held_out, loose=loose)


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_each_value_has_three_wordings_and_two_held_out(value):
    wordings = WORDINGS[value]
    assert len(set(wordings.known)) >= 3
    assert len(set(wordings.held_out)) >= 2
    assert not set(wordings.held_out) & ALL_KNOWN


@pytest.mark.parametrize("loose", [False, True])
def test_no_training_prompt_holds_a_held_out_wording(loose):
    held_out = [phrase for wordings in WORDINGS.values() for phrase in wordings.held_out]
    either = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, held_out))})(es|s)?(?![\w-])", re.IGNORECASE)
    found = [prompt for prompt in many_prompts(held_out=False, loose=loose) if either.search(prompt)]
    assert not found


def gist(text):
    """Without the words that a loose prompt may leave out or put in."""
    words = [word for word in re.findall(r"[\w'-]+", text.lower()) if word not in {*_LITTLE, *_EMPTY}]
    return " ".join(words)


@given(scene=SCENES, seed=st.integers(0, 999))
def test_a_loose_prompt_names_all_that_is_asked_in_any_order(scene, seed):
    request = frozenset(ATTRIBUTES) - ({"speed"} if scene.action not in MOVING_ACTIONS else set())
    prompt = write_prompt(scene, request, np.random.default_rng(seed), loose=True)
    for name in request:
        known = WORDINGS[getattr(scene, name)].known
        assert any(says(gist(prompt), gist(phrase)) for phrase in known), (name, prompt)
    assert prompt[0] not in " ,;.:"


def test_a_prompt_is_loose_or_held_out_but_not_both():
    with pytest.raises(ValueError, match="cannot be held out"):
        write_prompt(BEACH, frozenset(ATTRIBUTES), np.random.default_rng(0), held_out=True, loose=True)


def test_loose_prompts_leave_out_put_in_and_say_twice():
    found = [write_prompt(BEACH, frozenset(ATTRIBUTES), np.random.default_rng(seed), loose=True) for seed in range(300)]
    assert any(says(prompt, "pan left") for prompt in found)  # of "a pan to the left"
    assert any(says(prompt, empty) for prompt in found for empty in _EMPTY)
    assert any(says(prompt, "red") and says(prompt, "scarlet") for prompt in found)


def test_loose_prompts_begin_with_any_part():
    places, things = WORDINGS[BEACH.setting].known, WORDINGS[BEACH.count].known
    found = {
        write_prompt(BEACH, frozenset(ATTRIBUTES), np.random.default_rng(seed), loose=True).lower()
        for seed in range(200)
    }
    for begins in (places, things, WORDINGS[BEACH.camera].known, WORDINGS[BEACH.style].known):
        assert any(prompt.startswith(begins) for prompt in found), begins


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_held_out_wordings_reuse_training_words(value):
    """Or its stem: 'brightly' for 'bright'. Without that no model could know what is meant."""
    stems = {word[:4] for phrase in [*WORDINGS[value].known, str(value.value)] for word in re.findall(r"\w+", phrase)}
    for phrase in WORDINGS[value].held_out:
        assert {word[:4] for word in re.findall(r"\w+", phrase)} & stems, phrase


def test_no_wording_stands_for_two_values():
    phrases = [phrase for wordings in WORDINGS.values() for phrase in (*wordings.known, *wordings.held_out)]
    assert len(phrases) == len(set(phrases))


def test_held_out_sentences_are_of_other_forms():
    held_out = r"imagine|please render|we watch| / |;|\("
    assert all(re.search(held_out, prompt, re.IGNORECASE) for prompt in prompts(BEACH, *ATTRIBUTES, held_out=True))
    assert not any(re.search(held_out, prompt, re.IGNORECASE) for prompt in prompts(BEACH, *ATTRIBUTES))


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_a_prompt_names_what_is_asked_and_nothing_else(name, held_out):
    names = {"action", "speed"} if name == "speed" else {name}
    for prompt in prompts(BEACH, *names, held_out=held_out):
        for other in ATTRIBUTES:
            wordings = WORDINGS[getattr(BEACH, other)]
            named = any(says(prompt, phrase) for phrase in (wordings.held_out if held_out else wordings.known))
            assert named == (other in names), (prompt, other)


@given(scene=SCENES, request=REQUESTS, seed=st.integers(0, 2**32 - 1), held_out=st.booleans())
def test_prompts_are_tidy(scene, request, seed, held_out):
    prompt = write_prompt(scene, request, np.random.default_rng(seed), held_out=held_out)
    assert prompt == prompt.strip()
    assert not re.search(r"  |^[^\w]|,,|\.\.| ,| \.|[{}]|, ?$|\ba [aeio]\w|\ban [^aeiou]", prompt), prompt


def test_an_empty_request_gives_an_empty_prompt():
    assert prompts(BEACH) == prompts(replace(BEACH, shape=Shape.STAR, camera=Camera.STILL))
    assert not prompts(BEACH) & prompts(BEACH, held_out=True)


def test_one_thing_is_singular_and_many_are_plural():
    one = prompts(replace(BEACH, count=Count.ONE), "count", "shape")
    assert not any(re.search("circles|discs|balls", prompt) for prompt in one)
    assert all(re.search("circles|discs|balls", prompt) for prompt in prompts(BEACH, "count", "shape"))


def test_without_a_number_any_is_right():
    assert all(re.search("(?i)one or more|one or several|any number", prompt) for prompt in prompts(BEACH, "shape"))


def test_nobody_asks_for_the_night_sky_in_daylight():
    night = replace(BEACH, setting=Setting.NIGHT_SKY, light=Light.DAY)
    for held_out in (False, True):
        assert not any(
            "daylight" in prompt for prompt in prompts(night, "shape", "setting", "light", held_out=held_out)
        )
    assert any("daylight" in prompt for prompt in prompts(replace(BEACH, light=Light.DAY), "shape", "light"))


def test_a_speed_is_named_only_for_what_moves():
    still = replace(BEACH, action=Action.STILL)
    words = [*WORDINGS[Speed.FAST].known, *WORDINGS[Speed.SLOW].known]
    for scene, named in ((still, False), (BEACH, True)):
        for prompt in prompts(scene, "shape", "action", "speed"):
            assert any(says(prompt, word) for word in words) == named


def test_articles_and_plurals():
    assert with_article("orange star") == "an orange star"
    assert with_article("red star") == "a red star"
    assert [plural(noun) for noun in ("cross", "box", "star")] == ["crosses", "boxes", "stars"]
