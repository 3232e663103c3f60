"""Words and truth for drawn clips: prompts, marks, chains, and seeded examples and pairs.

In: scenes, requests, a random generator. Out: texts, marks, and records with everything that is known of a clip.
Knows nothing of tokens or models."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from descore.rubric import overall_of, write_answer
from descore.types import DIMENSIONS, Clip, Mark, Preference, Verdict
from descore.world.drawing import drawn_clip
from descore.world.scenes import (
    DIFFERS,
    Camera,
    Motion,
    Request,
    Scene,
    Setting,
    Style,
    nudge,
    random_request,
    random_scene,
    vary,
)

TRAIN_SEED = 1_000
TEST_SEED = 9_000
"""Namespaces of seeds: what is drawn from one is never drawn from the other."""

_PLACE = {
    Setting.NIGHT_SKY: "in the night sky",
    Setting.MEADOW: "on a meadow",
    Setting.BEACH: "on a beach",
    Setting.SEA: "on the sea",
    Setting.BRICK_WALL: "in front of a brick wall",
}
_ASKED_MOTION = {
    Motion.LEFT: ("moving to the left", "gliding left", "drifting to the left"),
    Motion.RIGHT: ("moving to the right", "gliding right", "drifting to the right"),
    Motion.UP: ("moving up", "rising", "drifting upwards"),
    Motion.DOWN: ("moving down", "sinking", "drifting downwards"),
    Motion.STILL: ("standing still", "not moving", "at rest"),
}
_SEEN_MOTION = {
    Motion.LEFT: "moves left",
    Motion.RIGHT: "moves right",
    Motion.UP: "moves up",
    Motion.DOWN: "moves down",
    Motion.STILL: "stays still",
}
_ASKED_CAMERA = {
    Camera.STILL: ("the camera is still", "a fixed camera", "static shot"),
    Camera.ZOOM_IN: ("the camera zooms in", "slow zoom in", "closing in"),
    Camera.ZOOM_OUT: ("the camera zooms out", "slow zoom out", "pulling back"),
}
_SEEN_CAMERA = {Camera.STILL: "is still", Camera.ZOOM_IN: "zooms in", Camera.ZOOM_OUT: "zooms out"}
_ASKED_STYLE = {Style.FILLED: ("solid", "filled"), Style.OUTLINED: ("outlined", "hollow")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A drawn clip and all that is true of it."""

    clip: Clip
    prompt: str
    chain: str
    """What a judge who sees everything writes."""
    verdict: Verdict
    asked: Scene
    shown: Scene
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class PairExample:
    """Two clips drawn for one prompt, and which of them fits it better."""

    a: Example
    b: Example
    preference: Preference


def example(seed: int, index: int, *, p_differs: float = DIFFERS) -> Example:
    """Example number `index` of a split: each attribute shown differs from the asked one with probability p_differs."""
    rng = np.random.default_rng([seed, index])
    asked, request = random_scene(rng), random_request(rng)
    return tell(asked, vary(asked, rng, p=p_differs), request, write_prompt(asked, request, rng), rng=rng)


def pair(seed: int, index: int, *, p_differs: float = 0.4) -> PairExample:
    """Pair number `index` of a split. Every second one is hard: its clips differ in a single asked attribute."""
    rng = np.random.default_rng([seed, index])
    asked, request = random_scene(rng), random_request(rng)
    prompt = write_prompt(asked, request, rng)
    shown_a = vary(asked, rng, p=p_differs)
    if rng.random() < 0.5:
        name = request.names[int(rng.integers(len(request.names)))]
        shown_b = nudge(shown_a, asked=asked, name=name, rng=rng)
    else:
        shown_b = vary(asked, rng, p=p_differs)
    if rng.random() < 0.5:  # what is varied from a is more often the worse one
        shown_a, shown_b = shown_b, shown_a
    a, b = (tell(asked, shown, request, prompt, rng=rng) for shown in (shown_a, shown_b))
    return PairExample(a=a, b=b, preference=prefer(a.verdict, b.verdict))


def tell(asked: Scene, shown: Scene, request: Request, prompt: str, *, rng: np.random.Generator) -> Example:
    """Draw the shown scene, and write down the truth about it."""
    verdict = true_verdict(asked, shown, request)
    return Example(
        clip=drawn_clip(shown, rng=rng),
        prompt=prompt,
        chain=true_chain(asked, shown, request),
        verdict=verdict,
        asked=asked,
        shown=shown,
        request=request,
    )


def prefer(a: Verdict, b: Verdict) -> Preference:
    """The better overall."""
    if a.overall == b.overall:
        return "tie"
    return "a" if a.overall > b.overall else "b"


def write_prompt(scene: Scene, request: Request, rng: np.random.Generator) -> str:
    """What a user may write who asks for this much of the scene."""

    def one_of(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    look = [one_of(_ASKED_STYLE[scene.style])] if request.style else []
    colour = [scene.colour.value] if request.colour else []
    thing = " ".join([*look, *colour, scene.shape.value if request.shape else "shape"])
    parts = [_with_article(thing) if rng.random() < 0.7 else f"one {thing}"]
    doing = [one_of(_ASKED_MOTION[scene.motion])] if request.motion else []
    place = [_PLACE[scene.setting]] if request.setting else []
    parts += doing + place if rng.random() < 0.5 else place + doing
    sentence = " ".join(parts)
    if not request.camera:
        return sentence
    camera = one_of(_ASKED_CAMERA[scene.camera])
    return f"{sentence}, {camera}" if rng.random() < 0.7 else f"{camera}: {sentence}"


def true_verdict(asked: Scene, shown: Scene, request: Request) -> Verdict:
    """The true marks, and the overall that follows from them."""
    marks = true_marks(asked, shown, request)
    return Verdict(marks=marks, overall=overall_of(marks))


def true_marks(asked: Scene, shown: Scene, request: Request) -> dict[str, Mark]:
    """Subject: 2 if all asked of shape and colour is right, 1 if one of two. Dynamics: 1 for a motion elsewhere than
    asked, 0 if one stands still and the other moves. The others: 2 or 0. None where the prompt asks nothing."""
    right = [getattr(asked, n) is getattr(shown, n) for n in ("shape", "colour") if getattr(request, n)]
    subject: Mark = 2 if all(right) else 1 if any(right) else 0
    dynamics: Mark = 2 if asked.motion is shown.motion else 0 if Motion.STILL in (asked.motion, shown.motion) else 1
    marks: tuple[Mark, ...] = (
        subject,
        dynamics if request.motion else None,
        (2 if asked.camera is shown.camera else 0) if request.camera else None,
        (2 if asked.setting is shown.setting else 0) if request.setting else None,
        (2 if asked.style is shown.style else 0) if request.style else None,
    )
    return dict(zip(DIMENSIONS, marks, strict=True))


def true_chain(asked: Scene, shown: Scene, request: Request) -> str:
    """First what is to be seen, before a word of what was asked; then each dimension; then the answer."""
    marks = true_marks(asked, shown, request)
    seen = (
        f"I see {_with_article(shown.colour.value)} {shown.shape.value}, {shown.style.value}, "
        f"{_PLACE[shown.setting]}. It {_SEEN_MOTION[shown.motion]}. The camera {_SEEN_CAMERA[shown.camera]}."
    )
    wanted, got = (
        " ".join(getattr(scene, name).value for name in ("colour", "shape") if getattr(request, name))
        for scene in (asked, shown)
    )
    compared = {
        "subject": (wanted, got),
        "dynamics": (asked.motion.value, shown.motion.value),
        "camera": (asked.camera.value, shown.camera.value),
        "environment": (asked.setting.value, shown.setting.value),
        "style": (asked.style.value, shown.style.value),
    }
    lines = [_line(name, *compared[name], marks[name]) for name in DIMENSIONS]
    return "\n".join([seen, *lines, write_answer(true_verdict(asked, shown, request))])


_IN_WORDS = {2: "right", 1: "partly right", 0: "wrong"}


def _line(name: str, wanted: str, got: str, mark: Mark) -> str:
    if mark is None:
        return f"{name.capitalize()}: not asked, N/A."
    return f"{name.capitalize()}: asked {wanted}, shown {got}: {_IN_WORDS[mark]}, {mark}."


def _with_article(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def corpus(seed: int, count: int) -> Iterator[str]:
    """Prompts and chains of `count` scenes, without drawing them: to train a tokenizer on."""
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        asked, request = random_scene(rng), random_request(rng)
        yield write_prompt(asked, request, rng)
        yield true_chain(asked, vary(asked, rng), request)
