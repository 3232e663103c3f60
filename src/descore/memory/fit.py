"""What of a model fits this card, or this machine's memory, from its config.json alone.

In: a checkpoint's folder or hub id. Out: the memory of scoring and of each stage, and the memory that there is."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from descore.errors import CheckpointError
from descore.memory.need import GIB, Bits, Learns, empty_model, scoring_need, step_need
from descore.model.checkpoint import BUNDLED, RefuseBroken, find_checkpoint
from descore.model.modeling import family_of
from descore.training.rl.config import RolloutConfig

BATCH, TOKENS, CHAIN = 8, 6144, 1024
"""Clips that are scored at a time; tokens of one with its prompt and chain, and of the chain alone, as the paper trains
with."""
LEARNS: tuple[Learns, ...] = ("full", "lora")
CHAINS = RolloutConfig().num_generations
"""Chains of a clip in stage 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one use of a model takes."""

    name: str
    bytes_of: dict[str, int]
    """By the way in which it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What there is."""

    name: str
    total: int
    """Bytes."""
    is_card: bool


def memory_of(device: str | None) -> Memory:
    """Of a device: a card's own; else this machine's, or what its control group allows."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(chosen)
        return Memory(name=properties.name, total=properties.total_memory, is_card=True)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    total = min(total, int(allowed)) if allowed.isdigit() else total
    return Memory(name="this machine", total=total, is_card=False)


def backbone_config(source: str) -> Any:  # noqa: ANN401  # transformers' configs share no typed base
    """The backbone's config of a folder, a hub id or a bundled name; of the hub nothing else is fetched. What is
    missing or broken raises CheckpointError, a model of no known family ConfigError."""
    from transformers import AutoConfig

    here = source in BUNDLED or Path(source).is_dir() or source.count("/") != 1 or source.startswith((".", "/", "~"))
    place = find_checkpoint(source) if here else source
    if here and not (Path(place) / "config.json").is_file():
        raise CheckpointError(f"{source}: has no config.json")
    with RefuseBroken(source, "transformers cannot read the config"):
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    family_of(config.model_type)
    return config


def requirements(config: Any, *, gpu: bool) -> Iterator[Requirement]:  # noqa: ANN401
    """The memory of scoring a batch, and of a step of each stage, for a model of this config.

    Of a stage's step: one sequence (stage 0), the two of a pair (stage 1), or a pair's two packs of CHAINS chains
    (stage 2), which has a frozen copy of the model beside it where that learns in full. ConfigError for stages whose
    memory is not computed, behind that of scoring."""
    model = empty_model(config)
    size: dict[str, Any] = {"rows": BATCH, "tokens": TOKENS, "chain": CHAIN}
    whole = torch.bfloat16 if gpu else torch.float32
    scoring = {str(whole).removeprefix("torch."): scoring_need(model, **size, dtype=whole).peak}
    quantized: tuple[Bits, ...] = (8, 4)
    scoring |= {f"{bits} bits": scoring_need(model, **size, dtype=torch.bfloat16, bits=bits).peak for bits in quantized}
    yield Requirement(name="scoring", bytes_of=scoring)
    copy = sum(weight.nbytes for weight in model.parameters())
    full, lora = (empty_model(config, learns=learns) for learns in LEARNS)
    packed = TOKENS - CHAIN + CHAINS * CHAIN
    stages = {"stage 0": (1, TOKENS, CHAIN), "stage 1": (2, TOKENS, CHAIN), "stage 2": (2, packed, CHAINS * CHAIN)}
    for name, (rows, tokens, chain) in stages.items():
        step: dict[str, Any] = {"rows": rows, "tokens": tokens, "chain": chain, "gpu": gpu}
        needs = {
            "in full": step_need(full, **step).peak + (copy if name == "stage 2" else 0),
            "LoRA": step_need(lora, **step).peak,
            "QLoRA": step_need(lora, **step, bits=4).peak,
        }
        yield Requirement(name=name, bytes_of=needs)


def fitting(requirement: Requirement, memory: Memory) -> list[str]:
    """The ways that fit."""
    return [how for how, size in requirement.bytes_of.items() if size <= memory.total]


def fit_text(requirement: Requirement, memory: Memory) -> str:
    """One line: what each way takes, and which ones fit."""
    each = ", ".join(f"{how} {size / GIB:.1f}" for how, size in requirement.bytes_of.items())
    ways = fitting(requirement, memory)
    fits = f"{', '.join(ways)} fit" if len(ways) > 1 else f"{ways[0]} fits" if ways else "nothing fits"
    return f"{each} GiB; {fits} {memory.name}'s {memory.total / GIB:.1f}"
