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
from experiments.generated.harms import HARMS, VISIBLE, Acts, harmed, measured
from experiments.generated.store import Split
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
PAIRS = ("harmed", "strengths", "states", "prompts", "clips")
P_PAIRS = (0.35, 0.25, 0.15, 0.15, 0.1)

_WORLD = 4203
_SPLITS: dict[Split, int] = {"train": 1, "choose": 2, "test": 3}
_EXAMPLE, _PAIR, _BENCHMARK = 1, 2, 3
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
        """Example `number`."""
        rng = self._rng(_EXAMPLE, number)
        window = self._window(rng)
        draw = rng.random()
        kinds = () if draw < P_SOUND else _ACTS if draw < P_SOUND + P_BOTH else (_ACTS[int(rng.integers(2))],)
        prompt = self._prompt(window, str(rng.choice(PROMPTS, p=P_PROMPTS)), rng)
        harms = [harm for acts in kinds if (harm := self._plain_harm(window, acts, rng))]
        return self._shown(window, prompt, tuple(harm for harm, _ in harms), tuple(seed for _, seed in harms))

    def pair(self, number: int) -> GeneratedPair:
        """Pair `number`, of one of five kinds: a clip sound and harmed, or at two strengths; two clips in different
        states; a clip under its own and another prompt; or its prompt over it and over another clip."""
        rng = self._rng(_PAIR, number)
        kind = str(rng.choice(PAIRS, p=P_PAIRS))
        make = {"prompts": self._two_prompts, "clips": self._two_clips, "states": self._two_states}
        better, worse = make.get(kind, partial(self._two_strengths, sound=kind == "harmed"))(rng)
        return _in_random_order(better, worse, rng)

    def harmed_pair(self, number: int, *, name: str) -> GeneratedPair:
        """Benchmark pair `number`: a clip sound, and with this harm at a clearly mild or clearly strong strength."""
        rng = self._rng(_BENCHMARK, number)
        low, high = MILD if rng.random() < 0.5 else HARSH
        strength = round(float(rng.uniform(low, high)), 3)
        window, seed = self._visible(rng, AppliedHarm(name=name, strength=strength))
        prompt = self._prompt(window, "own", rng)
        worse = self._shown(window, prompt, (AppliedHarm(name=name, strength=strength),), (seed,))
        return _in_random_order(self._shown(window, prompt, (), ()), worse, rng)

    def _rng(self, use: int, number: int) -> np.random.Generator:
        return np.random.default_rng([_WORLD, _SPLITS[self.split], use, number])

    def _window(self, rng: np.random.Generator) -> Window:
        return self.sources.window(self.split, rng=rng, pixels=self.pixels, frames=self.frames)

    def _visible(self, rng: np.random.Generator, harm: AppliedHarm) -> tuple[Window, int]:
        """A window on which this harm is visible, and the seed to apply it with; after _TRIES the last."""
        for _ in range(_TRIES):
            window, seed = self._window(rng), int(rng.integers(2**32))
            after_THWC = harmed(window.clip.frames, harm.name, strength=harm.strength, seed=seed)
            if measured(window.clip.frames, after_THWC) >= VISIBLE[harm.acts]:
                break
        return window, seed

    def _plain_harm(self, window: Window, acts: Acts, rng: np.random.Generator) -> tuple[AppliedHarm, int] | None:
        """A random harm that is visible in this window, and its seed; None if _TRIES of them were not."""
        for _ in range(_TRIES):
            low, high = MILD if rng.random() < 0.5 else HARSH
            harm = AppliedHarm(name=_random_name(acts, rng), strength=round(float(rng.uniform(low, high)), 3))
            seed = int(rng.integers(2**32))
            after_THWC = harmed(window.clip.frames, harm.name, strength=harm.strength, seed=seed)
            if measured(window.clip.frames, after_THWC) >= VISIBLE[harm.acts]:
                return harm, seed
        return None

    def _two_strengths(self, rng: np.random.Generator, *, sound: bool) -> tuple[GeneratedExample, GeneratedExample]:
        name = _random_name(_ACTS[int(rng.integers(2))], rng)
        low, high = np.sort(rng.uniform(0, 1 - APART, 2))
        strong = AppliedHarm(name=name, strength=round(float(high) + APART, 3))
        window, seed = self._visible(rng, strong)
        prompt = self._prompt(window, "own" if rng.random() < 0.5 else "nothing", rng)
        weak = () if sound else (replace(strong, strength=round(float(low), 3)),)
        return self._shown(window, prompt, weak, (seed,)), self._shown(window, prompt, (strong,), (seed,))

    def _two_states(self, rng: np.random.Generator) -> tuple[GeneratedExample, GeneratedExample]:
        """Two clips under a prompt that asks for nothing."""
        prompt = NOTHING[int(rng.integers(len(NOTHING)))]
        worse = AppliedHarm(name=_random_name(_ACTS[int(rng.integers(2))], rng), strength=float(rng.uniform(*HARSH)))
        window, seed = self._visible(rng, worse)
        other = self._window(rng)
        better = (replace(worse, strength=float(rng.uniform(*MILD))),) if rng.random() < 0.5 else ()
        return self._shown(other, prompt, better, (seed,)), self._shown(window, prompt, (worse,), (seed,))

    def _two_prompts(self, rng: np.random.Generator) -> tuple[GeneratedExample, GeneratedExample]:
        """One clip under its own prompt and under one that is wrong."""
        window, own = self._described(rng)
        wrong = self._prompt(window, "other", rng)
        harms, seeds = self._same_harm(window, rng)
        worse = self._shown(window, wrong, harms, seeds)
        return self._shown(window, own, harms, seeds), replace(worse, quality=min(worse.quality, -1.0))

    def _two_clips(self, rng: np.random.Generator) -> tuple[GeneratedExample, GeneratedExample]:
        """A prompt over the clip that it is of, and over another."""
        window, own = self._described(rng)
        for _ in range(_TRIES):
            other = self._window(rng)
            if other.item != window.item and not self._shares(other, own):
                break
        harms, seeds = self._same_harm(window, rng)
        worse = self._shown(other, own, harms, seeds)
        return self._shown(window, own, harms, seeds), replace(worse, quality=min(worse.quality, -1.0))

    def _same_harm(self, window: Window, rng: np.random.Generator) -> tuple[tuple[AppliedHarm, ...], tuple[int, ...]]:
        """None, or one for both sides."""
        if rng.random() < 0.6:
            return (), ()
        harm = self._plain_harm(window, _ACTS[int(rng.integers(2))], rng)
        return ((), ()) if harm is None else ((harm[0],), (harm[1],))

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
        own = self.words.own_prompt(window.item, window.prompt, rng)
        other = self.words.other_prompt(self.split, own=own, shown=self._things(window), rng=rng)
        made = {"own": own, "other": other, "partly": _joined(own, other, rng)}.get(kind, "")
        return made or NOTHING[int(rng.integers(len(NOTHING)))]

    def _shown(
        self, window: Window, prompt: str, harms: tuple[AppliedHarm, ...], seeds: tuple[int, ...]
    ) -> GeneratedExample:
        frames_THWC = window.clip.frames
        for harm, seed in zip(harms, seeds, strict=False):
            frames_THWC = harmed(frames_THWC, harm.name, strength=harm.strength, seed=seed)
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
