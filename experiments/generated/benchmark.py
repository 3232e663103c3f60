"""Four benchmarks without ratings by people: what was done to a clip or to its prompt, or what it was made by, says
which is better.

`generated`: a clip of a held-out generator, sound against harmed. `own_prompt`: such a clip under its own prompt and
under those of other clips. `eras`: clips of a late and of an early generator, held out both, which says what is better
as a rule. `reversed`: a drawn clip whose prompt names a direction, forward against backward."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count, islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from descore.errors import ConfigError
from descore.evaluation.benchmarks import DEFAULT_PAIRS, FRAME_SIZE, Judgements, generated_judgements
from descore.synthetic.scene import Action, Camera, Scene
from descore.synthetic.splits import Example, ExamplePair, draw_plan, plan_example
from descore.synthetic.splits import Split as DrawnSplit
from descore.synthetic.truth import true_chain, true_verdict
from descore.types import Clip, RatedClip
from experiments.generated.clips import Generated, GeneratedClip, Sources
from experiments.generated.examples import Examples, GeneratedPair
from experiments.generated.harms import HARMS, STRONG
from experiments.generated.store import Split
from experiments.generated.words import Words, prompts_of

NAMES = ("generated", "own_prompt", "eras", "reversed")
CHOOSE = "-choose"
"""Behind the name of one of the first three: on the clips for decisions, in place of those for the final figures."""
TITLES: Mapping[str, str] = MappingProxyType(
    {
        "generated": "Generated clips of new generators, harmed against sound",
        "own_prompt": "Generated clips of new generators, their own prompt against others",
        "eras": "Generated clips of new generators, late against early",
        "reversed": "Drawn clips whose prompt names a direction, backward against forward",
    }
)
ALIGNMENT = "alignment"
"""The label of own_prompt: 1 for the clip's own prompt, 0 for another."""
OTHERS = 4
"""Other prompts to a clip."""
ERA_PAIRS, REVERSED_PAIRS = 200, 50

_OTHERS_SEED = 4204
_OPPOSITE: Mapping[object, object] = {
    Action.LEFT: Action.RIGHT,
    Action.RIGHT: Action.LEFT,
    Action.UP: Action.DOWN,
    Action.DOWN: Action.UP,
    Camera.PAN_LEFT: Camera.PAN_RIGHT,
    Camera.PAN_RIGHT: Camera.PAN_LEFT,
    Camera.ZOOM_IN: Camera.ZOOM_OUT,
    Camera.ZOOM_OUT: Camera.ZOOM_IN,
}
_DIRECTIONS = (Action.LEFT, Action.RIGHT, Action.UP, Action.DOWN)


def is_known(name: str) -> bool:
    """Whether a benchmark is one of these."""
    return name in NAMES or (name.endswith(CHOOSE) and name.removesuffix(CHOOSE) in NAMES[:3])


def title_of(name: str) -> str:
    """In words."""
    return TITLES[name.removesuffix(CHOOSE)] + (" (for decisions)" if name.endswith(CHOOSE) else "")


def judgements_of(name: str, root: Path | None, *, limit: int | None = None) -> Judgements:
    """The first pairs, or clips, of a benchmark. root: a store of generated clips. ConfigError without one, where it is
    needed."""
    split: Split = "choose" if name.endswith(CHOOSE) else "test"
    name = name.removesuffix(CHOOSE)
    if name == "reversed":
        return reversed_judgements(limit=limit)
    if root is None:
        raise ConfigError(f"{name}: no store of generated clips; make one with `python -m experiments.generated`")
    make = {"generated": harmed_judgements, "own_prompt": prompt_judgements, "eras": era_judgements}[name]
    return make(Generated.open(root), split, limit=limit)


def _examples(store: Generated, split: Split) -> Examples:
    return Examples(Sources(store), Words({}, prompts_of(store)), split)


# Harmed against sound.


def harmed_judgements(store: Generated, split: Split, *, limit: int | None = None) -> Judgements:
    """The first pairs, DEFAULT_PAIRS without a limit; each harm in turn. A pair's aspect is the harm, a clip's source
    its harm and whether that is strong; intervals resample clips."""
    draw = lru_cache(maxsize=DEFAULT_PAIRS)(partial(_harmed_pair, _examples(store, split)))
    judgements = generated_judgements("generated", draw, count=DEFAULT_PAIRS if limit is None else limit)
    pairs = [
        replace(pair, group=draw(number).a.item, aspect=_harm_name(number), source_a=source_a, source_b=source_b)
        for number, pair in enumerate(judgements.pairs)
        for source_a, source_b in [(_state(draw(number), "a"), _state(draw(number), "b"))]
    ]
    sources = [source for pair in pairs for source in (pair.source_a, pair.source_b)]
    clips = [
        replace(clip, group=pairs[number // 2].group, source=sources[number])
        for number, clip in enumerate(judgements.clips)
    ]
    return replace(judgements, clips=tuple(clips), pairs=tuple(pairs))


def harmed_pairs(store: Generated, split: Split) -> Iterator[GeneratedPair]:
    """The pairs of that, in order and without end."""
    return map(partial(_harmed_pair, _examples(store, split)), count())


def _harm_name(number: int) -> str:
    return tuple(HARMS)[number % len(HARMS)]


def _harmed_pair(examples: Examples, number: int) -> GeneratedPair:
    return examples.harmed_pair(number, name=_harm_name(number))


def _state(pair: GeneratedPair, side: str) -> str:
    harms = (pair.a if side == "a" else pair.b).harms
    return f"{'strong' if harms[0].strength >= STRONG else 'mild'} {harms[0].name}" if harms else "sound"


# A clip's own prompt against others.


def prompt_judgements(store: Generated, split: Split, *, limit: int | None = None) -> Judgements:
    """Each clip with a prompt, whole, under that and under OTHERS other ones of its split. limit: clips. There are no
    pairs, since a pair has one prompt: `experiments.judged` compares."""
    described = {clip.name: clip for clip in islice((c for c in store.clips[split] if c.prompt), limit)}
    prompts = prompts_of(store)[split]
    rated = [
        RatedClip(prompt=prompt, video=clip.name, group=clip.prompt, ratings={ALIGNMENT: float(prompt == clip.prompt)})
        for number, clip in enumerate(described.values())
        for prompt in (clip.prompt, *other_prompts(clip, prompts, number))
    ]
    return Judgements(clips=tuple(rated), pairs=(), open=lambda video: whole_clip(store, described[video]))


def other_prompts(clip: GeneratedClip, prompts: tuple[str, ...], number: int) -> tuple[str, ...]:
    """OTHERS prompts of other clips, or all if there are fewer."""
    options = [prompt for prompt in prompts if prompt != clip.prompt]
    order = np.random.default_rng([_OTHERS_SEED, number]).permutation(len(options))
    return tuple(options[int(index)] for index in order[:OTHERS])


def whole_clip(store: Generated, clip: GeneratedClip) -> Clip:
    """All stored frames of a clip."""
    steps = len(clip.times) - 1
    fps = steps / clip.times[-1]
    return Clip(
        frames=np.asarray(store.frames(clip)),
        times=clip.times,
        source=clip.name,
        source_fps=fps,
        source_size=clip.size,
        source_frames=clip.frames,
        duration=clip.times[-1] + 1 / fps,
    )


# Late against early.


def era_judgements(store: Generated, split: Split, *, limit: int | None = None) -> Judgements:
    """The first pairs, ERA_PAIRS without a limit. Intervals resample the late clips."""
    draw = lru_cache(maxsize=ERA_PAIRS)(_examples(store, split).era_pair)
    judgements = generated_judgements("eras", draw, count=ERA_PAIRS if limit is None else limit)
    late = [pair.a if pair.a.quality > pair.b.quality else pair.b for pair in map(draw, range(len(judgements.pairs)))]
    pairs = [replace(pair, group=clip.item) for pair, clip in zip(judgements.pairs, late, strict=True)]
    clips = [replace(clip, group=pairs[number // 2].group) for number, clip in enumerate(judgements.clips)]
    return replace(judgements, clips=tuple(clips), pairs=tuple(pairs))


# Backward against forward.


def directed(split: DrawnSplit) -> Iterator[int]:
    """Numbers of the drawn examples that are asked for a direction and show it, soundly."""
    for number in count():
        plan = plan_example(split, number, p_differs=0.0)
        if plan.shown.action in _DIRECTIONS and "action" in plan.request and not plan.flaws:
            yield number


def reversed_judgements(*, limit: int | None = None, split: DrawnSplit = DrawnSplit.IN_DOMAIN) -> Judgements:
    """The first pairs, REVERSED_PAIRS without a limit."""
    numbers = tuple(islice(directed(split), REVERSED_PAIRS if limit is None else limit))

    def draw(place: int) -> ExamplePair[Example]:
        return reversed_pair(split, numbers[place], place)

    return generated_judgements("reversed", draw, count=len(numbers))


def reversed_pair(split: DrawnSplit, number: int, place: int) -> ExamplePair[Example]:
    """A drawn example forward and backward. It is the first where `place` is even."""
    forward = draw_plan(plan_example(split, number, p_differs=0.0), size=FRAME_SIZE)
    shown = backward(forward.shown)
    truth = (forward.asked, shown, forward.request, ())
    back = replace(
        forward,
        clip=replace(forward.clip, frames=np.ascontiguousarray(forward.clip.frames[::-1])),
        shown=shown,
        chain=true_chain(*truth),
        verdict=true_verdict(*truth),
    )
    if place % 2:
        return ExamplePair(a=back, b=forward, preference="b")
    return ExamplePair(a=forward, b=back, preference="a")


def backward(scene: Scene) -> Scene:
    """What a scene shows when it runs backward."""
    action, camera = (_OPPOSITE.get(each, each) for each in (scene.action, scene.camera))
    return replace(scene, action=action, camera=camera)  # type: ignore[arg-type]
