"""A table of a million written examples: the Arrow file that training maps into memory against a list of dictionaries.

Both ways read and check the same CSV with the same reader, and then access the same 10,000 rows at random. `peak` is
the most that reading the table adds, `held` the private memory that stays, and `mapped` the accessed pages of the file,
which the system takes back when it needs them and which all worker processes share.

    python -m benchmarks.index_memory [--rows 1000000]"""

import csv
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import added_peak, environment, option_parser, resident
from descore.training.dataset import ArrowTable
from descore.training.sft import index_table, read_examples

ACCESSED = 10_000
CHAIN = "The prompt asks for a red ball that rolls to the left. I see a red ball, and it rolls to the left. " * 3


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    print(environment())
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "train.csv"
        write_table(table, rows)
        warm_up(Path(folder) / "few.csv")
        print(f"{rows:,} rows, {table.stat().st_size / 2**20:,.0f} MiB of CSV")
        print(f"{'':>16} {'peak':>9} {'held':>9} {'mapped':>9} {'a row':>9}")

        arrow = measure("Arrow, mapped", lambda: mapped(table), rows=rows)
        listed = measure("list of dicts", lambda: list(read_examples(table)), rows=rows)
        # Below one MiB the measurement is too coarse for a ratio.
        peak, held = (theirs / max(ours, 1.0) for ours, theirs in zip(arrow, listed, strict=True))
        print(f"{'ratio':>16} {peak:>9.0f} {held:>9.0f}")


def mapped(table: Path) -> ArrowTable:
    """Our way: the rows behind a file that is written once."""
    index_table(table, table.with_suffix(".arrow"))
    return ArrowTable(table.with_suffix(".arrow"))


def warm_up(table: Path) -> None:
    """Read a small table in both ways, so that what packages keep from their first use does not count."""
    write_table(table, 5_000)
    assert mapped(table)[4_999] == list(read_examples(table))[4_999], "the two ways do not read the same"


def write_table(table: Path, rows: int) -> None:
    """Write rows of different texts, as long as those of the drawn world."""
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "video", "chain"])
        for row in range(rows):
            writer.writerow([f"a red ball rolls to the left, take {row}", f"clips/{row}.mp4", f"{CHAIN}{row}"])


def measure(name: str, read: Callable[[], Any], *, rows: int) -> tuple[float, float]:
    """Print a way's row. MiB at the peak, and MiB held."""
    table: list[Any] = []
    anonymous, file = resident("RssAnon"), resident("RssFile")
    peak = added_peak(lambda: table.append(read()))
    picked = random.Random(0).choices(range(rows), k=ACCESSED)
    start = time.perf_counter()
    for row in picked:
        assert table[0][row]["line"] == row + 2, "the wrong row"
    seconds = time.perf_counter() - start
    held, mapped = resident("RssAnon") - anonymous, resident("RssFile") - file
    mebibytes = " ".join(f"{value:>5.1f} MiB" for value in (peak, held, mapped))
    print(f"{name:>16} {mebibytes} {1e6 * seconds / ACCESSED:>6.1f} µs", flush=True)
    return peak, held


if __name__ == "__main__":
    main()
