"""Shared by the benchmarks: a small model, clips of noise, fair timing, and the line that says where it ran."""

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from descore.data.chat import QUERY_TOKEN
from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel
from descore.model.small import small_config, small_processor
from descore.types import Clip


def environment() -> str:
    """Where the figures come from."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "av"))
    return f"{os.cpu_count()} cores {platform.machine()}, {torch.get_num_threads()} threads, {packages}"


def bench_model() -> DescoreModel:
    """The bundled model's sizes with random weights: chains run to the limit, so all ways do the same work."""
    torch.manual_seed(0)
    processor = small_processor(["a red ball rolls to the left <0.5 seconds>"], vocabulary=1024)
    processor.tokenizer.add_tokens([QUERY_TOKEN], special_tokens=True)
    config = small_config(processor, vocabulary=1024)
    settings = CheckpointSettings(trained_on="nothing: a benchmark")
    return DescoreModel.from_backbone(config, processor=processor, settings=settings, rubric="{prompt}").eval()


def noise_clip(seed: int, *, frames: int, edge: int = 64) -> Clip:
    """Random pixels at two frames a second."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, edge, edge, 3), dtype=np.uint8)
    return Clip(
        frames=pixels,
        times=tuple(t / 2 for t in range(frames)),
        source="<noise>",
        source_fps=2.0,
        source_size=(edge, edge),
        source_frames=frames,
        duration=frames / 2,
    )


def prompt_of_tokens(model: DescoreModel, clip: Clip, tokens: int) -> str:
    """A prompt that brings the whole user turn to about that many tokens."""
    without = model.chat.lay_out_prompts([clip], ["x"])["input_ids"].shape[1]
    return "x" + " q" * max(0, (tokens - without) // 2)


def interleaved(ways: dict[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median seconds of each way, after one run to warm up; the ways take turns, so that a disturbance hits all."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
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
    """MiB of this process's memory of a kind, by the names of /proc/self/status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024
