"""Pairs of a generator's own clips, labelled by the judge: to refresh a reward that the generator has learned to
please, and to train siblings of it on.

    python -m experiments.generator.judged_pairs --model runs/grpo-think/model --out runs/refresh
    descore data check runs/refresh/pairs.csv
    descore train rl experiments/generator/refresh.yaml data.train=runs/refresh/pairs.csv model.checkpoint=tiny ...

Makes clips for prompts that no look and no best of N has, and pairs the clips of each prompt: every two of them, or
at most --per-prompt pairs with the largest differences. The better one by the judge's overall is preferred; a
difference below TIE is a tie. Which clip is a is drawn. Each clip has marks, from which the policy of stage 2 learns
what to write of such clips. With --told, pairs are of those clips alone of which the judge sees every part, and have
chains that tell it: rewards that read behind chains and rewards that do not can then be refreshed alike, by `descore
train cold-start`. The table is one that `descore train` reads."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from descore.data.write import table_writer
from descore.io import make_directory
from descore.rubric import marks_json
from descore.synthetic.generators import Flaw, Flaws
from descore.synthetic.scene import Scene
from descore.synthetic.truth import true_chain, true_verdict
from descore.types import DIMENSIONS, Mark, Preference
from descore.video.encoder import write_mp4
from experiments.generator.flow import GUIDANCE, generate
from experiments.generator.judge import Judged, judge
from experiments.generator.model import Generator
from experiments.generator.rewards import enlarged_frames
from experiments.generator.world import ASKED, FPS, Part, ask
from experiments.harness import one_line_errors, positive

TIE = 0.03
"""Of the judge's overall: the picture's part alone moves it by so much between clips that look alike."""
FIRST = 500_000
"""Number of the first prompt, beyond those of the training methods."""
CLEAN, BLURRED = 0.8, 0.65
"""The judge's picture from which a chain calls it good, and slightly blurred; below it is badly blurred."""
_SIDES = ("video", "chain", "marks")
COLUMNS = ("prompt", *(f"{name}_{side}" for side in "ab" for name in _SIDES), "preference", "group", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair:
    """Two clips of a prompt, by number, and which of them the judge prefers."""

    a: int
    b: int
    preference: Preference


def judged_pairs(overall: Sequence[float], *, most: int, rng: np.random.Generator) -> list[JudgedPair]:
    """At most so many pairs of a prompt's clips, those with the largest differences first."""
    by_difference = sorted(
        combinations(range(len(overall)), 2), key=lambda two: -abs(overall[two[0]] - overall[two[1]])
    )
    pairs = []
    for first, second in by_difference[:most]:
        a, b = (second, first) if rng.random() < 0.5 else (first, second)
        difference = overall[a] - overall[b]
        preference: Preference = "tie" if abs(difference) < TIE else "a" if difference > 0 else "b"
        pairs.append(JudgedPair(a=a, b=b, preference=preference))
    return pairs


def judged_marks(judged: Judged) -> dict[str, Mark]:
    """The rubric's marks of what the judge has seen, as the world's true ones are given: `synthetic.truth.true_marks`.
    Prompts ask for no camera, and how the picture is has no mark, for the judge's measures know no two limits."""
    shape, parts = judged.seen.shape, judged.parts
    looks = [shape is not None and not shape.several, parts["colour"] == 1, parts["shape"] == 1]  # number first
    moves: dict[float, Mark] = {1.0: 2, 0.5: 1, 0.0: 0}
    known: dict[str, Mark] = {
        "subject": 2 if all(looks) else 1 if any(looks) else 0,
        "dynamics": moves[parts["motion"]],
        "environment": 2 if parts["setting"] == 1 else 0,
    }
    return {name: known.get(name) for name in DIMENSIONS}


def judged_chain(judged: Judged, asked: Scene) -> tuple[str, dict[str, Mark]] | None:
    """What the judge has seen as the world's chains tell it, and its marks; None unless it has seen every part."""
    shape, setting = judged.seen.shape, judged.seen.setting
    if shape is None or shape.several or shape.colour is None or shape.action is None or setting is None:
        return None
    shown = replace(asked, shape=shape.shape, colour=shape.colour, action=shape.action, setting=setting)
    flaws = _blur(judged.parts["picture"])
    return true_chain(asked, shown, ASKED, flaws), dict(true_verdict(asked, shown, ASKED, flaws).marks)


def _blur(picture: float) -> Flaws:
    """What stands for all that is wrong with a picture."""
    if picture >= CLEAN:
        return ()
    return (Flaw(name="blur", strength=0.35 if picture >= BLURRED else 0.72),)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedClips:
    """What of a generator's clips a table is made of."""

    prompts: int
    clips: int
    """Of each prompt."""
    per_prompt: int
    """Pairs of each prompt at most."""
    guidance: float = GUIDANCE
    seed: int = 0
    told: bool = False
    """Pairs of clips that have a chain alone."""


def write_judged_pairs(model: Generator, chosen: JudgedClips, *, source: str, out: Path) -> None:
    """Make the clips, and write them and the table."""
    make_directory(out / "clips")
    rng = np.random.default_rng(chosen.seed)

    def rows() -> Iterator[dict[str, str]]:
        for number in range(chosen.prompts):
            asked = ask(Part.UPDATES, FIRST + number)
            seeds = [(chosen.seed * 100_000 + FIRST + number) * 100 + index for index in range(chosen.clips)]
            made = generate(model, [asked.prompt] * chosen.clips, seeds, guidance=chosen.guidance)
            judged = [judge(frames, asked.scene) for frames in made]
            cells = {}
            for index, one in enumerate(judged):
                told = judged_chain(one, asked.scene) if chosen.told else ("", judged_marks(one))
                if told is None:
                    continue
                name = f"clips/{number:04d}-{index}.mp4"
                write_mp4(out / name, enlarged_frames(made[index]), fps=int(FPS), options={"crf": "8"})
                cells[index] = (name, told[0], marks_json(told[1]))
            known = list(cells)
            for pair in judged_pairs([judged[index].overall for index in known], most=chosen.per_prompt, rng=rng):
                sides = (*cells[known[pair.a]], *cells[known[pair.b]])
                yield dict(zip(COLUMNS, (asked.prompt, *sides, pair.preference, asked.prompt, source), strict=True))

    with table_writer(out / "pairs.csv", COLUMNS, overwrite=True) as write:
        for row in rows():
            write(row)


@one_line_errors()
def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a generator")
    parser.add_argument("--prompts", type=positive, default=96)
    parser.add_argument("--clips", type=positive, default=4, help="of each prompt")
    parser.add_argument("--per-prompt", type=positive, default=3, help="pairs of each prompt at most")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help=f"of the clips (default {GUIDANCE:g})")
    parser.add_argument(
        "--told", action="store_true", help="only clips of which the judge sees every part, with chains"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    chosen = JudgedClips(**{name: getattr(options, name) for name in JudgedClips.__dataclass_fields__})
    write_judged_pairs(Generator.load(options.model), chosen, source=options.model.parent.name, out=options.out)
    print(options.out / "pairs.csv")


if __name__ == "__main__":
    main()
