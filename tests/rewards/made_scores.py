"""Scored tables that are made by hand."""

import csv
import json


def scored(prompt, video, reward, *, std=None, samples=1, score=None, error=None, **more):
    """A row. The chain names the clip."""
    row = {"prompt": prompt, "video": video, "reward": reward, "score": score, "std": std, "samples": samples}
    row |= {"chain": f"about {video}", "truncated": False, "error": error, "model": "tiny"}
    return row | ({"error": error or "no frames", "chain": None} if reward is None else {}) | more


def write(path, rows):
    """A table of rows, as `descore score TABLE` writes it; the columns are those of all rows."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({c: row.get(c) for c in columns}) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([{c: row.get(c) for c in columns} for row in rows]), path)
    return path
