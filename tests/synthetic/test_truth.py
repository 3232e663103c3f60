"""Marks, chains and preferences say what is so of the asked and the shown scene."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descore.rubric import read_answer
from descore.synthetic.generators import Flaw
from descore.synthetic.scene import (
    ATTRIBUTES,
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
)
from descore.synthetic.truth import description, true_chain, true_marks, true_preference, true_verdict
from descore.types import DIMENSIONS

SCENES = st.builds(Scene, **{name: st.sampled_from(list(kind)) for name, kind in ATTRIBUTES.items()})
REQUESTS = st.frozensets(st.sampled_from(sorted(ATTRIBUTES)))
STRENGTHS = st.floats(0.01, 1)
FLAWS = st.tuples(
    st.none() | st.builds(Flaw, name=st.sampled_from(["blur", "noise", "compression"]), strength=STRENGTHS),
    st.none() | st.builds(Flaw, name=st.sampled_from(["flicker", "freeze", "jerk"]), strength=STRENGTHS),
).map(lambda both: tuple(flaw for flaw in both if flaw is not None))

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
    style=Style.OUTLINED,
)
BLURRED, A_BIT_BLURRED = Flaw(name="blur", strength=0.8), Flaw(name="blur", strength=0.3)
FROZEN, A_BIT_FROZEN = Flaw(name="freeze", strength=0.7), Flaw(name="freeze", strength=0.3)


def mark(dimension, *names, flaws=(), **shown):
    return true_marks(BEACH, replace(BEACH, **shown), frozenset(names), flaws)[dimension]


@given(scene=SCENES, request=REQUESTS)
def test_what_is_shown_as_asked_is_right_in_all_that_is_asked(scene, request):
    if scene.style is Style.GREY:
        request -= {"colour"}
    assert {mark for mark in true_marks(scene, scene, request).values() if mark is not None} == {2}
    assert true_verdict(scene, scene, request).overall == 5.0


@given(asked=SCENES, shown=SCENES, request=REQUESTS, flaws=FLAWS)
def test_what_is_not_asked_does_not_matter(asked, shown, request, flaws):
    """Marks stay when everything else is set as asked. Only grey is seen unasked, for it hides the colour."""
    changes = {name: getattr(asked, name) for name in ATTRIBUTES if name not in request}
    changes["style"] = shown.style
    assert true_marks(asked, shown, request, flaws) == true_marks(asked, replace(shown, **changes), request, flaws)


@given(asked=SCENES, shown=SCENES, request=REQUESTS, flaws=FLAWS)
def test_the_chain_gives_back_the_verdict(asked, shown, request, flaws):
    chain = true_chain(asked, shown, request, flaws)
    assert read_answer(chain) == true_verdict(asked, shown, request, flaws)


@given(asked=SCENES, shown=SCENES, request=REQUESTS, flaws=FLAWS)
def test_each_line_ends_with_the_mark_of_its_dimension(asked, shown, request, flaws):
    marks = true_marks(asked, shown, request, flaws)
    lines = true_chain(asked, shown, request, flaws).split("\n")
    assert len(lines) == 7
    for name, line in zip(DIMENSIONS, lines[1:6], strict=True):
        assert line.startswith(name.capitalize())
        assert line.endswith("N/A." if marks[name] is None else f", {marks[name]}.")


@given(asked=SCENES, shown=SCENES, request=REQUESTS)
def test_what_is_called_right_reads_the_same_on_both_sides(asked, shown, request):
    """And what is not, does not: the words of a line hold all that its mark rests on."""
    for line in true_chain(asked, shown, request).split("\n")[1:6]:
        if "asked " in line and "not asked" not in line:
            wanted, rest = line.split("asked ", 1)[1].split(", shown ")
            assert (wanted == re.split("[,:]", rest)[0]) == (": right" in line)


@given(asked=SCENES, shown=SCENES, request=REQUESTS)
def test_parts_are_compared_before_the_whole_is_marked(asked, shown, request):
    """Words of the asked phrase in their order; all right is right, none is wrong. One part is not named twice."""
    lines = true_chain(asked, shown, request).split("\n")
    for name, parts in (("Subject", {"count", "size", "colour", "shape"}), ("Environment", {"setting", "light"})):
        [line] = [line for line in lines if line.startswith(name)]
        compared = re.findall(r", ([\w ]+?) (right|wrong)(?=[,:])", line.partition(", shown ")[2])
        if len(parts & request) < 2:
            assert not compared
            continue
        assert line.split("asked ")[1].startswith(" ".join(word for word, _ in compared) + ", shown")
        outcomes = {outcome for _, outcome in compared}
        assert ("partly right" in line) == (outcomes == {"right", "wrong"})
        assert (": wrong, 0" in line) == (outcomes == {"wrong"})


@given(one=SCENES, other=SCENES, flaws=FLAWS)
def test_descriptions_differ_where_scenes_do(one, other, flaws):
    """But for the speed of what does not move, and the colour of what is grey."""

    def seen(scene):
        moves = scene.action in (Action.LEFT, Action.RIGHT, Action.UP, Action.DOWN)
        scene = scene if moves else replace(scene, speed=Speed.SLOW)
        return replace(scene, colour=Colour.RED) if scene.style is Style.GREY else scene

    assert (description(one, flaws) == description(other, flaws)) == (seen(one) == seen(other))


@given(asked=SCENES, shown=SCENES, request=REQUESTS, flaws=FLAWS)
def test_the_description_knows_nothing_of_the_request(asked, shown, request, flaws):
    assert true_chain(asked, shown, request, flaws).split("\n")[0] == description(shown, flaws)


def test_a_chain_in_full():
    shown = replace(BEACH, action=Action.RIGHT, light=Light.DAY)
    request = frozenset({"count", "shape", "action", "setting", "light"})
    assert true_chain(BEACH, shown, request, (A_BIT_BLURRED, FROZEN)) == (
        "I see two small red circles, outlined, on a beach in bright light. They move right fast. The camera pans "
        "left. The picture is slightly blurred. The motion is frozen.\n"
        "Subject: asked two circles, shown two circles, two right, circles right: right, 2.\n"
        "Dynamics: asked move left, shown move right, motion frozen: wrong, 0.\n"
        "Camera: not asked, N/A.\n"
        "Environment: asked beach at dusk, shown beach in bright light, beach right, at dusk wrong: partly right, 1.\n"
        "Style: not asked, picture slightly blurred: partly right, 1.\n"
        '<answer>{"dimensional_scores": {"subject": 2, "dynamics": 0, "camera": "N/A", "environment": 1, "style": 1}, '
        '"overall_score": 3.00}</answer>'
    )


def test_a_chain_of_nothing_asked():
    shown = replace(BEACH, count=Count.ONE, action=Action.VANISH, style=Style.GREY)
    assert true_chain(BEACH, shown, frozenset()) == (
        "I see one small grey circle, without colour, on a beach at dusk. It vanishes. The camera pans left. "
        "The picture is sharp. The motion is smooth.\n"
        "Subject: not asked, N/A.\n"
        "Dynamics: not asked, motion smooth: right, 2.\n"
        "Camera: not asked, N/A.\n"
        "Environment: not asked, N/A.\n"
        "Style: not asked, picture sharp: right, 2.\n"
        '<answer>{"dimensional_scores": {"subject": "N/A", "dynamics": 2, "camera": "N/A", "environment": "N/A", '
        '"style": 2}, "overall_score": 5.00}</answer>'
    )


def test_subject_counts_what_is_asked_of_the_looks():
    looks = ("shape", "colour", "size", "count")
    assert mark("subject", "action") is None
    assert mark("subject", *looks) == 2
    assert mark("subject", *looks, count=Count.ONE) == 1
    assert mark("subject", "count", count=Count.ONE) == 0
    assert mark("subject", "shape", count=Count.ONE) == 2


def test_grey_hides_a_colour():
    assert mark("subject", "colour", style=Style.GREY) == 0
    assert mark("subject", "shape", "colour", style=Style.GREY) == 1
    assert mark("subject", "shape", style=Style.GREY) == 2


@pytest.mark.parametrize(
    ("asked", "shown", "mark"),
    [
        (Action.LEFT, Action.LEFT, 2),
        (Action.LEFT, Action.RIGHT, 1),
        (Action.LEFT, Action.UP, 1),
        (Action.LEFT, Action.STILL, 0),
        (Action.STILL, Action.LEFT, 0),
        (Action.APPEAR, Action.VANISH, 0),
        (Action.DOWN, Action.BOUNCE, 0),
        (Action.BOUNCE, Action.BOUNCE, 2),
    ],
)
def test_dynamics_half_forgives_another_direction(asked, shown, mark):
    scenes = [replace(BEACH, action=action) for action in (asked, shown)]
    assert true_marks(*scenes, frozenset({"action"}))["dynamics"] == mark


def test_dynamics_half_forgives_another_speed():
    assert mark("dynamics", "action", speed=Speed.SLOW) == 2
    assert mark("dynamics", "action", "speed", speed=Speed.SLOW) == 1


def test_flaws_lower_dynamics_and_style_asked_or_not():
    for names in ((), ("action", "style")):
        assert mark("dynamics", *names) == 2
        assert mark("dynamics", *names, flaws=(A_BIT_FROZEN,)) == 1
        assert mark("dynamics", *names, flaws=(FROZEN,)) == 0
        assert mark("style", *names, flaws=(A_BIT_BLURRED, FROZEN)) == 1
        assert mark("style", *names, flaws=(BLURRED,)) == 0
    assert mark("dynamics", "action", action=Action.STILL, flaws=(A_BIT_FROZEN,)) == 0


def test_the_camera_in_the_opposite_direction_is_partly_right():
    assert mark("camera") is None
    assert mark("camera", "camera") == 2
    assert mark("camera", "camera", camera=Camera.PAN_RIGHT) == 1
    assert mark("camera", "camera", camera=Camera.ZOOM_IN) == 0
    assert mark("camera", "camera", camera=Camera.STILL) == 0


def test_environment_is_setting_and_light():
    both = ("setting", "light")
    assert mark("environment", "shape") is None
    assert mark("environment", *both) == 2
    assert mark("environment", *both, light=Light.DAY) == 1
    assert mark("environment", *both, light=Light.DAY, setting=Setting.SEA) == 0
    assert mark("environment", "light", light=Light.DAY) == 0


def test_style_is_right_or_wrong():
    assert mark("style", style=Style.FLAT) == 2
    assert mark("style", "style", style=Style.FLAT) == 0


def test_the_better_overall_is_preferred():
    good, bad = (
        true_verdict(BEACH, replace(BEACH, shape=shape), frozenset({"shape"})) for shape in (Shape.CIRCLE, Shape.STAR)
    )
    assert [true_preference(good, bad), true_preference(bad, good), true_preference(bad, bad)] == ["a", "b", "tie"]
