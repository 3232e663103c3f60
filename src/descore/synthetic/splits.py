"""Numbered examples and pairs of the drawn world, in splits that never meet.

In: a split and a number. Out: what is asked and shown, with everything that is true of it, planned or drawn. Each is a
function of its split and number alone. Knows the world; knows nothing of models or files.

Training, calibration and the in-domain test are alike but for their seeds. Each of the three out-of-domain splits
differs from them in one thing: combinations, wordings, or generators that training never has."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

import numpy as np

from descore.synthetic.degradations import degrade
from descore.synthetic.generators import (
    HELD_OUT_GENERATORS,
    TRAINING_GENERATORS,
    Flaws,
    Generator,
    flaws_of,
    is_plain,
    likely_flaw,
    random_generator,
    shoot,
)
from descore.synthetic.prompts import write_prompt
from descore.synthetic.rendering import FRAMES, drawn_clip
from descore.synthetic.scene import (
    HELD_OUT_LOOKS,
    KINDS,
    Request,
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
from descore.synthetic.truth import prefer, true_chain, true_verdict
from descore.types import Clip, Preference, Verdict


class Split(Enum):
    """What an example is for."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    """For a reward's mean and deviation."""
    IN_DOMAIN = "in_domain"
    COMBINATIONS = "combinations"
    """Every prompt asks for a combination that training neither asks for nor shows."""
    WORDINGS = "wordings"
    """Every prompt is of words and sentences that no training prompt has."""
    GENERATORS = "generators"
    """Every clip is of a generator that training does not know."""


OUT_OF_DOMAIN = (Split.COMBINATIONS, Split.WORDINGS, Split.GENERATORS)

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
_ASK_NOTHING_EVERY = 8  # of the texts for a tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A clip that is not drawn yet, and all that is true of it."""

    prompt: str
    chain: str
    """What a judge who sees everything writes."""
    verdict: Verdict
    asked: Scene
    shown: Scene
    request: Request
    flaws: Flaws
    generator: str
    seed: tuple[int, ...]
    """Of what the scene and the flaws leave open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Plan):
    """A drawn clip, and all that is true of it."""

    clip: Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlan:
    """Two planned clips of one prompt."""

    a: Plan
    b: Plan
    preference: Preference
    """Which of them has the better true overall, unless label noise turned it round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairExample:
    """Two drawn clips of one prompt."""

    a: Example
    b: Example
    preference: Preference
    """As in `PairPlan`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    asked: Scene
    request: Request
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shot:
    shown: Scene
    flaws: Flaws
    generator: Generator


def plan(
    split: Split,
    index: int,
    *,
    variety: float = 1.0,
    p_differs: float | None = None,
    informed: bool = True,
    loose: bool = False,
) -> Plan:
    """Example number `index` of a split, not drawn.

    variety: as in `random_scene`; held-out combinations always have the full one. p_differs: every attribute shown
    differs from the asked one this often, instead of as the generator slips. informed: False gives a prompt that tells
    nothing. loose: as in `write_prompt`."""
    rng = _rng(split, _EXAMPLE, index)
    wish = _wish(split, rng, variety=variety, informed=informed, loose=loose)
    return _tell(wish, _take(split, wish, rng, p_differs), seed=(_WORLD, _NUMBERS[split], _EXAMPLE, index, 0))


def pair_plan(
    split: Split, index: int, *, label_noise: float = 0.0, hard: float = 0.5, loose: bool = False
) -> PairPlan:
    """Pair number `index` of a split, not drawn. A hard one, of which there is this share, has clips of one generator
    that differ in a single asked attribute or a single flaw. label_noise: how often a decided preference is turned
    round; it changes nothing else. loose: as in `write_prompt`."""
    rng = _rng(split, _PAIR, index)
    wish = _wish(split, rng, loose=loose)
    first = _take(split, wish, rng)
    second = _nearly(split, wish, first, rng) if rng.random() < hard else _take(split, wish, rng)
    shots = (first, second) if rng.random() < 0.5 else (second, first)  # what is changed last is more often worse
    a, b = (_tell(wish, shot, seed=(_WORLD, _NUMBERS[split], _PAIR, index, side)) for side, shot in enumerate(shots))
    preference = prefer(a.verdict, b.verdict)
    if _rng(split, _NOISE, index).random() < label_noise:
        preference = _OTHER_WAY[preference]
    return PairPlan(a=a, b=b, preference=preference)


def example(
    split: Split,
    index: int,
    *,
    size: tuple[int, int] = (64, 64),
    variety: float = 1.0,
    p_differs: float | None = None,
    informed: bool = True,
    loose: bool = False,
) -> Example:
    """Example number `index` of a split, drawn. size: width and height in pixels; the rest as in `plan`."""
    return draw(plan(split, index, variety=variety, p_differs=p_differs, informed=informed, loose=loose), size=size)


def pair(
    split: Split,
    index: int,
    *,
    size: tuple[int, int] = (64, 64),
    label_noise: float = 0.0,
    hard: float = 0.5,
    loose: bool = False,
) -> PairExample:
    """Pair number `index` of a split, drawn. size: width and height in pixels; the rest as in `pair_plan`."""
    planned = pair_plan(split, index, label_noise=label_noise, hard=hard, loose=loose)
    return PairExample(a=draw(planned.a, size=size), b=draw(planned.b, size=size), preference=planned.preference)


def draw(planned: Plan, *, size: tuple[int, int] = (64, 64), frames: int = FRAMES) -> Example:
    """Draw a plan at a width and height in pixels."""
    rng = np.random.default_rng(planned.seed)
    clip = drawn_clip(planned.shown, rng=rng, frames=frames, width=size[0], height=size[1])
    pixels = clip.frames
    for flaw in planned.flaws:
        pixels = degrade(pixels, flaw.name, strength=flaw.strength, rng=rng)
    return Example(clip=replace(clip, frames=pixels), **_as_arguments(planned))


def corpus(count: int) -> Iterator[str]:
    """Prompts and chains of `count` training examples, to train a tokenizer on."""
    for index in range(count):
        planned = plan(Split.TRAIN, index, informed=index % _ASK_NOTHING_EVERY > 0)
        yield planned.prompt
        yield planned.chain


_OTHER_WAY: dict[Preference, Preference] = {"a": "b", "b": "a", "tie": "tie"}


def _rng(split: Split, use: int, index: int) -> np.random.Generator:
    return np.random.default_rng((_WORLD, _NUMBERS[split], use, index))


def _wish(
    split: Split, rng: np.random.Generator, *, variety: float = 1.0, informed: bool = True, loose: bool = False
) -> _Wish:
    held_out = split is Split.COMBINATIONS
    asked = held_out_scene(rng) if held_out else random_scene(rng, variety=variety)
    request = random_request(asked, rng) | (_combined(asked) if held_out else frozenset())
    if "colour" in request and asked.style is Style.GREY:
        asked = change(asked, "style", rng)  # nobody asks for a red circle in a film without colour
    request = request if informed else frozenset()
    prompt = write_prompt(asked, request, rng, held_out=split is Split.WORDINGS, loose=loose)
    return _Wish(asked=asked, request=request, prompt=prompt)


def _combined(asked: Scene) -> Request:
    """The names of a held-out combination, which must be asked for to be one."""
    looks = (asked.shape, asked.colour) in HELD_OUT_LOOKS
    return frozenset(("shape", "colour") if looks else ("action", "camera"))


def _take(split: Split, wish: _Wish, rng: np.random.Generator, p_differs: float | None = None) -> _Shot:
    generators = HELD_OUT_GENERATORS if split is Split.GENERATORS else TRAINING_GENERATORS
    generator = random_generator(generators, rng)
    held_out = split is Split.COMBINATIONS
    if p_differs is None:
        shown, flaws = shoot(wish.asked, generator, rng, held_out=held_out)
    else:
        shown = vary(wish.asked, rng, p=p_differs, held_out=held_out)
        flaws = flaws_of(generator, shown, rng)
    return _Shot(shown=shown, flaws=flaws, generator=generator)


def _nearly(split: Split, wish: _Wish, shot: _Shot, rng: np.random.Generator) -> _Shot:
    """Another take that differs in one asked attribute or in one flaw, to be seen by anyone."""
    options = [*sorted(wish.request), "picture", "motion"]
    while True:
        name = options[int(rng.integers(len(options)))]
        other = _turned(wish, shot, name, rng) if name in KINDS else _flawed(shot, name, rng)
        if _differences(shot, other) == 1 and (split is Split.COMBINATIONS or not is_held_out(other.shown)):
            return other


def _turned(wish: _Wish, shot: _Shot, name: str, rng: np.random.Generator) -> _Shot:
    """One attribute set right if it was wrong, and wrong if it was right. Flaws that do not go with it are gone."""
    asked = getattr(wish.asked, name)
    right = getattr(shot.shown, name) is asked
    shown = tidy(change(shot.shown, name, rng) if right else with_value(shot.shown, name, asked))
    return replace(shot, shown=shown, flaws=tuple(flaw for flaw in shot.flaws if is_plain(flaw, shown)))


def _flawed(shot: _Shot, harms: str, rng: np.random.Generator) -> _Shot:
    """A flaw of this kind gone if there was one; else there, if the scene can have it."""
    kept = [flaw for flaw in shot.flaws if flaw.harms != harms]
    if len(kept) == len(shot.flaws):
        names = shot.generator.picture if harms == "picture" else shot.generator.motion
        flaw = likely_flaw(names, rng, strong=shot.generator.strong)
        kept += [flaw] if is_plain(flaw, shot.shown) else []
    return replace(shot, flaws=tuple(sorted(kept, key=lambda flaw: flaw.harms != "picture")))


def _differences(one: _Shot, other: _Shot) -> int:
    """How many attributes and flaws differ to the eye: of what stands still no speed, of what is grey no colour."""
    names = [name for name in KINDS if getattr(one.shown, name) is not getattr(other.shown, name)]
    if "action" in names and "speed" in names:
        names.remove("speed")
    if "colour" in names and one.shown.style is Style.GREY:
        names.remove("colour")
    return len(names) + len(set(one.flaws) ^ set(other.flaws))


def _tell(wish: _Wish, shot: _Shot, *, seed: tuple[int, ...]) -> Plan:
    told = (wish.asked, shot.shown, wish.request, shot.flaws)
    return Plan(
        prompt=wish.prompt,
        chain=true_chain(*told),
        verdict=true_verdict(*told),
        asked=wish.asked,
        shown=shot.shown,
        request=wish.request,
        flaws=shot.flaws,
        generator=shot.generator.name,
        seed=seed,
    )


def _as_arguments(planned: Plan) -> dict[str, Any]:
    return {field.name: getattr(planned, field.name) for field in fields(planned)}
