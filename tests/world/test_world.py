"""The drawn world tells the truth: what the pixels show is what the scene says, and the texts follow from both."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descore.errors import ConfigError
from descore.rubric import overall_of, read_answer
from descore.types import DIMENSIONS, Verdict
from descore.world.drawing import FPS, PALETTE, drawn_clip, render
from descore.world.scenes import (
    ATTRIBUTES,
    KINDS,
    Camera,
    Colour,
    Motion,
    Request,
    Scene,
    Setting,
    Shape,
    Style,
    change,
    nudge,
    random_request,
    random_scene,
    vary,
)
from descore.world.telling import (
    TEST_SEED,
    TRAIN_SEED,
    corpus,
    example,
    pair,
    prefer,
    true_chain,
    true_marks,
    true_verdict,
    write_prompt,
)

SCENES = st.builds(Scene, **{name: st.sampled_from(list(kind)) for name, kind in KINDS.items()})
REQUESTS = st.builds(Request, **{name: st.booleans() for name in ATTRIBUTES}).filter(lambda r: r.shape or r.colour)
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([(64, 64), (48, 80), (96, 40), (33, 57)])
FEW = settings(max_examples=40, deadline=None)

RED_CIRCLE = Scene(
    shape=Shape.CIRCLE,
    colour=Colour.RED,
    motion=Motion.LEFT,
    camera=Camera.STILL,
    setting=Setting.MEADOW,
    style=Style.FILLED,
)
EVERYTHING = Request(shape=True, colour=True, motion=True, camera=True, setting=True, style=True)


def draw(scene: Scene, seed: int = 0, **options: int) -> np.ndarray:
    return render(scene, rng=np.random.default_rng(seed), **options)


def difference(scene: Scene, seed: int, **options: int) -> np.ndarray:
    """(T, H, W): where the same clip in another colour has other pixels, and how much. That is the shape."""
    other = Colour.BLUE if scene.colour is not Colour.BLUE else Colour.YELLOW
    frames = draw(scene, seed, **options).astype(int)
    return np.abs(frames - draw(replace(scene, colour=other), seed, **options)).sum(axis=-1)


def centre(weight_HW: np.ndarray) -> np.ndarray:
    """Centre of mass as (x, y) in pixels."""
    rows, columns = np.indices(weight_HW.shape)
    return np.array([(columns * weight_HW).sum(), (rows * weight_HW).sum()]) / weight_HW.sum()


def extent(weight_HW: np.ndarray) -> float:
    """Half the circumference of the bounding box, in pixels, where the shape covers at least half a pixel."""
    rows, columns = np.nonzero(weight_HW > weight_HW.max() / 2)
    return float(np.ptp(rows) + np.ptp(columns) + 2)


@given(scene=SCENES, seed=SEEDS)
@FEW
def test_equal_seeds_draw_equal_pixels(scene, seed):
    assert np.array_equal(draw(scene, seed), draw(scene, seed))


def test_other_seeds_draw_other_pixels():
    assert not np.array_equal(draw(RED_CIRCLE, 0), draw(RED_CIRCLE, 1))


@given(scene=SCENES, seed=SEEDS, size=SIZES, frames=st.integers(1, 12))
@FEW
def test_any_size_and_length_keeps_the_shape_inside(scene, seed, size, frames):
    height, width = size
    """The edge of a shape that lies within the outermost pixels may tint them, but a cut shape would fill them."""
    shape_THW = difference(scene, seed, height=height, width=width, frames=frames)
    assert shape_THW.shape == (frames, height, width)
    border_THW = shape_THW.copy()
    border_THW[:, 1:-1, 1:-1] = 0
    assert (border_THW.max(axis=(1, 2)) < 0.7 * shape_THW.max(axis=(1, 2))).all()


@given(scene=SCENES, seed=SEEDS)
@FEW
def test_the_shape_has_its_colour(scene, seed):
    """Brightness scales a colour as a whole, so colours are compared by their shares of the brightest channel."""
    frames, shape_THW = draw(scene, seed), difference(scene, seed)
    seen_C = np.median(frames[shape_THW > 0.9 * shape_THW.max()], axis=0)
    palette_NC = np.array([PALETTE[colour] for colour in Colour], float)
    gaps_N = np.abs(palette_NC / palette_NC.max(1, keepdims=True) - seen_C / seen_C.max()).sum(1)
    assert list(Colour)[int(gaps_N.argmin())] is scene.colour


@given(scene=SCENES, seed=SEEDS)
@FEW
def test_the_shape_moves_as_told(scene, seed):
    """A motion crosses more than a quarter of the picture. A zoom may push a thing aside, but not by a sixth of it."""
    shape_THW = difference(scene, seed)
    shift = (centre(shape_THW[-1]) - centre(shape_THW[0])) / 64
    step = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}[scene.motion.value]
    for moved, told in zip(shift, step, strict=True):
        assert moved * told > 0.25 if told else abs(moved) < 1 / 6


@given(scene=SCENES, seed=SEEDS)
@FEW
def test_everything_but_the_shape_stays_unless_the_camera_zooms(scene, seed):
    """An edge that covers a hundredth of a pixel shows in one colour and not in the other: two levels are allowed."""
    frames, shape_THW = draw(scene, seed), difference(scene, seed)
    backdrop_HW = ~shape_THW.any(axis=0)
    stays = (np.abs(frames.astype(int) - frames[:1]) <= 2).all(axis=(0, 3))
    assert stays[backdrop_HW].all() == (scene.camera is Camera.STILL)
    if scene.camera is Camera.STILL and scene.motion is Motion.STILL:
        assert (frames == frames[:1]).all()


@given(scene=SCENES, seed=SEEDS)
@FEW
def test_a_zoom_changes_the_size_and_a_motion_does_not(scene, seed):
    """The zoom is by 1.6 from the first frame to the last; whole pixels blur it."""
    shape_THW = difference(scene, seed)
    growth = extent(shape_THW[-1]) / extent(shape_THW[0])
    told = {Camera.STILL: 1, Camera.ZOOM_IN: 1.6, Camera.ZOOM_OUT: 1 / 1.6}[scene.camera]
    assert growth == pytest.approx(told, rel=0.2)


@given(scene=SCENES, seed=SEEDS)
@FEW
def test_outlines_are_hollow(scene, seed):
    shape_HW = difference(scene, seed)[0]
    x, y = np.rint(centre(shape_HW)).astype(int)
    filled = shape_HW[y, x] > shape_HW.max() / 2
    assert filled == (scene.style is Style.FILLED)


@pytest.mark.parametrize("shape", list(Shape))
def test_shapes_cover_the_share_of_their_bounding_box_that_geometry_says(shape):
    """A disc pi/4, a square all, a triangle half; a star of notch radius 0.46: 5 * 0.46 * sin 36 degrees in a box of
    1.902 by 1.809. Edge pixels count by half, so three in a hundred are allowed for them."""
    share = {
        Shape.CIRCLE: np.pi / 4,
        Shape.SQUARE: 1,
        Shape.TRIANGLE: 1 / 2,
        Shape.STAR: 5 * 0.46 * np.sin(np.pi / 5) / (1.902 * 1.809),
    }[shape]
    scene = replace(RED_CIRCLE, shape=shape, motion=Motion.STILL)
    inside = difference(scene, 0, height=400, width=400, frames=1)[0]
    inside = inside > inside.max() / 2
    box = np.ptp(np.nonzero(inside.any(1))) + 1, np.ptp(np.nonzero(inside.any(0))) + 1
    assert inside.sum() / (box[0] * box[1]) == pytest.approx(share, abs=0.03)


def test_a_clip_tells_its_times():
    clip = drawn_clip(RED_CIRCLE, rng=np.random.default_rng(0), frames=6, height=32, width=48)
    assert clip.size == clip.source_size == (48, 32)
    assert clip.times == (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    assert (clip.source, clip.source_fps, clip.source_frames, clip.duration) == ("<drawn>", FPS, 6, 1.5)


@pytest.mark.parametrize("options", [{"frames": 0}, {"height": 15}, {"width": 8}])
def test_what_cannot_be_drawn_is_refused(options):
    with pytest.raises(ConfigError, match="expected at least 1 frame of 16x16"):
        draw(RED_CIRCLE, **options)


def differing(one: Scene, other: Scene) -> set[str]:
    return {name for name in ATTRIBUTES if getattr(one, name) is not getattr(other, name)}


@given(asked=SCENES, seed=SEEDS, name=st.sampled_from(ATTRIBUTES))
def test_scenes_differ_by_what_they_are_told_to(asked, seed, name):
    rng = np.random.default_rng(seed)
    assert vary(asked, rng, p=0) == asked
    assert differing(asked, vary(asked, rng, p=1)) == set(ATTRIBUTES)
    wrong = change(asked, name, rng)
    assert differing(asked, wrong) == {name}
    assert nudge(wrong, asked=asked, name=name, rng=rng) == asked
    assert differing(asked, nudge(asked, asked=asked, name=name, rng=rng)) == {name}


def test_scenes_requests_and_variations_have_the_stated_shares():
    """4,000 draws: a share of p has a standard error below 0.008; four of them are allowed."""
    rng, n = np.random.default_rng(0), 4000
    scenes, requests = [random_scene(rng) for _ in range(n)], [random_request(rng) for _ in range(n)]
    for name, kind in KINDS.items():
        counts = Counter(getattr(scene, name) for scene in scenes)
        assert [counts[value] / n for value in kind] == pytest.approx([1 / len(kind)] * len(kind), abs=0.032)
    asked = {name: sum(getattr(r, name) for r in requests) / n for name in ATTRIBUTES}
    stated = {"shape": 0.85, "colour": 0.85, "motion": 0.85, "camera": 0.5, "setting": 0.5, "style": 0.5}
    assert asked == pytest.approx(stated, abs=0.032)
    assert all(r.shape or r.colour for r in requests)
    changed = Counter(name for scene in scenes for name in differing(scene, vary(scene, rng, p=0.3)))
    assert {name: changed[name] / n for name in ATTRIBUTES} == pytest.approx(dict.fromkeys(ATTRIBUTES, 0.3), abs=0.032)


@pytest.mark.parametrize(
    ("shown", "unasked", "marks", "overall"),
    [
        ({}, (), (2, 2, 2, 2, 2), 5.0),
        ({"shape": Shape.STAR}, (), (1, 2, 2, 2, 2), 1 + 2 * (2 * 1 + 2 * 2 + 6) / 7),
        ({"shape": Shape.STAR, "colour": Colour.BLUE}, (), (0, 2, 2, 2, 2), 1 + 2 * (0 + 2 * 2 + 6) / 7),
        ({"shape": Shape.STAR}, ("shape",), (2, 2, 2, 2, 2), 5.0),
        ({"shape": Shape.STAR}, ("colour",), (0, 2, 2, 2, 2), 1 + 2 * (0 + 2 * 2 + 6) / 7),
        ({"motion": Motion.UP}, (), (2, 1, 2, 2, 2), 1 + 2 * (2 * 2 + 2 * 1 + 6) / 7),
        ({"motion": Motion.STILL}, (), (2, 0, 2, 2, 2), 1 + 2 * (2 * 2 + 0 + 6) / 7),
        ({"motion": Motion.STILL}, ("motion",), (2, None, 2, 2, 2), 5.0),
        ({"camera": Camera.ZOOM_IN}, (), (2, 2, 0, 2, 2), 1 + 2 * (4 + 4 + 0 + 2 + 2) / 7),
        ({"camera": Camera.ZOOM_IN}, ("camera",), (2, 2, None, 2, 2), 5.0),
        ({"setting": Setting.SEA}, ("style",), (2, 2, 2, 0, None), 1 + 2 * (4 + 4 + 2 + 0) / 6),
        ({"style": Style.OUTLINED}, ("motion", "camera", "setting"), (2, None, None, None, 0), 1 + 2 * 4 / 3),
    ],
)
def test_marks_by_hand(shown, unasked, marks, overall):
    """Weights: subject and dynamics 2 each, the others 1; the mean mark m makes an overall of 1 + 2 m."""
    request = replace(EVERYTHING, **dict.fromkeys(unasked, False))
    verdict = true_verdict(RED_CIRCLE, replace(RED_CIRCLE, **shown), request)
    assert tuple(verdict.marks[name] for name in DIMENSIONS) == marks
    assert verdict.overall == round(overall, 2)


def test_still_asked_and_moving_shown_is_wrong():
    asked = replace(RED_CIRCLE, motion=Motion.STILL)
    assert true_marks(asked, RED_CIRCLE, EVERYTHING)["dynamics"] == 0


@given(asked=SCENES, shown=SCENES, request_=REQUESTS)
def test_chains_parse_back_to_the_truth(asked, shown, request_):
    marks = true_marks(asked, shown, request_)
    told = read_answer(true_chain(asked, shown, request_))
    assert told == true_verdict(asked, shown, request_) == Verdict(marks=marks, overall=overall_of(marks))


@given(asked=SCENES, other=SCENES, shown=SCENES, request_=REQUESTS)
def test_chains_say_what_is_seen_before_a_word_of_what_was_asked(asked, other, shown, request_):
    first, *lines, answer = true_chain(asked, shown, request_).splitlines()
    assert first == true_chain(other, shown, EVERYTHING).splitlines()[0]
    for said in (shown.colour, shown.shape, shown.style, shown.motion, shown.setting):
        assert said.value in first
    assert [line.split(":")[0].lower() for line in lines] == list(DIMENSIONS)
    assert answer.startswith("<answer>")


@given(asked=SCENES, shown=SCENES, request_=REQUESTS)
def test_each_line_ends_with_its_mark(asked, shown, request_):
    marks = true_marks(asked, shown, request_)
    words = {2: "right, 2.", 1: "partly right, 1.", 0: "wrong, 0.", None: "not asked, N/A."}
    for name, line in zip(DIMENSIONS, true_chain(asked, shown, request_).splitlines()[1:-1], strict=True):
        assert line.endswith(f": {words[marks[name]]}")


def test_the_texts_that_the_bundled_model_learned():
    """A change here is a change of what the model reads and writes: it must be grown again."""
    shown = replace(RED_CIRCLE, shape=Shape.SQUARE, camera=Camera.ZOOM_OUT, motion=Motion.UP)
    assert true_chain(RED_CIRCLE, shown, replace(EVERYTHING, style=False)).splitlines() == [
        "I see a red square, filled, on a meadow. It moves up. The camera zooms out.",
        "Subject: asked red circle, shown red square: partly right, 1.",
        "Dynamics: asked left, shown up: partly right, 1.",
        "Camera: asked still, shown zoom out: wrong, 0.",
        "Environment: asked meadow, shown meadow: right, 2.",
        "Style: not asked, N/A.",
        '<answer>{"dimensional_scores": {"subject": 1, "dynamics": 1, "camera": 0, "environment": 2, "style": "N/A"}, '
        '"overall_score": 3.00}</answer>',
    ]


@given(asked=SCENES, request_=REQUESTS, seed=SEEDS)
def test_prompts_name_what_is_requested_and_nothing_else(asked, request_, seed):
    """Seen by changing an attribute: the prompt of the same generator state changes if and only if it is asked."""
    prompt = write_prompt(asked, request_, np.random.default_rng(seed))
    for name in ATTRIBUTES:
        other = change(asked, name, np.random.default_rng(seed))
        differs = write_prompt(other, request_, np.random.default_rng(seed)) != prompt
        assert differs == getattr(request_, name)
    assert len(prompt.split()) <= 24


def test_examples_are_told_apart_by_seed_and_index_alone():
    one, again = example(TRAIN_SEED, 3), example(TRAIN_SEED, 3)
    assert np.array_equal(one.clip.frames, again.clip.frames)
    assert (one.prompt, one.chain, one.verdict) == (again.prompt, again.chain, again.verdict)
    for other in (example(TRAIN_SEED, 4), example(TEST_SEED, 3)):
        assert other.chain != one.chain
        assert not np.array_equal(other.clip.frames, one.clip.frames)


def test_copying_the_prompt_does_not_decide_the_marks():
    """Each mark that can be is given to at least 15 % of the clips whose prompt asks for it, and none to 70 %."""
    drawn = [example(TRAIN_SEED, index) for index in range(400)]
    for name in DIMENSIONS:
        counts = Counter(e.verdict.marks[name] for e in drawn if e.verdict.marks[name] is not None)
        shares = {mark: count / counts.total() for mark, count in counts.items()}
        assert set(shares) == ({0, 1, 2} if name in ("subject", "dynamics") else {0, 2})
        assert min(shares.values()) > 0.15
        assert max(shares.values()) < 0.7


def test_pairs_share_their_prompt_and_the_better_side_wins():
    pairs = [pair(TRAIN_SEED, index) for index in range(120)]
    for drawn in pairs:
        a, b = drawn.a, drawn.b
        assert (a.prompt, a.asked, a.request) == (b.prompt, b.asked, b.request)
        gap = a.verdict.overall - b.verdict.overall
        assert drawn.preference == ("tie" if gap == 0 else "a" if gap > 0 else "b")
    assert set(Counter(drawn.preference for drawn in pairs)) == {"a", "b", "tie"}
    single = sum(len(differing(drawn.a.shown, drawn.b.shown)) == 1 for drawn in pairs) / len(pairs)
    assert 0.4 < single < 0.8


@given(a=st.floats(1, 5), b=st.floats(1, 5))
def test_preference_is_antisymmetric(a, b):
    mirror = {"a": "b", "b": "a", "tie": "tie"}
    one, other = Verdict(marks={}, overall=a), Verdict(marks={}, overall=b)
    assert prefer(one, other) == mirror[prefer(other, one)]
    assert prefer(one, one) == "tie"


def test_the_corpus_is_prompts_and_chains_in_turn():
    texts = list(corpus(TRAIN_SEED, 50))
    assert len(texts) == 100
    assert texts == list(corpus(TRAIN_SEED, 50))
    assert all(read_answer(chain) for chain in texts[1::2])
    assert not any("<answer>" in prompt for prompt in texts[::2])
