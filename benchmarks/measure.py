"""What the benchmarks share: interleaved timing, peak memory, options, and the rows of a table."""

import argparse
import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch

MIB = 1 << 20
FORMER_TINY = Path(__file__).parent / "former_tiny"
"""The model that was bundled before: a Qwen3-VL, which vLLM runs, and which recorded studies began with."""


def option_parser(doc: str | None, *, repeats: int | None = None) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring, with --repeats if it has a default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help=f"timed runs of each way (default {repeats})")
    return parser


def portable(text: str) -> str:
    """The same with the former tiny's folder as it is called from the root of the repository, for records."""
    return text.replace(str(FORMER_TINY), "benchmarks/former_tiny")


def environment() -> str:
    """Cores, threads and versions, which the figures depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "av"))
    return f"{os.cpu_count()} cores {platform.machine()}, {torch.get_num_threads()} threads, {packages}"


def print_row(cells: Iterable[str], *, width: int) -> None:
    """Print the cells right-aligned in columns of this width."""
    print(" ".join(f"{cell:>{width}}" for cell in cells), flush=True)


def interleaved(variants: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median seconds of each way, after one run to warm up. The ways take turns, so that a disturbance hits all."""
    for work in variants.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, work in variants.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def added_peak(work: Callable[[], object]) -> float:
    """MiB by which `work` raises this process's memory at its peak (Linux: the peak is reset before)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(key: str) -> float:
    """MiB of this process's memory, by a key of /proc/self/status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024
