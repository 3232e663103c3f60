"""Numbered examples and pairs of real and generated clips, sound and harmed, with prompts, true chains and preferences.

Each is a function of the sources, the split and the number alone. What is rated is made: a clip's quality is minus the
strengths of its harms, and minus 1 where the prompt is another clip's; a pair's margin is the difference."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from descore.synthetic.splits import ExamplePair
from descore.training.collate import TrainingExample, TrainingPair
from descore.types import PREFERENCE_SIGN, Clip, Preference, Verdict
from experiments.generated.clips import FRAMES, PIXELS, Sources, Window
from experiments.generated.fields import Frames
from experiments.generated.harms import HARMS, VISIBLE, Acts, measured
from experiments.generated.store import EARLY, LATE, Split
from experiments.generated.things import Shown, alike
from experiments.generated.truth import AppliedHarm, Request, Truth
from experiments.generated.words import NOTHING, Words

P_SOUND, P_BOTH = 0.3, 0.2
"""Shares of examples without harm, and with one of each kind; the others have one, each kind as often."""
MILD, HARSH = (0.2, 0.42), (0.62, 1.0)
"""Strengths of examples with a chain: apart from the borders of `mark_of`, where nobody could tell."""
APART = 0.2
"""Least difference of two strengths in a pair."""

PROMPTS = ("own", "other", "partly", "nothing")
P_PROMPTS = (0.4, 0.3, 0.12, 0.18)
PAIRS = ("harmed", "strengths", "states", "prompts", "clips", "eras")
P_PAIRS = (0.25, 0.15, 0.1, 0.25, 0.17, 0.08)
ERA = 0.5
"""What an early generator's clip is worse by than a late one's."""

_WORLD = 4203
_SPLITS: dict[Split, int] = {"train": 1, "choose": 2, "test": 3}
_EXAMPLE, _PAIR, _BENCHMARK, _ERAS = 1, 2, 3, 4
_TRIES = 8

_ACTS: tuple[Acts, Acts] = ("dynamics", "style")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedExample:
    """A clip with its prompt and its true judgement."""

    clip: Clip
    prompt: str
    chain: str
    """The chain of a judge who sees things, picture and motion and claims no more."""
    verdict: Verdict
    harms: tuple[AppliedHarm, ...]
    """At most one of the dynamics, then at most one of the style."""
    item: str
    """What is shown, by name."""
    quality: float
    """Minus the strengths of the harms, minus what is wrong of the subject: 1 for all, 0.5 for a part."""


GeneratedPair = ExamplePair[GeneratedExample]
"""Two clips, or one clip twice."""


@dataclass(frozen=True)
class Examples:
    """Examples and pairs of a split, by number."""

    sources: Sources
    words: Words
    split: Split
    pixels: int = PIXELS
    """The most pixels in a frame."""
    frames: int = FRAMES
    """The most frames in a clip."""

    def example(self, number: int) -> GeneratedExample:
        """Example `number`, of a clip that looks sound before it is harmed."""
        rng = self._rng(_EXAMPLE, number)
        window = self._plain_window(rng)
        draw = rng.random()
        kinds = () if draw < P_SOUND else _ACTS if draw < P_SOUND + P_BOTH else (_ACTS[int(rng.integers(2))],)
        prompt = self._prompt(window, str(rng.choice(PROMPTS, p=P_PROMPTS)), rng)
        frames_THWC, harms = window.clip.frames, list[AppliedHarm]()
        for acts in kinds:
            if harm := self._plain_harm(frames_THWC, acts, rng):
                frames_THWC = harm.apply(frames_THWC)
                harms.append(harm)
        return self._shown(window, prompt, tuple(harms), frames_THWC)

    def pair(self, number: int) -> GeneratedPair:
        """Pair `number`, of one of six kinds: a clip sound and harmed, or at two strengths; two clips in different
        states; a clip under its own and another prompt; its prompt over it and over another clip; or clips of a late
        and of an early generator."""
        rng = self._rng(_PAIR, number)
        kind = str(rng.choice(PAIRS, p=P_PAIRS))
        make = {
            "prompts": self._two_prompts,
            "clips": self._two_clips,
            "states": self._two_states,
            "eras": self._two_eras,
        }
        better, worse = make.get(kind, partial(self._two_strengths, sound=kind == "harmed"))(rng)
        return _in_random_order(better, worse, rng)

    def harmed_pair(self, number: int, *, name: str) -> GeneratedPair:
        """Benchmark pair `number`: a clip sound, and with this harm at a clearly mild or clearly strong strength."""
        rng = self._rng(_BENCHMARK, number)
        window, harm = self._visible(rng, name, _random_strength(rng))
        prompt = self._prompt(window, "own", rng)
        return _in_random_order(self._shown(window, prompt, ()), self._shown(window, prompt, (harm,)), rng)

    def era_pair(self, number: int) -> GeneratedPair:
        """Benchmark pair `number`: clips of a late and of an early generator."""
        rng = self._rng(_ERAS, number)
        return _in_random_order(*self._two_eras(rng), rng)

    def _rng(self, use: int, number: int) -> np.random.Generator:
        return np.random.default_rng([_WORLD, _SPLITS[self.split], use, number])

    def _window(self, rng: np.random.Generator, of: frozenset[str] | None = None) -> Window:
        return self.sources.window(self.split, rng=rng, pixels=self.pixels, frames=self.frames, of=of)

    def _plain_window(self, rng: np.random.Generator) -> Window:
        """The first of _TRIES that looks sound by itself, or the last."""
        for _ in range(_TRIES):
            window = self._window(rng)
            if window.plain:
                break
        return window

    def _visible(self, rng: np.random.Generator, name: str, strength: float) -> tuple[Window, AppliedHarm]:
        """A window on which this harm is visible; after _TRIES the last."""
        for _ in range(_TRIES):
            window, harm = self._window(rng), _seeded(name, strength, rng)
            if _is_visible(window.clip.frames, harm):
                break
        return window, harm

    def _plain_harm(self, frames_THWC: Frames, acts: Acts, rng: np.random.Generator) -> AppliedHarm | None:
        """A random harm that is visible in these frames; None if _TRIES of them were not."""
        tried = (_seeded(_random_name(acts, rng), _random_strength(rng), rng) for _ in range(_TRIES))
        return next((harm for harm in tried if _is_visible(frames_THWC, harm)), None)

    def _two_strengths(self, rng: np.random.Generator, *, sound: bool) -> tuple[GeneratedExample, GeneratedExample]:
        name = _random_name(_ACTS[int(rng.integers(2))], rng)
        low, high = np.sort(rng.uniform(0, 1 - APART, 2))
        window, strong = self._visible(rng, name, float(rng.uniform(APART, 1) if sound else high + APART))
        prompt = self._prompt(window, "own" if rng.random() < 0.5 else "nothing", rng)
        weak = () if sound else (replace(strong, strength=float(low)),)
        return self._shown(window, prompt, weak), self._shown(window, prompt, (strong,))

    def _two_states(self, rng: np.random.Generator) -> tuple[GeneratedExample, GeneratedExample]:
        """Two clips under a prompt that asks for nothing."""
        prompt = NOTHING[int(rng.integers(len(NOTHING)))]
        name = _random_name(_ACTS[int(rng.integers(2))], rng)
        window, strong = self._visible(rng, name, float(rng.uniform(*HARSH)))
        weak = (_seeded(name, float(rng.uniform(*MILD)), rng),) if rng.random() < 0.5 else ()
        return self._shown(self._window(rng), prompt, weak), self._shown(window, prompt, (strong,))

    def _two_eras(self, rng: np.random.Generator) -> tuple[GeneratedExample, GeneratedExample]:
        """Under a prompt that asks for nothing."""
        prompt = NOTHING[int(rng.integers(len(NOTHING)))]
        late, early = (self._shown(self._window(rng, of), prompt, ()) for of in (LATE, EARLY))
        return late, replace(early, quality=early.quality - ERA)

    def _two_prompts(self, rng: np.random.Generator) -> tuple[GeneratedExample, GeneratedExample]:
        """One clip under its own prompt and under one that is wrong."""
        window, own = self._described(rng)
        wrong, harms = self._prompt(window, "other", rng), self._same_harm(window, rng)
        better = self._shown(window, own, harms)
        return better, replace(self._shown(window, wrong, harms), quality=better.quality - 1)

    def _two_clips(self, rng: np.random.Generator) -> tuple[GeneratedExample, GeneratedExample]:
        """A prompt over the clip that it is of, and over another."""
        window, own = self._described(rng)
        for _ in range(_TRIES):
            other = self._window(rng)
            if other.item != window.item and not self._shares(other, own):
                break
        harms = self._same_harm(window, rng)
        better = self._shown(window, own, harms)
        return better, replace(self._shown(other, own, harms), quality=better.quality - 1)

    def _same_harm(self, window: Window, rng: np.random.Generator) -> tuple[AppliedHarm, ...]:
        """None, or one for both sides."""
        harm = self._plain_harm(window.clip.frames, _ACTS[int(rng.integers(2))], rng) if rng.random() < 0.4 else None
        return (harm,) if harm else ()

    def _described(self, rng: np.random.Generator) -> tuple[Window, str]:
        """A window with a prompt that is true of it."""
        while True:
            window = self._window(rng)
            if prompt := self.words.own_prompt(window.item, window.prompt, rng):
                return window, prompt

    def _shares(self, window: Window, prompt: str) -> bool:
        """Whether a clip may show a thing that the prompt names."""
        shown = self._things(window)
        return shown is None or any(alike(one, other) for one in shown.things for other in Request.of(prompt).things)

    def _things(self, window: Window) -> Shown | None:
        return self.words.shown(window.item, window.prompt)

    def _prompt(self, window: Window, kind: str, rng: np.random.Generator) -> str:
        """A prompt of this kind; where there is none, one that asks for nothing."""
        if kind == "nothing":
            return NOTHING[int(rng.integers(len(NOTHING)))]
        own = self.words.own_prompt(window.item, window.prompt, rng)
        if kind != "own":
            other = self.words.other_prompt(self.split, own=own, shown=self._things(window), rng=rng)
            own = other if kind == "other" else _joined(own, other, rng)
        return own or NOTHING[int(rng.integers(len(NOTHING)))]

    def _shown(
        self, window: Window, prompt: str, harms: tuple[AppliedHarm, ...], frames_THWC: Frames | None = None
    ) -> GeneratedExample:
        """An example. frames: those with the harms, where they are made already."""
        if frames_THWC is None:
            frames_THWC = window.clip.frames
            for harm in harms:
                frames_THWC = harm.apply(frames_THWC)
        truth = Truth(shown=self._things(window), request=Request.of(prompt), harms=harms)
        wrong = 0.0 if truth.subject is None else (2 - truth.subject) / 2
        return GeneratedExample(
            clip=window.finished(frames_THWC),
            prompt=prompt,
            chain=truth.chain(),
            verdict=truth.verdict(),
            harms=harms,
            item=window.item,
            quality=-sum(harm.strength for harm in harms) - wrong,
        )


def _seeded(name: str, strength: float, rng: np.random.Generator) -> AppliedHarm:
    return AppliedHarm(name=name, strength=round(strength, 3), seed=int(rng.integers(2**32)))


def _random_strength(rng: np.random.Generator) -> float:
    """Clearly mild or clearly strong."""
    return float(rng.uniform(*(MILD if rng.random() < 0.5 else HARSH)))


def _is_visible(frames_THWC: Frames, harm: AppliedHarm) -> bool:
    return measured(frames_THWC, harm.apply(frames_THWC)) >= VISIBLE[harm.acts]


def training_example(example: GeneratedExample) -> TrainingExample:
    """In the form that lessons take."""
    return TrainingExample(clip=example.clip, prompt=example.prompt, chain=example.chain, marks=example.verdict.marks)


def training_pair(pair: GeneratedPair, *, number: int) -> TrainingPair:
    """In the form that lessons take, with qualities as ratings: their difference is the margin."""
    return TrainingPair(
        a=training_example(pair.a),
        b=training_example(pair.b),
        preference_K=np.array([PREFERENCE_SIGN[pair.preference]], dtype=np.int8),
        rating_a_K=np.array([pair.a.quality], dtype=np.float32),
        rating_b_K=np.array([pair.b.quality], dtype=np.float32),
        number=number,
    )


def _in_random_order(better: GeneratedExample, worse: GeneratedExample, rng: np.random.Generator) -> GeneratedPair:
    a, b = (better, worse) if rng.random() < 0.5 else (worse, better)
    preference: Preference = "tie" if a.quality == b.quality else "a" if a.quality > b.quality else "b"
    return ExamplePair(a=a, b=b, preference=preference)


def _random_name(acts: Acts, rng: np.random.Generator) -> str:
    names = [harm.name for harm in HARMS.values() if harm.acts == acts]
    return names[int(rng.integers(len(names)))]


def _joined(own: str, other: str, rng: np.random.Generator) -> str:
    """A prompt that asks for both, in either order; empty without one of them."""
    if not own or not other:
        return ""
    first, second = (own, other) if rng.random() < 0.5 else (other, own)
    return f"{first.rstrip(' .')}, and {second[:1].lower()}{second[1:]}"
