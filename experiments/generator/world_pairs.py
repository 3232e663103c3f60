r"""Drawn pairs of the study's world with true chains, to put a reward model to work at this world and size.

    python -m experiments.generator.world_pairs --count 1200 --out runs/world_pairs
    python -m experiments.generator.world_pairs --count 40 --first 100000 --out runs/world_others
    descore train cold-start experiments/generator/sibling.yaml data.chain_drop=1 run.out=runs/discriminative

Both clips of a pair are asked for by one prompt. A clip differs from what was asked in each of shape, colour, motion
and setting with a probability of its own, and may have a flaw of the drawn world's training generators; half of the
pairs differ in one of these alone. Chains, marks and the preference are the world's true ones. The table is one that
`descore train` reads; a smaller one is the beginning of a larger one."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from descore.data.write import table_writer
from descore.io import make_directory
from descore.rubric import marks_json
from descore.synthetic.generators import TRAINING_GENERATORS, Flaws, flaws_of, is_plain
from descore.synthetic.scene import ATTRIBUTES, Scene, is_held_out, with_value
from descore.synthetic.splits import Plan, draw_plan
from descore.synthetic.truth import true_chain, true_preference, true_verdict
from descore.video.encoder import write_mp4
from experiments.generator.rewards import enlarged_frames
from experiments.generator.world import ACTIONS, ASKED, FPS, SIDE, Ask, Part, ask
from experiments.harness import one_line_errors, positive

VARIED = ("shape", "colour", "action", "setting")
WRONG, HARD = 0.3, 0.5
"""Probability that a clip shows another value of an attribute; share of pairs that differ in one respect alone."""
FIRST = 10_000
"""Number of the first prompt, beyond those of the judge's limits and of the reward's check."""
_SIDES = ("video", "chain", "marks", "rating", "source")
COLUMNS = ("prompt", "preference", "group", *(f"{name}_{side}" for side in "ab" for name in _SIDES))


def plan_world_pair(index: int) -> tuple[Plan, Plan]:
    """Pair number `index`, not drawn yet."""
    rng, asked = np.random.default_rng((2020, 64, index)), ask(Part.CALIBRATION, FIRST + index)
    first = _take(asked, _varied(asked.scene, rng), rng, seed=(index, 0))
    if rng.random() < HARD:
        second = _similar(asked, first, rng, seed=(index, 1))
    else:
        second = _take(asked, _varied(asked.scene, rng), rng, seed=(index, 1))
    return (second, first) if rng.random() < 0.5 else (first, second)


def write_world_pairs(*, count: int, out: Path, first: int = 0) -> None:
    """Draw the pairs at the generator's size, and write clips at the rewards' size, and the table."""
    make_directory(out / "clips")

    def rows() -> Iterator[dict[str, str]]:
        for index in range(first, first + count):
            both = plan_world_pair(index)
            row = {"prompt": both[0].prompt, "group": both[0].prompt}
            row["preference"] = true_preference(both[0].verdict, both[1].verdict)
            for letter, plan in zip("ab", both, strict=True):
                name = f"clips/{index:05d}-{letter}.mp4"
                frames = draw_plan(plan, size=(SIDE, SIDE)).clip.frames
                # Flaws are part of the truth: what the encoder adds stays far below them.
                write_mp4(out / name, enlarged_frames(frames), fps=int(FPS), options={"crf": "8"})
                cells = (
                    name,
                    plan.chain,
                    marks_json(plan.verdict.marks),
                    f"{plan.verdict.overall:.2f}",
                    plan.generator,
                )
                row |= {f"{key}_{letter}": cell for key, cell in zip(_SIDES, cells, strict=True)}
            yield row

    with table_writer(out / "pairs.csv", COLUMNS, overwrite=True) as write:
        for row in rows():
            write(row)


@one_line_errors()
def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=positive, default=1200, help="pairs (default 1200)")
    parser.add_argument("--first", type=int, default=0, help="number of the first pair, for pairs of their own")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_world_pairs(count=options.count, out=options.out, first=options.first)
    print(options.out / "pairs.csv")


def _varied(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with some other values; never a combination that training does not show."""
    while True:
        shown = scene
        for name in VARIED:
            if rng.random() < WRONG:
                shown = _another(shown, name, rng)
        if not is_held_out(shown):
            return shown


def _another(scene: Scene, name: str, rng: np.random.Generator) -> Scene:
    values = ACTIONS if name == "action" else tuple(ATTRIBUTES[name])
    others = [value for value in values if value is not getattr(scene, name)]
    return with_value(scene, name, others[int(rng.integers(len(others)))])


def _take(asked: Ask, shown: Scene, rng: np.random.Generator, *, seed: tuple[int, ...]) -> Plan:
    generator = TRAINING_GENERATORS[int(rng.integers(len(TRAINING_GENERATORS)))]
    return _plan(asked, shown, flaws_of(generator, shown, rng), generator=generator.name, seed=seed)


def _similar(asked: Ask, plan: Plan, rng: np.random.Generator, *, seed: tuple[int, ...]) -> Plan:
    """The clip again with one attribute set right if it was wrong, and wrong if it was right, or with another flaw."""
    while True:
        name = (*VARIED, "flaw")[int(rng.integers(len(VARIED) + 1))]
        if name == "flaw":
            return _take(asked, plan.shown, rng, seed=seed)
        wanted = getattr(asked.scene, name)
        is_right = getattr(plan.shown, name) is wanted
        shown = _another(plan.shown, name, rng) if is_right else with_value(plan.shown, name, wanted)
        if not is_held_out(shown):
            flaws = tuple(flaw for flaw in plan.flaws if is_plain(flaw, shown))
            return _plan(asked, shown, flaws, generator=plan.generator, seed=seed)


def _plan(asked: Ask, shown: Scene, flaws: Flaws, *, generator: str, seed: tuple[int, ...]) -> Plan:
    return Plan(
        prompt=asked.prompt,
        chain=true_chain(asked.scene, shown, ASKED, flaws),
        verdict=true_verdict(asked.scene, shown, ASKED, flaws),
        asked=asked.scene,
        shown=shown,
        request=ASKED,
        flaws=flaws,
        generator=generator,
        seed=(2020, *seed),
    )


if __name__ == "__main__":
    main()
