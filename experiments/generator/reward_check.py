"""What each reward can tell apart in this world, at this size, before any generator is chosen or trained by it.

    python -m experiments.generator.reward_check [--rewards think chains off] [--pairs 40] [--as-they-are] [--out FILE]

For each prompt a drawn clip that shows what was asked, and five that do not: another shape, colour, motion or setting,
or a flaw of the picture. Prints how often the right one has the higher reward, with intervals at 95 % over prompts. A
reward that cannot tell a part apart in drawn clips can neither choose nor train by it."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from descore.evaluation.records import to_plain
from descore.stats.bootstrap import bootstrap_mean, with_exact_interval
from descore.synthetic.degradations import degrade
from descore.synthetic.rendering import render_scene
from descore.synthetic.scene import ATTRIBUTES, Scene, is_held_out, with_value
from experiments.generator.rewards import ENLARGE, open_rewards
from experiments.generator.world import ACTIONS, FRAMES, SIDE, Frames, Part, ask
from experiments.harness import format_figure, markdown_table, one_line_errors, positive, quiet, write_record

CHANGES = ("shape", "colour", "action", "setting", "picture")
FLAW, STRENGTH = "blur", 0.6
"""Of the picture."""
FIRST = 5000
"""Number of the first prompt, beyond those of the judge's limits."""


@one_line_errors()
def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rewards", nargs="+", default=["think", "chains", "off"], help="names, or NAME=CHECKPOINT")
    parser.add_argument("--pairs", type=positive, default=40, help="of each kind (default 40)")
    parser.add_argument("--as-they-are", action="store_true", help="score clips at 64 pixels, not enlarged")
    parser.add_argument("--out", type=Path, help="where the figures are written as JSON")
    options = parser.parse_args()
    quiet()
    record = check(options.rewards, pairs=options.pairs, enlarge=1 if options.as_they_are else ENLARGE)
    print(table(record))
    if options.out:
        write_record(options.out, record)


def check(rewards: Sequence[str], *, pairs: int, enlarge: int = ENLARGE) -> dict[str, Any]:
    """By name of a reward and by what was changed, the share of pairs in the right order; equal rewards count half."""
    groups = [clips_of(FIRST + number) for number in range(pairs)]
    kinds = ["right", *CHANGES]
    scores: dict[str, list[list[float]]] = {}
    for scorer in open_rewards(rewards, enlarge=enlarge).values():
        for number, (prompt, clips) in enumerate(groups):
            keys = [f"{number}/{kind}" for kind in kinds]
            for name, values in scorer([clips[kind] for kind in kinds], [prompt] * len(kinds), keys).items():
                scores.setdefault(name, []).append(values)
    return {
        "pairs": pairs,
        "enlarged": enlarge,
        "right": {name: _shares(np.asarray(values)) for name, values in scores.items()},
    }


def clips_of(index: int) -> tuple[str, dict[str, Frames]]:
    """A prompt, its right clip, and the five others. They share the generator's state, so that a changed colour leaves
    all else as it is."""
    asked, rng = ask(Part.CALIBRATION, index), np.random.default_rng(index)
    right = _drawn(asked.scene, index)
    changed = {name: _drawn(_with_another(asked.scene, name, rng), index) for name in CHANGES[:-1]}
    return asked.prompt, {"right": right, **changed, "picture": degrade(right, FLAW, strength=STRENGTH, rng=rng)}


def table(record: Mapping[str, Any]) -> str:
    """The shares as Markdown."""
    rows: dict[tuple[str, ...], list[str]] = {
        (name,): [format_figure(shares[change], ".2f") for change in CHANGES]
        for name, shares in record["right"].items()
    }
    return markdown_table(["reward", *CHANGES], rows)


def _drawn(scene: Scene, seed: int) -> Frames:
    return render_scene(scene, rng=np.random.default_rng(seed), frames=FRAMES, height=SIDE, width=SIDE)


def _with_another(scene: Scene, name: str, rng: np.random.Generator) -> Scene:
    """The scene with another value of the study's world; no combination that the rewards have never seen."""
    values = ACTIONS if name == "action" else tuple(ATTRIBUTES[name])
    others = [with_value(scene, name, value) for value in values if value is not getattr(scene, name)]
    kept = [one for one in others if not is_held_out(one)]
    return kept[int(rng.integers(len(kept)))]


def _shares(score_PK: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    """For each change, the share of prompts whose right clip has the higher reward; nan where one has none."""
    shares = {}
    for place, change in enumerate(CHANGES, start=1):
        lead_P = score_PK[:, 0] - score_PK[:, place]
        hit_P = np.where(np.isnan(lead_P), np.nan, (np.sign(lead_P) + 1) / 2)
        shares[change] = to_plain(with_exact_interval(bootstrap_mean(hit_P, np.arange(len(hit_P)))))
    return shares


if __name__ == "__main__":
    main()
