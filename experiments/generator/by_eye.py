"""The judge against a person, on generated clips.

    python -m experiments.generator.by_eye --model runs/generator/model --out runs/by_eye   # sheets and a table
    python -m experiments.generator.by_eye --out runs/by_eye --compare [--record FILE]      # once the table is filled

The first command makes 100 clips of prompts that nothing was chosen on, sheets of them with their numbers alone, and
eye.csv with a line for each clip: a person writes what they see into its columns shape, colour, action and setting, in
the world's words, or `none`. The sheets show neither the prompt nor what the judge sees. The second prints how often
the judge says the same, with intervals at 95 % over clips, and the clips where it does not."""

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from descore.data.write import table_writer
from descore.errors import ConfigError, DataError
from descore.evaluation.records import to_plain
from descore.stats.bootstrap import bootstrap_mean, with_exact_interval
from descore.synthetic.scene import Colour, Setting, Shape
from experiments.generator.flow import generate
from experiments.generator.judge import Seen, look
from experiments.generator.model import Generator
from experiments.generator.sheets import write_sheet
from experiments.generator.world import ACTIONS, Part, ask
from experiments.harness import format_figure, markdown_table, one_line_errors, positive, write_record

CLIPS, A_SHEET = 100, 20
FIRST = 1000
"""Number of the first prompt, beyond those of the other studies."""
TABLE, NONE = "eye.csv", "none"
WORDS: Mapping[str, tuple[str, ...]] = {
    "shape": tuple(one.value for one in Shape),
    "colour": tuple(one.value for one in Colour),
    "action": tuple(one.value for one in ACTIONS),
    "setting": tuple(one.value for one in Setting),
}
"""By column, what may be written beside `none`."""


@one_line_errors()
def main() -> None:
    """Make sheets and table, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a grown generator")
    parser.add_argument("--clips", type=positive, default=CLIPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--record", type=Path, help="where the agreement is written as JSON")
    options = parser.parse_args()
    if not options.compare:
        if options.model is None:
            parser.error("expected --model, or --compare once the table is filled")
        make(Generator.load(options.model), clips=options.clips, out=options.out)
        return
    record = compare(options.out)
    print(tables(record))
    if options.record:
        write_record(options.record, record)


def make(model: Generator, *, clips: int, out: Path) -> None:
    """Clips, sheets, and the table to fill."""
    asks = [ask(Part.TEST, FIRST + number) for number in range(clips)]
    made = generate(model, [one.prompt for one in asks], list(range(FIRST, FIRST + clips)))
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "clips.npy", np.stack(made))
    for first in range(0, clips, A_SHEET):
        numbers = range(first, min(first + A_SHEET, clips))
        captions = [str(number) for number in numbers]
        write_sheet(out / f"sheet-{first:03d}.png", [made[number] for number in numbers], captions)
    with table_writer(out / TABLE, ("clip", *WORDS)) as write:
        for number in range(clips):
            write({"clip": number, **dict.fromkeys(WORDS, "")})
    print(f"{out / TABLE}: write what you see of each clip; one of the world's words, or {NONE}")


def compare(out: Path) -> dict[str, Any]:
    """Agreement by column, and the clips where judge and person differ."""
    rows, clips = read_eye(out / TABLE), np.load(out / "clips.npy")
    seen = {number: judged_words(look(clips[number])) for number in rows}
    same = {
        column: np.asarray([float(seen[number][column] == row[column]) for number, row in rows.items()])
        for column in WORDS
    }
    differ = [
        {"clip": number, "column": column, "person": row[column], "judge": seen[number][column]}
        for number, row in rows.items()
        for column in WORDS
        if seen[number][column] != row[column]
    ]
    agreement = {
        column: with_exact_interval(bootstrap_mean(hits, np.arange(len(hits)))) for column, hits in same.items()
    }
    return {"clips": len(rows), "agreement": to_plain(agreement), "differ": differ}


def read_eye(path: Path) -> dict[int, dict[str, str]]:
    """What a person wrote, by clip. ConfigError if nothing is written, DataError for a word that is not the world's."""
    rows: dict[int, dict[str, str]] = {}
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; make sheets and table with --model first")
    with path.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            if not any(row[column] for column in WORDS):
                continue
            for column, words in WORDS.items():
                if row[column] not in (*words, NONE):
                    expected = ", ".join((*words, NONE))
                    raise DataError(str(path), line, f"{column} is '{row[column]}', expected one of {expected}")
            rows[int(row["clip"])] = {column: row[column] for column in WORDS}
    if not rows:
        raise ConfigError(f"{path}: no line is filled; write what you see of each clip")
    return rows


def judged_words(seen: Seen) -> dict[str, str]:
    """What the judge sees, in the words of the table."""
    shape = seen.shape
    values = {
        "shape": shape and shape.shape,
        "colour": shape and shape.colour,
        "action": shape and shape.action,
        "setting": seen.setting,
    }
    return {column: value.value if value else NONE for column, value in values.items()}


def tables(record: Mapping[str, Any]) -> str:
    """Agreement, and where the two differ."""
    agreement: dict[tuple[str, ...], list[str]] = {
        (column,): [format_figure(figure, ".3f")] for column, figure in record["agreement"].items()
    }
    differ: dict[tuple[str, ...], list[str]] = {
        (str(row["clip"]), row["column"]): [row["person"], row["judge"]] for row in record["differ"]
    }
    return (
        f"{record['clips']} clips\n\n{markdown_table(['seen', 'the same'], agreement)}\n\n"
        f"{markdown_table(['clip', 'seen', 'person', 'judge'], differ)}"
    )


if __name__ == "__main__":
    main()
