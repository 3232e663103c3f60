"""Numbered examples and pairs of drawn clips, in splits that share none of them.

Each is a function of its split and number alone, planned or drawn. Training, calibration and the in-domain test differ
in their seeds only. Each of the three out-of-domain splits differs from them in one respect: combinations, wordings, or
generators that training never has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, Generic, TypeVar

import numpy as np

from descore.synthetic.degradations import degrade
from descore.synthetic.generators import (
    HELD_OUT_GENERATORS,
    TRAINING_GENERATORS,
    Flaws,
    Generator,
    flaws_of,
    generate,
    is_plain,
    likely_flaw,
    random_generator,
)
from descore.synthetic.prompts import write_prompt
from descore.synthetic.rendering import DRAWN_FPS, DRAWN_FRAMES, drawn_clip
from descore.synthetic.scene import (
    ATTRIBUTES,
    HELD_OUT_LOOKS,
    RequestedAttributes,
    Scene,
    Style,
    change,
    held_out_scene,
    is_held_out,
    random_request,
    random_scene,
    tidy,
    vary,
    with_value,
)
from descore.synthetic.truth import true_chain, true_preference, true_verdict
from descore.types import Clip, Preference, Verdict


class Split(Enum):
    """The purpose of an example."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    """For a reward's mean and deviation."""
    IN_DOMAIN = "in_domain"
    COMBINATIONS = "combinations"
    """Every prompt asks for a combination that training neither asks for nor shows."""
    WORDINGS = "wordings"
    """Every prompt has words and sentence forms that no training prompt has."""
    GENERATORS = "generators"
    """Every clip is by a generator that training never shows."""


_WORLD = 4201
_NUMBERS = {
    Split.TRAIN: 1,
    Split.CALIBRATION: 2,
    Split.IN_DOMAIN: 3,
    Split.COMBINATIONS: 4,
    Split.WORDINGS: 5,
    Split.GENERATORS: 6,
}
_EXAMPLE, _PAIR, _NOISE = 1, 2, 3
_FLIPPED: dict[Preference, Preference] = {"a": "b", "b": "a", "tie": "tie"}
_UNINFORMED_EVERY = 8  # of the corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A clip that is not drawn yet, with its prompt, its true chain and its true verdict."""

    prompt: str
    chain: str
    """The chain of a judge who sees everything."""
    verdict: Verdict
    asked: Scene
    shown: Scene
    request: RequestedAttributes
    flaws: Flaws
    generator: str
    seed: tuple[int, ...]
    """Seed for what the scene and the flaws leave open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Plan):
    """A drawn clip with its prompt, its true chain and its true verdict."""

    clip: Clip


AnyExample = TypeVar("AnyExample")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplePair(Generic[AnyExample]):
    """Two clips of one prompt: plans, drawn examples, or examples of another kind."""

    a: AnyExample
    b: AnyExample
    preference: Preference
    """The clip with the better true overall, unless label noise flipped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """What a prompt asks for."""

    scene: Scene
    request: RequestedAttributes
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Take:
    """What a generator shows for it."""

    scene: Scene
    flaws: Flaws
    generator: Generator


def plan_example(
    split: Split,
    index: int,
    *,
    variety: float = 1.0,
    p_differs: float | None = None,
    informed: bool = True,
    loose: bool = False,
) -> Plan:
    """Plan example number `index` of a split.

    variety: as in `random_scene`; held-out combinations always have the full one. p_differs: probability that a shown
    attribute differs from the asked one, instead of the generator's own rates. informed: False gives a prompt that asks
    for nothing. loose: as in `write_prompt`."""
    rng = _rng(split, _EXAMPLE, index)
    ask = _random_ask(split, rng, variety=variety, informed=informed, loose=loose)
    take = _random_take(split, ask, rng, p_differs)
    return _plan(ask, take, seed=(_WORLD, _NUMBERS[split], _EXAMPLE, index, 0))


def plan_pair(
    split: Split, index: int, *, label_noise: float = 0.0, hard: float = 0.5, loose: bool = False
) -> ExamplePair[Plan]:
    """Plan pair number `index` of a split.

    hard: share of pairs whose clips are by one generator and differ in one asked attribute or one flaw only.
    label_noise: probability that a decided preference is flipped; nothing else changes. loose: as in `write_prompt`."""
    rng = _rng(split, _PAIR, index)
    ask = _random_ask(split, rng, loose=loose)
    first = _random_take(split, ask, rng)
    second = _similar_take(split, ask, first, rng) if rng.random() < hard else _random_take(split, ask, rng)
    takes = (first, second) if rng.random() < 0.5 else (second, first)  # a changed take is more often the worse one
    a, b = (_plan(ask, take, seed=(_WORLD, _NUMBERS[split], _PAIR, index, side)) for side, take in enumerate(takes))
    preference = true_preference(a.verdict, b.verdict)
    if _rng(split, _NOISE, index).random() < label_noise:
        preference = _FLIPPED[preference]
    return ExamplePair(a=a, b=b, preference=preference)


def draw_example(
    split: Split,
    index: int,
    *,
    size: tuple[int, int] = (64, 64),
    variety: float = 1.0,
    p_differs: float | None = None,
    informed: bool = True,
    loose: bool = False,
) -> Example:
    """Draw example number `index` of a split. size: width and height in pixels; the rest as in `plan_example`."""
    plan = plan_example(split, index, variety=variety, p_differs=p_differs, informed=informed, loose=loose)
    return draw_plan(plan, size=size)


def draw_pair(
    split: Split,
    index: int,
    *,
    size: tuple[int, int] = (64, 64),
    label_noise: float = 0.0,
    hard: float = 0.5,
    loose: bool = False,
) -> ExamplePair[Example]:
    """Draw pair number `index` of a split. size: width and height in pixels; the rest as in `plan_pair`."""
    pair = plan_pair(split, index, label_noise=label_noise, hard=hard, loose=loose)
    return ExamplePair(a=draw_plan(pair.a, size=size), b=draw_plan(pair.b, size=size), preference=pair.preference)


def draw_plan(
    plan: Plan,
    *,
    size: tuple[int, int] = (64, 64),
    frames: int = DRAWN_FRAMES,
    fps: float = DRAWN_FPS,
    kept: Sequence[int] | None = None,
) -> Example:
    """Draw a planned clip of `frames` frames, `fps` a second. size: width and height in pixels. kept: numbers of the
    frames that are shown; flaws harm these alone, so that they are as visible as they are said to be."""
    rng = np.random.default_rng(plan.seed)
    clip = drawn_clip(plan.shown, rng=rng, frames=frames, fps=fps, width=size[0], height=size[1])
    if kept is not None:
        clip = replace(clip, frames=clip.frames[list(kept)], times=tuple(clip.times[number] for number in kept))
    pixels = clip.frames
    for flaw in plan.flaws:
        pixels = degrade(pixels, flaw.name, strength=flaw.strength, rng=rng)
    values: dict[str, Any] = {field.name: getattr(plan, field.name) for field in fields(plan)}
    return Example(clip=replace(clip, frames=pixels), **values)


def corpus(count: int) -> Iterator[str]:
    """Prompts and chains of `count` training examples, for training a tokenizer."""
    for index in range(count):
        plan = plan_example(Split.TRAIN, index, informed=index % _UNINFORMED_EVERY > 0)
        yield plan.prompt
        yield plan.chain


def _rng(split: Split, use: int, index: int) -> np.random.Generator:
    return np.random.default_rng((_WORLD, _NUMBERS[split], use, index))


def _random_ask(
    split: Split, rng: np.random.Generator, *, variety: float = 1.0, informed: bool = True, loose: bool = False
) -> _Ask:
    held_out = split is Split.COMBINATIONS
    scene = held_out_scene(rng) if held_out else random_scene(rng, variety=variety)
    request = random_request(scene, rng) | (_held_out_attributes(scene) if held_out else frozenset())
    if "colour" in request and scene.style is Style.GREY:
        scene = change(scene, "style", rng)  # a prompt that names a colour does not ask for greyscale
    request = request if informed else frozenset()
    prompt = write_prompt(scene, request, rng, held_out=split is Split.WORDINGS, loose=loose)
    return _Ask(scene=scene, request=request, prompt=prompt)


def _held_out_attributes(scene: Scene) -> RequestedAttributes:
    """The attributes of the scene's held-out combination, both of which its prompt has to name."""
    looks = (scene.shape, scene.colour) in HELD_OUT_LOOKS
    return frozenset(("shape", "colour") if looks else ("action", "camera"))


def _random_take(split: Split, ask: _Ask, rng: np.random.Generator, p_differs: float | None = None) -> _Take:
    generators = HELD_OUT_GENERATORS if split is Split.GENERATORS else TRAINING_GENERATORS
    generator = random_generator(generators, rng)
    held_out = split is Split.COMBINATIONS
    if p_differs is None:
        scene, flaws = generate(ask.scene, generator, rng, held_out=held_out)
    else:
        scene = vary(ask.scene, rng, p=p_differs, held_out=held_out)
        flaws = flaws_of(generator, scene, rng)
    return _Take(scene=scene, flaws=flaws, generator=generator)


def _similar_take(split: Split, ask: _Ask, take: _Take, rng: np.random.Generator) -> _Take:
    """Another take that visibly differs in one asked attribute or in one flaw."""
    options = [*sorted(ask.request), "picture", "motion"]
    while True:
        name = options[int(rng.integers(len(options)))]
        other = _flip_attribute(ask, take, name, rng) if name in ATTRIBUTES else _flip_flaw(take, name, rng)
        if _differences(take, other) == 1 and (split is Split.COMBINATIONS or not is_held_out(other.scene)):
            return other


def _flip_attribute(ask: _Ask, take: _Take, name: str, rng: np.random.Generator) -> _Take:
    """Set an attribute right if it was wrong, and wrong if it was right. Flaws that this hides are removed."""
    asked = getattr(ask.scene, name)
    right = getattr(take.scene, name) is asked
    scene = tidy(change(take.scene, name, rng) if right else with_value(take.scene, name, asked))
    return replace(take, scene=scene, flaws=tuple(flaw for flaw in take.flaws if is_plain(flaw, scene)))


def _flip_flaw(take: _Take, harms: str, rng: np.random.Generator) -> _Take:
    """Remove the flaw of this kind, or add one if there was none and the scene can show it."""
    flaws = [flaw for flaw in take.flaws if flaw.harms != harms]
    if len(flaws) == len(take.flaws):
        names = take.generator.picture if harms == "picture" else take.generator.motion
        flaw = likely_flaw(names, rng, strong=take.generator.strong)
        flaws += [flaw] if is_plain(flaw, take.scene) else []
    return replace(take, flaws=tuple(sorted(flaws, key=lambda flaw: flaw.harms != "picture")))


def _differences(one: _Take, other: _Take) -> int:
    """How many attributes and flaws differ visibly: what stands still has no speed, what is grey has no colour."""
    names = [name for name in ATTRIBUTES if getattr(one.scene, name) is not getattr(other.scene, name)]
    if "action" in names and "speed" in names:
        names.remove("speed")
    if "colour" in names and one.scene.style is Style.GREY:
        names.remove("colour")
    return len(names) + len(set(one.flaws) ^ set(other.flaws))


def _plan(ask: _Ask, take: _Take, *, seed: tuple[int, ...]) -> Plan:
    truth = (ask.scene, take.scene, ask.request, take.flaws)
    return Plan(
        prompt=ask.prompt,
        chain=true_chain(*truth),
        verdict=true_verdict(*truth),
        asked=ask.scene,
        shown=take.scene,
        request=ask.request,
        flaws=take.flaws,
        generator=take.generator.name,
        seed=seed,
    )
