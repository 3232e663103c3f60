"""Numbered examples and pairs of real footage, sound and degraded, with prompts, true chains and true preferences.

Each is a function of the store, the split and the number alone.

There is no description of what footage shows, so a chain judges picture and motion and marks the rest N/A. The prompt
does not help: it is what people ask of video generators, drawn independently of the clip, but for one in twenty that is
a true description. Training and test prompts have no sentence in common."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from descore.rubric import overall_of, write_answer
from descore.synthetic.degradations import DEGRADATIONS, SOUND, VISIBLE, Harms, degrade, harm
from descore.synthetic.generators import Flaw
from descore.synthetic.splits import ExamplePair
from descore.synthetic.truth import true_preference
from descore.types import DIMENSIONS, Clip, Mark, Verdict
from experiments.footage.clips import PIXELS, Footage, FootageSplit

HARMS: tuple[Harms, ...] = ("motion", "picture")
"""In the order in which they are applied: an encoder sees what the shaking camera took."""

_MARKED: dict[Harms, str] = {"motion": "dynamics", "picture": "style"}
_IN_WORDS = {2: "right", 1: "partly right", 0: "wrong"}


P_SOUND = 0.3
"""Share of examples without any degradation."""
P_BOTH = 0.2
"""Share of examples whose picture and motion are degraded; the others have one of the two, each as often."""
P_STRONG = 0.5
P_TWO_STRENGTHS = 0.3
"""Share of pairs that show one degradation, mild and strong; in the others one clip is sound."""
P_TRUE_PROMPT = 0.05

_LEAST_HARM: dict[Harms, float] = {"motion": 8.0, "picture": VISIBLE}
"""Least `harm` that a chain mentions, in levels. Among many small movements, mixed-up time is harder to see."""

_FAINTEST, _APART = 0.02, 0.25
"""Of two strengths in a contrast: the least strength, and the least difference."""

_MILD, _STRONG = (0.2, 0.42), (0.62, 1.0)  # strengths apart from the border, where nobody could tell which it is
_WORLD = 4202
_NUMBERS: dict[FootageSplit, int] = {"train": 1, "test": 2}
_EXAMPLE, _PAIR, _CONTRAST = 1, 2, 3
_TRIES = 8
_UNKNOWN = "cannot be known, N/A."

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class FootageExample:
    """A clip of real footage with its prompt and its true judgement."""

    clip: Clip
    prompt: str
    chain: str
    """The chain of a judge who sees the state of picture and motion and claims no more."""
    verdict: Verdict
    flaws: tuple[Flaw, ...]
    """What was applied: at most one degradation of the motion, then at most one of the picture."""


FootagePair: TypeAlias = ExamplePair[FootageExample]
"""The same clip twice, one of them degraded further."""


def footage_example(footage: Footage, split: FootageSplit, index: int, *, pixels: int = PIXELS) -> FootageExample:
    """Example number `index` of a split. pixels: the most pixels in a frame."""
    rng = np.random.default_rng([_WORLD, _NUMBERS[split], _EXAMPLE, index])
    clip = footage.window(split, rng=rng, pixels=pixels)
    prompt = _write_prompt(footage, clip, split, rng)
    frames_THWC, flaws = sound_or_degraded(clip.frames, split, rng)
    return _example(replace(clip, frames=frames_THWC), prompt, flaws)


def sound_or_degraded(
    frames_THWC: Frames, split: FootageSplit, rng: np.random.Generator
) -> tuple[Frames, tuple[Flaw, ...]]:
    """The frames as they are, or with random degradations of a split that are visible; and these."""
    draw = rng.random()
    kinds = () if draw < P_SOUND else HARMS if draw < P_SOUND + P_BOTH else (HARMS[int(rng.integers(2))],)
    flaws: list[Flaw] = []
    for kind in kinds:
        frames_THWC, flaw = _harm(frames_THWC, _harms_of(kind, split), rng)
        flaws += flaw
    return frames_THWC, tuple(flaws)


def footage_pair(footage: Footage, split: FootageSplit, index: int, *, pixels: int = PIXELS) -> FootagePair:
    """Pair number `index` of a split: one clip sound and degraded, or degraded mildly and strongly."""
    rng = np.random.default_rng([_WORLD, _NUMBERS[split], _PAIR, index])
    sound, prompt, flaw, seed = _harmed_window(footage, split, rng, pixels)
    mild, strong = (_random_flaw((flaw.name,), rng, strong=share) for share in (0, 1))
    if rng.random() < P_TWO_STRENGTHS and _shows(sound, mild, seed):
        better, worse = (_example(_degraded(sound, one, seed), prompt, (one,)) for one in (mild, strong))
    else:
        better, worse = _example(sound, prompt, ()), _example(_degraded(sound, flaw, seed), prompt, (flaw,))
    a, b = (better, worse) if rng.random() < 0.5 else (worse, better)
    return ExamplePair(a=a, b=b, preference=true_preference(a.verdict, b.verdict))


def footage_contrast(footage: Footage, index: int, *, pixels: int = PIXELS) -> FootagePair:
    """Pair number `index` for training: one clip with one degradation at two clearly different strengths. The weaker is
    preferred even where both have the same words, so that the model has to look."""
    rng = np.random.default_rng([_WORLD, _NUMBERS["train"], _CONTRAST, index])
    sound, prompt, flaw, seed = _harmed_window(footage, "train", rng, pixels)
    low, high = np.sort(rng.uniform(_FAINTEST, 1 - _APART, 2))
    better, worse = (
        _example(_degraded(sound, one, seed), prompt, (one,))
        for one in (replace(flaw, strength=round(float(strength), 3)) for strength in (low, high + _APART))
    )
    if rng.random() < 0.5:
        return ExamplePair(a=better, b=worse, preference="a")
    return ExamplePair(a=worse, b=better, preference="b")


def true_chain(flaws: tuple[Flaw, ...]) -> str:
    """A description, a line for each dimension, and the answer."""
    verdict = true_verdict(flaws)
    state = {kind: _state(flaws, kind) for kind in HARMS}
    lines = []
    for name in DIMENSIONS:
        kind = next((kind for kind in HARMS if _MARKED[kind] == name), None)
        mark = verdict.marks[name]
        judged = f"{kind} {state[kind]}: {_IN_WORDS[mark]}, {mark}." if kind and mark is not None else _UNKNOWN
        lines.append(f"{name.capitalize()}: {judged}")
    description = f"I see footage. The picture is {state['picture']}. The motion is {state['motion']}."
    return "\n".join([description, *lines, write_answer(verdict)])


def true_verdict(flaws: tuple[Flaw, ...]) -> Verdict:
    """Dynamics is marked by the motion, style by the picture: 2 if sound, else as the flaw allows. The rest is N/A."""
    marks: dict[str, Mark] = dict.fromkeys(DIMENSIONS)
    for kind in HARMS:
        marks[_MARKED[kind]] = next((flaw.mark for flaw in flaws if flaw.harms == kind), 2)
    return Verdict(marks=marks, overall=overall_of(marks))


def _state(flaws: tuple[Flaw, ...], kind: Harms) -> str:
    return next((flaw.words for flaw in flaws if flaw.harms == kind), SOUND[kind])


def _example(clip: Clip, prompt: str, flaws: tuple[Flaw, ...]) -> FootageExample:
    return FootageExample(clip=clip, prompt=prompt, chain=true_chain(flaws), verdict=true_verdict(flaws), flaws=flaws)


def _harms_of(kind: Harms, split: FootageSplit) -> tuple[str, ...]:
    """Names of the degradations of picture or motion that a split shows."""
    rows = (row for row in DEGRADATIONS.values() if row.harms == kind and row.visible_alone)
    return tuple(row.name for row in rows if split == "train" or not row.training_only)


def _harm(frames_THWC: Frames, names: tuple[str, ...], rng: np.random.Generator) -> tuple[Frames, tuple[Flaw, ...]]:
    """Apply a random one of these degradations that is visible; none if _TRIES of them were not."""
    for _ in range(_TRIES):
        flaw = _random_flaw(names, rng, strong=P_STRONG)
        harmed_THWC = degrade(frames_THWC, flaw.name, strength=flaw.strength, rng=rng)
        if harm(frames_THWC, harmed_THWC) >= _LEAST_HARM[flaw.harms]:
            return harmed_THWC, (flaw,)
    return frames_THWC, ()


def _random_flaw(names: tuple[str, ...], rng: np.random.Generator, *, strong: float) -> Flaw:
    """One of these degradations, clearly strong with this probability, else clearly mild."""
    name = names[int(rng.integers(len(names)))]
    low, high = _STRONG if rng.random() < strong else _MILD
    return Flaw(name=name, strength=round(float(rng.uniform(low, high)), 3))


def _harmed_window(
    footage: Footage, split: FootageSplit, rng: np.random.Generator, pixels: int
) -> tuple[Clip, str, Flaw, int]:
    """A clip, its prompt, a flaw that is visible in it, and the seed to apply the flaw with."""
    while True:
        clip = footage.window(split, rng=rng, pixels=pixels)
        flaw = _random_flaw(_harms_of(HARMS[int(rng.integers(2))], split), rng, strong=P_STRONG)
        seed = int(rng.integers(2**32))
        if _shows(clip, flaw, seed):
            return clip, _write_prompt(footage, clip, split, rng), flaw, seed


def _shows(clip: Clip, flaw: Flaw, seed: int) -> bool:
    return harm(clip.frames, _degraded(clip, flaw, seed).frames) >= _LEAST_HARM[flaw.harms]


def _degraded(clip: Clip, flaw: Flaw, seed: int) -> Clip:
    """The clip with this flaw. With the same seed, a stronger flaw is the same harm done further."""
    rng = np.random.default_rng(seed)
    return replace(clip, frames=degrade(clip.frames, flaw.name, strength=flaw.strength, rng=rng))


def _write_prompt(footage: Footage, clip: Clip, split: FootageSplit, rng: np.random.Generator) -> str:
    if rng.random() < P_TRUE_PROMPT:
        return footage.about(clip)
    prompts = PROMPTS[split]
    return prompts[int(rng.integers(len(prompts)))]


PROMPTS: dict[FootageSplit, tuple[str, ...]] = {
    "train": (
        "a cat sleeping on a windowsill",
        "A woman in a yellow raincoat walks her dog along the harbour.",
        "two old men playing chess in a park",
        "a chef tossing vegetables in a wok, steam rising",
        "Timelapse of clouds over a mountain village",
        "a child blowing soap bubbles in the garden",
        "an astronaut riding a horse on the moon",
        "Drone view of waves breaking on black rocks",
        "close-up of hands kneading bread dough",
        "a fox running through fresh snow",
        "busy street market in Marrakech, people passing by",
        "a robot watering flowers on a balcony",
        "A ballet dancer rehearses alone in an empty theatre.",
        "a steam train crossing a stone viaduct",
        "coffee being poured into a white cup, morning light",
        "a koi pond seen from above, fish swimming slowly",
        "an old fisherman mending his net on the pier",
        "teenagers skateboarding in an empty swimming pool",
        "A lighthouse in a storm at night, rain and wind.",
        "a panda eating bamboo",
        "a paper boat floating down a gutter after the rain",
        "the camera follows a cyclist down a winding mountain road",
        "A dragon made of smoke coils around a castle tower",
        "grandmother knitting by the fireplace with a cat on her lap",
        "a hummingbird drinking from a red flower in slow motion",
        "a crowded subway platform, the train arrives",
        "penguins waddling across the ice in a line",
        "A girl reads a book under a cherry tree while petals fall",
        "lava flowing into the sea, clouds of steam",
        "a street musician plays the violin at a fountain",
        "an elephant spraying itself with water",
        "snow falling on a quiet Japanese temple",
        "a sports car drifting around a corner on a wet road",
        "Kids build a sandcastle on the beach, the tide comes in",
        "a jellyfish glowing in the deep sea",
        "a farmer drives an old tractor across a field at sunset",
        "a wizard opens a book and letters fly out",
        "firefighters climbing a ladder",
        "A couple dances tango in a narrow alley, lanterns above",
        "a squirrel burying a nut in autumn leaves",
        "rain running down a taxi window, city lights outside",
        "a potter shaping a vase on the wheel",
        "hot air balloons rising over a valley at dawn",
        "a puppy chasing its own tail in the living room",
        "surfer rides a big wave, camera close to the water",
    ),
    "test": (
        "a horse galloping along the shore",
        "An old man feeds pigeons on a square in Venice.",
        "a glass of orange juice tipping over on a table",
        "bees at work on a honeycomb, macro shot",
        "a knight walking through a burning forest",
        "A boy flies a kite on a windy hill",
        "a barista draws a heart into a latte",
        "polar bear and her cub on drifting ice",
        "people with umbrellas crossing a street in Tokyo at night",
        "a sailing ship in heavy seas",
        "a teacher writes a formula on the blackboard",
        "A parrot talks to its reflection in a mirror.",
        "an owl turns its head and looks into the camera",
        "leaves blowing across an empty playground",
        "a baker takes loaves out of a wood-fired oven",
        "a mermaid swims through a sunken city",
    ),
}
"""Prompts as people type them; none describes the footage."""
