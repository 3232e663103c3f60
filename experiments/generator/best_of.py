"""Best of N: what a generator becomes when the best of its clips by a reward is kept, for N from 1 to 64.

    python -m experiments.generator.best_of --model runs/generator/model [--rewards think chains off random ...]
                                            [--prompts 16] [--most 64] [--seeds 3] [--out runs/best_of]

Makes `most` clips for each prompt and seed, scores each with every reward, and judges it. A clip and its numbers are
kept under OUT, and only what is missing is done: a stopped study goes on with the same command, and a larger one takes
over a smaller one. At the end it prints reward and truth against N, and how often each reward orders two clips of a
prompt as the truth does, with intervals that resample prompts. It writes them to OUT/record.json, and to OUT/sheets the
first clip of each prompt and the best by each reward."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from descore.evaluation.judges import package_versions
from descore.evaluation.records import to_plain
from descore.io import append_records, atomic_path, folder_digest, make_directory, read_records
from experiments.generator.curves import TRUTH, Group, ahead, curve, ordered, peak
from experiments.generator.flow import GUIDANCE, STEPS, generate
from experiments.generator.judge import judge
from experiments.generator.model import Generator
from experiments.generator.rewards import RewardScorer, open_rewards
from experiments.generator.sheets import write_sheet
from experiments.generator.world import Ask, Frames, Part, ask
from experiments.harness import format_figure, keep_plan, markdown_table, one_line_errors, positive, quiet, write_record

COUNTS = (1, 2, 4, 8, 16, 32, 64)
COMPARED = 16
"""Clips at which rewards are compared with one another, beside the most."""
DEFAULT_REWARDS = ("think", "chains", "off", "sharpness", "jerk", "random")
BATCH = 8
RECORD, PLAN, NUMBERS = "record.json", "plan.json", "numbers.jsonl"
JUDGED, MADE = "judge", "made"
"""Names of what is no reward: the judge, who gives TRUTH and its parts, and the making of clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The clips of one prompt and one seed of generation."""

    asked: Ask
    prompt: int
    seed: int
    folder: Path

    def noise_seed(self, index: int) -> int:
        """Of a clip's noise."""
        return (self.seed * 1000 + self.prompt) * 10_000 + index

    def file(self, index: int) -> Path:
        """Of a clip's frames."""
        return self.folder / f"{index:03d}.npy"

    def key(self, index: int) -> str:
        """A clip's name."""
        return f"seed-{self.seed}/prompt-{self.prompt:03d}/{index:03d}"


@one_line_errors()
def main() -> None:
    """Make, score and judge what is missing, and print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a grown generator")
    parser.add_argument("--rewards", nargs="+", default=list(DEFAULT_REWARDS), help="names, or NAME=CHECKPOINT")
    parser.add_argument("--prompts", type=positive, default=16)
    parser.add_argument("--most", type=positive, default=64, help="clips of each prompt and seed")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=STEPS, help=f"of sampling (default {STEPS})")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help=f"of sampling (default {GUIDANCE:g})")
    parser.add_argument("--out", type=Path, default=Path("runs/best_of"))
    options = parser.parse_args()
    quiet()
    cells = [
        Cell(asked=ask(Part.TEST, prompt), prompt=prompt, seed=seed, folder=_cell_folder(options.out, seed, prompt))
        for seed in range(options.seeds)
        for prompt in range(options.prompts)
    ]
    model, rewards = Generator.load(options.model), open_rewards(options.rewards)
    sampling = {"steps": options.steps, "guidance": options.guidance}
    otherwise = "holds clips of another generator or other sampling; choose another --out"
    keep_plan(options.out / PLAN, {"generator": folder_digest(options.model), **sampling}, otherwise=otherwise)
    make_clips(cells, model, most=options.most, **sampling)
    for name, scorer in {JUDGED: None, **rewards}.items():
        score_clips(cells, name, scorer, most=options.most)
    groups = [read_group(cell, most=options.most) for cell in cells]
    record = {**findings(groups, most=options.most), "seconds": costs(cells)}
    write_record(options.out / RECORD, record)
    write_sheets(cells, groups, out=options.out)
    print(tables(record))


def make_clips(cells: Sequence[Cell], model: Generator, *, most: int, steps: int, guidance: float) -> None:
    """Make the clips that are missing."""
    for number, cell in enumerate(cells, start=1):
        missing, began = [index for index in range(most) if not cell.file(index).is_file()], time.monotonic()
        for first in range(0, len(missing), BATCH):
            batch = missing[first : first + BATCH]
            seeds, prompts = [cell.noise_seed(index) for index in batch], [cell.asked.prompt] * len(batch)
            clips = generate(model, prompts, seeds, steps=steps, guidance=guidance)
            for index, frames in zip(batch, clips, strict=True):
                _write_clip(cell.file(index), frames)
        if missing:
            seconds = time.monotonic() - began
            append_records(cell.folder / NUMBERS, [{"name": MADE, "clips": len(missing), "seconds": seconds}])
            print(f"{number} of {len(cells)}: {len(missing)} clips in {seconds:.0f} s", flush=True)


def score_clips(cells: Sequence[Cell], name: str, scorer: RewardScorer | None, *, most: int) -> None:
    """Score the clips that have no numbers by this name; without a scorer, judge them."""
    for cell in cells:
        known = {row["clip"] for row in read_records(cell.folder / NUMBERS) if row["name"] == name}
        missing, began = [index for index in range(most) if index not in known], time.monotonic()
        for first in range(0, len(missing), BATCH):
            batch = missing[first : first + BATCH]
            clips = [np.load(cell.file(index)) for index in batch]
            values = _values(cell, batch, clips, scorer)
            share = (time.monotonic() - began) / len(batch)
            rows = [
                {"name": name, "clip": index, "seconds": share, "values": own}
                for index, own in zip(batch, values, strict=True)
            ]
            append_records(cell.folder / NUMBERS, rows, allow_nan=True)
            began = time.monotonic()


def _values(
    cell: Cell, batch: Sequence[int], clips: Sequence[Frames], scorer: RewardScorer | None
) -> list[dict[str, float]]:
    """The numbers of each clip."""
    if scorer is None:
        judged = [judge(frames, cell.asked.scene) for frames in clips]
        return [{TRUTH: one.overall, **{f"{TRUTH}.{name}": mark for name, mark in one.parts.items()}} for one in judged]
    scores = scorer(clips, [cell.asked.prompt] * len(clips), [cell.key(index) for index in batch])
    return [{name: values[place] for name, values in scores.items()} for place in range(len(clips))]


def read_group(cell: Cell, *, most: int) -> Group:
    """The numbers of a cell's first clips."""
    values: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for row in read_records(cell.folder / NUMBERS):
        if "clip" in row and row["clip"] < most:
            for name, value in row["values"].items():
                values.setdefault(name, np.full(most, np.nan))[row["clip"]] = value
    return Group(prompt=cell.asked.prompt, seed=cell.seed, values=values)


def findings(groups: Sequence[Group], *, most: int) -> dict[str, Any]:
    """For each reward the curves of itself, of the truth and of its parts against N, the N at which the truth is best,
    the share of pairs that it orders as the truth and its parts do, and how far ahead of the others it is at COMPARED
    clips and at the most."""
    counts = [count for count in COUNTS if count <= most]
    names = [name for name in groups[0].values if not name.startswith(TRUTH)]
    parts = [name for name in groups[0].values if name.startswith(f"{TRUTH}.")]
    curves = {
        name: {value: curve(groups, by=name, value=value, counts=counts) for value in (name, TRUTH, *parts)}
        for name in [*names, TRUTH]
    }
    return {
        "prompts": len({group.prompt for group in groups}),
        "seeds": len({group.seed for group in groups}),
        "clips": most,
        "versions": package_versions("descore", "torch", "transformers", "diffusers"),
        "curves": curves,
        "best_n": {name: peak(of[TRUTH]) for name, of in curves.items()},
        "ordered": {
            name: {value: to_plain(ordered(groups, by=name, value=value)) for value in (TRUTH, *parts)}
            for name in names
        },
        "ahead": {
            str(count): {
                name: {other: to_plain(ahead(groups, first=name, second=other, count=count)) for other in names}
                for name in names
            }
            for count in sorted({min(COMPARED, most), most})
        },
    }


def costs(cells: Sequence[Cell]) -> dict[str, float]:
    """Mean seconds of a clip: to make it, to judge it, and of each reward, as they were when it was done."""
    spent: dict[str, list[float]] = {}
    for cell in cells:
        for row in read_records(cell.folder / NUMBERS):
            each = [row["seconds"] / row["clips"]] * row["clips"] if row["name"] == MADE else [row["seconds"]]
            spent.setdefault(row["name"], []).extend(each)
    return {name: float(np.mean(seconds)) for name, seconds in spent.items()}


def tables(record: Mapping[str, Any]) -> str:
    """Truth against N for each reward, and the reward itself."""
    truth, own = dict[tuple[str, ...], list[str]](), dict[tuple[str, ...], list[str]]()
    for name, of in record["curves"].items():
        truth[(name,)] = [format_figure(row["mean"], ".3f") for row in of[TRUTH]]
        own[(name,)] = [format_figure(row["mean"], ".3f") for row in of[name]]
    head = [f"N = {row['n']}" for row in record["curves"][TRUTH][TRUTH]]
    seconds: dict[tuple[str, ...], list[str]] = {(name,): [f"{each:.2f}"] for name, each in record["seconds"].items()}
    values = list(next(iter(record["ordered"].values())))
    order: dict[tuple[str, ...], list[str]] = {
        (name,): [format_figure(of[value], ".3f") for value in values] for name, of in record["ordered"].items()
    }
    parts = (
        markdown_table(["truth by", *head], truth),
        markdown_table(["reward", *head], own),
        markdown_table(["ordered as", *values], order),
        markdown_table(["seconds of a clip", ""], seconds),
    )
    return "\n\n".join(parts)


def write_sheets(cells: Sequence[Cell], groups: Sequence[Group], *, out: Path) -> None:
    """For each prompt of the first seed, its first clip and the best of all by each reward."""
    for cell, group in zip(cells, groups, strict=True):
        if cell.seed:
            continue
        best = {name: int(np.nanargmax(value)) for name, value in group.values.items() if not np.isnan(value).all()}
        shown = {"first": 0, **{name: index for name, index in best.items() if "." not in name}}
        captions = [
            f"{name}: truth {group.values[TRUTH][index]:.2f}, {cell.asked.prompt}" for name, index in shown.items()
        ]
        clips = [np.load(cell.file(index)) for index in shown.values()]
        write_sheet(out / "sheets" / f"{cell.prompt:03d}.png", clips, captions, columns=1)


def _cell_folder(out: Path, seed: int, prompt: int) -> Path:
    folder = out / "clips" / f"seed-{seed}" / f"prompt-{prompt:03d}"
    make_directory(folder)
    return folder


def _write_clip(path: Path, frames: Frames) -> None:
    with atomic_path(path) as part, part.open("wb") as file:
        np.save(file, frames)


if __name__ == "__main__":
    main()
