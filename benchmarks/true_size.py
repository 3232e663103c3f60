"""Everything that is measured at the true size, on one GPU, our way and the other way in one process.

    python -m benchmarks.true_size [--size 8B] [--out true_size.json] [--only NAME ...]

Qwen3-VL by its config with random weights in bfloat16, built on the GPU; a clip of about 4,100 tokens; chains that run
to their limit, so that all ways do the same work. It needs torch, transformers, peft, accelerate and `av`, and for 8B
80 GB. Figures are printed as they come, beside the ceilings of this card (a large matrix product, a copy, and the time
to read all weights once, which is the floor of a step), and written as JSON. A part that fails is recorded with its
reason, and the others go on.

A step is the time of a whole chain, reward included, over its tokens, once it is warm: with one CUDA graph a step and
norms, MLPs and rotary embedding compiled (`graph`), with the graph alone (`uncompiled`), by the plain loop (`plain`),
and by transformers' `num_return_sequences` (`transformers`)."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from benchmarks.measure import environment, option_parser, print_row
from benchmarks.models import SIZES, Size, noise_clip, true_size_filled
from benchmarks.rl_update import Group, peak_of, random_chains
from descore.model.chat import Inputs
from descore.model.decoding import StepGraphs, merged_adapters
from descore.model.generation import (
    SHARED_PREFIX,
    ChainWriter,
    attending_by,
    score_chains,
    suppressed_token_ids,
)
from descore.model.modeling import DescoreModel
from descore.training.losses import bradley_terry
from descore.training.rl import packing
from descore.training.rl.rollout import encode_frozen_vision

FAULTS = (RuntimeError, ImportError, OSError, AttributeError, TypeError, ValueError, AssertionError, KeyError)
"""What a part may fail with, and the others go on: memory that is short, missing kernels, another version."""
Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is measured."""

    frames: int = 42
    edge: int = 448
    steps: int = 64
    """Tokens of the chains that a step is measured by."""
    chain: int = 600
    samples: tuple[int, ...] = (1, 8, 32)
    group: int = 8
    matrix: int = 8192
    device: str = "cuda"


@dataclass(frozen=True, slots=True)
class Bench:
    """A model with adapters on its language model, and the clip."""

    model: DescoreModel
    work: Work

    def prompts(self, clips: int = 1) -> Inputs:
        """Laid-out prompts of different clips."""
        made = [noise_clip(seed, frames=self.work.frames, edge=self.work.edge) for seed in range(clips)]
        laid_out = self.model.chat.lay_out_prompts(made, ["a red ball"] * clips)
        return {name: value.to(self.work.device) for name, value in laid_out.items()}

    def seconds(self, work: Callable[[], object], *, repeats: int = 1, warm: bool = True) -> float:
        """Of one run, behind one to warm up."""
        if warm:
            work()
        self.wait()
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - begin) / repeats

    def wait(self) -> None:
        """Until the GPU is done."""
        if self.work.device == "cuda":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def written(
        self, prompts: Inputs, *, samples: int, tokens: int, graphs: StepGraphs | None, merge: bool = True
    ) -> float:
        """Seconds a step of chains of so many tokens, their prefill apart."""
        end, rows = self.model.chat.end_id, samples * len(prompts["input_ids"])
        uniform_RN, took = np.zeros((rows, tokens)), 0.0
        with merged_adapters(self.model.backbone) if merge else nullcontext():
            # Storage grows in the first run, and graphs are captured for good in the second.
            for _ in range(3 if graphs else 2):
                writer = ChainWriter(
                    self.model, prompts, samples=samples, temperature=0.0, uniform_RN=uniform_RN, graphs=graphs
                )
                writer.suppressed = torch.cat([writer.suppressed, writer.suppressed.new_tensor([end])])
                writer.logits_RV[:, end] = -torch.inf
                took = self.seconds(writer.write, warm=False)
        return took / tokens

    @torch.inference_mode()
    def generated(self, prompts: Inputs, *, samples: int, tokens: int) -> float:
        """Seconds of transformers' `num_return_sequences`, prefill included. It is greedy by a top_k of 1."""
        chat = self.model.chat
        config = GenerationConfig(
            do_sample=True,
            top_k=1,
            num_return_sequences=samples,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            eos_token_id=chat.end_id,
            pad_token_id=chat.pad_id,
            suppress_tokens=[*suppressed_token_ids(self.model), chat.end_id],
        )
        with merged_adapters(self.model.backbone):
            return self.seconds(lambda: self.model.backbone.generate(**prompts, generation_config=config), warm=False)

    def graphs(self, **options: object) -> StepGraphs | None:
        """New graphs; None where there are none to capture."""
        return StepGraphs(**options) if self.work.device == "cuda" else None  # type: ignore[arg-type]


def ceilings(bench: Bench) -> Figures:
    """What this card does at best, and the floor of a step."""
    dtype, device, n = bench.model.backbone.dtype, bench.work.device, bench.work.matrix
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    source = torch.empty(n * n * 8, dtype=dtype, device=device)
    target = torch.empty_like(source)
    product = bench.seconds(lambda: a @ b, repeats=10)
    copy = bench.seconds(lambda: target.copy_(source), repeats=10)
    weights = sum(weight.nbytes for name, weight in bench.model.backbone.named_parameters() if ".lora_" not in name)
    bandwidth = 2 * source.nbytes / copy
    return {
        "matmul_tflops": 2 * n**3 / product / 1e12,
        "copy_tb_per_s": bandwidth / 1e12,
        "weights_gb": weights / 1e9,
        "floor_ms": 1e3 * weights / bandwidth,
    }


@torch.inference_mode()
def prefill(bench: Bench) -> Figures:
    """Reading the clip and its prompt."""
    prompts = bench.prompts()
    positions = bench.model.family.positions(bench.model.backbone, prompts)

    def read() -> Tensor:
        encoded = bench.model.family.encode_vision(bench.model.backbone, prompts)
        hidden: Tensor = bench.model.family.last_hidden(bench.model.backbone, encoded, position_ids=positions)
        return hidden

    with merged_adapters(bench.model.backbone):
        return {"tokens": prompts["input_ids"].shape[1], "seconds": bench.seconds(read, repeats=2)}


def steps(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """A step for each K, by each way."""
    prompts, tokens = bench.prompts(), bench.work.steps
    for samples in bench.work.samples:
        write = partial(bench.written, prompts, samples=samples, tokens=tokens)
        compiled = bench.graphs()
        found = {"graph_ms": 1e3 * write(graphs=compiled)}
        found["uncompiled_ms"] = 1e3 * write(graphs=bench.graphs(compiler=None))
        found["plain_ms"] = 1e3 * write(graphs=None)
        short, whole = (bench.generated(prompts, samples=samples, tokens=n) for n in (tokens // 4, tokens))
        found["transformers_ms"] = 1e3 * (whole - short) / (tokens - tokens // 4)
        found["captured"] = len(compiled.steps) if compiled else 0
        yield f"a step, K = {samples}", found
        if compiled and (compiled.fault or compiled.uncompiled):
            raise RuntimeError(f"path: {compiled.describe(bench.model)}")


def long_chains(bench: Bench) -> Figures:
    """K = 8 chains of 600: whole calls, tokens a second."""
    prompts, tokens, samples = bench.prompts(), bench.work.chain, bench.work.group
    ours = bench.written(prompts, samples=samples, tokens=tokens, graphs=bench.graphs()) * tokens
    ours += prefill(bench)["seconds"]
    theirs = bench.generated(prompts, samples=samples, tokens=tokens)
    return {"ours_s": ours, "transformers_s": theirs, "ratio": theirs / ours, "tokens_per_s": samples * tokens / ours}


def adapters(bench: Bench) -> Figures:
    """A step of K = 8 beside adapters, by the plain loop, and merging them."""
    write = partial(bench.written, bench.prompts(), samples=bench.work.group, tokens=bench.work.steps // 4, graphs=None)

    @torch.inference_mode()
    def merge() -> None:
        with merged_adapters(bench.model.backbone):
            pass

    return {
        "merged_ms": 1e3 * write(),
        "unmerged_ms": 1e3 * write(merge=False),
        "merging_ms": 1e3 * bench.seconds(merge),
    }


def many_clips(bench: Bench) -> Figures:
    """8 clips with 8 chains each."""
    size = bench.work.group
    step = bench.written(bench.prompts(size), samples=size, tokens=bench.work.steps, graphs=bench.graphs())
    return {"step_ms": 1e3 * step, "tokens_per_s": size**2 / step}


@torch.inference_mode()
def reward_on_top(bench: Bench) -> Figures:
    """The reward behind a chain: as one more step, and by reading all again."""
    prompts, tokens = bench.prompts(), bench.work.steps
    uniform_RN = np.zeros((1, tokens))
    with merged_adapters(bench.model.backbone):
        writer = ChainWriter(bench.model, prompts, samples=1, temperature=0.0, uniform_RN=uniform_RN)
        writer.write()
        seen_R = torch.tensor([tokens - 1], device=bench.work.device)

        def read() -> None:
            with attending_by(bench.model.backbone, SHARED_PREFIX):
                writer._read_rewards(seen_R, tokens - 1)

        chains = random_chains(bench.model, 1, tokens=tokens)
        again = bench.seconds(lambda: score_chains(bench.model, prompts, chains))
        return {"on_top_s": bench.seconds(read), "again_s": again}


def updates(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """G = 8 chains of 600: packed by flex_attention and by sdpa, with the rollout's features and without, and naive."""
    model, device = bench.model.train(), bench.work.device
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    autocast = partial(torch.autocast, device, dtype=torch.bfloat16)
    chains = random_chains(model, bench.work.group, tokens=bench.work.chain)
    group = Group(model, bench.prompts(), chains, autocast)
    with autocast():
        kept = replace(group, prompts=encode_frozen_vision(model, group.prompts))
    ways: dict[str, tuple[Callable[[], object], bool]] = {
        "flex, features kept": (kept.packed, True),
        "flex, video encoded again": (group.packed, True),
        "sdpa, features kept": (kept.packed, False),
        "naive": (group.naive, False),
    }
    try:
        for name, (way, flex) in ways.items():
            with nullcontext() if flex else without_flex():
                peak = peak_of(way)  # which warms it up
                yield f"an update, {name}", {"seconds": bench.seconds(way, warm=False), "peak_mib": peak}
    finally:
        model.zero_grad(set_to_none=True)
        model.backbone.gradient_checkpointing_disable()
        model.eval()


def without_flex() -> AbstractContextManager[object]:
    """Packs attend by sdpa under a mask."""
    return patch.object(packing, "flex_fault", lambda *_: "left out")


def cold_start(bench: Bench) -> Figures:
    """A step on a pair of clips with a chain of 600 each."""
    model = bench.model.train()
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    prompts = bench.prompts(2)
    inputs = model.chat.lay_out_chains(prompts, random_chains(model, 2, tokens=bench.work.chain))
    inputs.pop("chain_mask")

    def step() -> None:
        with torch.autocast(bench.work.device, dtype=torch.bfloat16):
            margin_BK = -model(inputs).diff(dim=0)
        bradley_terry(margin_BK, torch.ones_like(margin_BK, dtype=torch.bool)).backward()

    try:
        peak = peak_of(step)
        return {"seconds": bench.seconds(step, warm=False), "peak_mib": peak}
    finally:
        model.zero_grad(set_to_none=True)
        model.backbone.gradient_checkpointing_disable()
        model.eval()


PARTS: dict[str, Callable[[Bench], Figures | Iterator[tuple[str, Figures]]]] = {
    "ceilings": ceilings,
    "prefill": prefill,
    "steps": steps,
    "long_chains": long_chains,
    "adapters": adapters,
    "many_clips": many_clips,
    "reward_on_top": reward_on_top,
    "updates": updates,
    "cold_start": cold_start,
}
"""In order of what matters, should time run out."""


def measure(bench: Bench, out: Path, *, only: list[str] | None = None) -> dict[str, object]:
    """Print and write all parts; after each, what there is so far."""
    card = torch.cuda.get_device_name() if bench.work.device == "cuda" else "CPU"
    record: dict[str, object] = {"card": card, "environment": environment(), "failed": {}}
    for name in only or PARTS:
        begin = time.perf_counter()
        try:
            found = PARTS[name](bench)
            for row, figures in [(name, found)] if isinstance(found, dict) else found:
                record[row] = figures
                print_row((f"{row:<36}", *(f"{key} {value:,.4g}" for key, value in figures.items())), width=1)
        except (*FAULTS, subprocess.SubprocessError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            record["failed"] |= {name: f"{type(error).__name__}: {reason}"}  # type: ignore[operator]
            print_row((f"{name:<36}", "failed:", reason), width=1)
        record[f"{name}: seconds in all"] = time.perf_counter() - begin
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if bench.work.device == "cuda":
            torch.cuda.empty_cache()
    return record


def build(size: Size, work: Work) -> Bench:
    """The model, on its device from the start."""
    return Bench(true_size_filled(size, learns="lora", device=work.device).eval(), work)


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--size", choices=SIZES, default="8B")
    parser.add_argument("--out", type=Path, default=Path("true_size.json"))
    parser.add_argument("--only", choices=PARTS, nargs="+", help="these parts alone")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("true_size: found no GPU that torch can use; expected one of 80 GB for 8B")
    begin = time.perf_counter()
    bench = build(SIZES[options.size], Work())
    print(
        f"{environment()}, {torch.cuda.get_device_name()}; {options.size} built in {time.perf_counter() - begin:.1f} s"
    )
    measure(bench, options.out, only=options.only)


if __name__ == "__main__":
    main()
