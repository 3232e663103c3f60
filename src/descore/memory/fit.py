"""What of a model fits this card, or this machine's memory, from its config.json alone.

In: a checkpoint's folder or hub id. Out: the memory of scoring and of each stage, and the memory that there is."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from descore.errors import CheckpointError
from descore.memory.need import GIB, Bits, empty_model, scoring_need, step_need
from descore.model import expert_weights
from descore.model.checkpoint import (
    BUNDLED,
    RUBRIC_FILE,
    SETTINGS_FILE,
    CheckpointSettings,
    RefuseBroken,
    find_checkpoint,
    is_hub_id,
    read_as,
    read_rubric,
    read_settings,
)
from descore.model.modeling import family_of, transformers_config
from descore.rubric import DEFAULT_RUBRIC
from descore.training.rl.config import RolloutConfig

BATCH = 8
"""Clips that are scored at a time."""
CLIP_SECONDS = 16
"""Length of a clip: what the default sampling has its most frames of."""
CHAINS = RolloutConfig().num_generations
"""Chains of a clip in stage 2."""
CHARACTERS = 3
"""Of a rubric that are a token, at least: English text has more."""
OTHER_WORDS = 512
"""Tokens for a prompt, the turns and the times of frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSize:
    """What of one clip is read and written."""

    frames: int
    video: int
    """Tokens of the frames."""
    words: int
    """Tokens of rubric, prompt and turns."""
    chain: int
    """Tokens of a chain, at most."""

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.video + self.words + self.chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one use of a model takes."""

    name: str
    bytes_of: dict[str, int]
    """By the way in which it is done."""
    left_out: str = ""
    """A way that is not computed, and why."""


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


def read_model(source: str, *, rubric: str | None = None) -> tuple[Any, ClipSize]:
    """The backbone's config of a folder, a hub id or a bundled name, and the size of a clip as its descore.json, or a
    released `rubric`, samples and writes; a plain backbone has the default settings. Of the hub only these files are
    fetched. What is missing or broken raises CheckpointError, a model of no known family or another rubric
    ConfigError."""
    here = source in BUNDLED or Path(source).is_dir() or not is_hub_id(source)
    place = find_checkpoint(source) if here else source
    if here and not (Path(place) / "config.json").is_file():
        raise CheckpointError(f"{source}: has no config.json")
    with RefuseBroken(source, "transformers cannot read the config"):
        config = transformers_config(place)
    family_of(config.model_type)
    if rubric is not None:
        settings, text = read_as(Path(place), None, rubric=rubric)
        return config, clip_size(config, settings, rubric=text)
    folder = Path(place) if here else _fetched(source)
    if folder is None or not (folder / SETTINGS_FILE).is_file():
        return config, clip_size(config, CheckpointSettings(), rubric=DEFAULT_RUBRIC)
    return config, clip_size(config, read_settings(folder), rubric=read_rubric(folder))


def _fetched(repo: str) -> Path | None:
    """The folder with descore.json and the rubric of a hub id; None for a plain backbone's."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with RefuseBroken(repo, "the hub does not give its settings"):
        try:
            hf_hub_download(repo, RUBRIC_FILE)
            return Path(hf_hub_download(repo, SETTINGS_FILE)).parent
        except EntryNotFoundError:
            return None


def clip_size(config: Any, settings: CheckpointSettings, *, rubric: str) -> ClipSize:  # noqa: ANN401
    """The size of a clip of CLIP_SECONDS, its frames as large as they may be."""
    sampling, family = settings.sampling, family_of(config.model_type)
    frames = min(max(int(CLIP_SECONDS * sampling.fps), sampling.min_frames), sampling.max_frames)
    pixels = family.frame_pixels(config) or sampling.max_pixels
    return ClipSize(
        frames=frames,
        video=-(-frames * pixels * 3 // family.values_of_token(config)),
        words=len(rubric) // CHARACTERS + OTHER_WORDS,
        chain=1 if settings.paradigm == "discriminative" else settings.max_chain_tokens,
    )


def requirements(config: Any, *, clip: ClipSize, gpu: bool) -> Iterator[Requirement]:  # noqa: ANN401
    """The memory of scoring a batch, and of a step of each stage, for a model of this config.

    Of a stage's step: one sequence (stage 0), the two of a pair (stage 1), or a pair's CHAINS chains each (stage 2), in
    two packs or in rows of their own, which has a frozen copy of the model beside it where that learns in full. A way
    in which a mixture's experts would learn is left out."""
    model = empty_model(config)
    size: dict[str, Any] = {"rows": BATCH, "tokens": clip.tokens, "chain": clip.chain, "video": clip.video}
    whole = torch.bfloat16 if gpu else torch.float32
    scoring = {str(whole).removeprefix("torch."): scoring_need(model, **size, dtype=whole).peak}
    quantized: tuple[Bits, ...] = (8, 4)
    scoring |= {f"{bits} bits": scoring_need(model, **size, dtype=torch.bfloat16, bits=bits).peak for bits in quantized}
    yield Requirement(name="scoring", bytes_of=scoring)
    copy = sum(weight.nbytes for weight in model.parameters())
    full = None if expert_weights(model.backbone) else empty_model(config, learns="full")
    lora = empty_model(config, learns="lora")
    one = {"tokens": clip.tokens, "chain": clip.chain, "video": clip.video}
    written = CHAINS * clip.chain
    group = {**one, "rows": 2, "tokens": clip.tokens - clip.chain + written, "chain": written}
    if not model.family.PACKS:
        group = {**one, "rows": 2 * CHAINS, "video": clip.video // CHAINS}  # a clip is seen once for all its rows
    for name, shape in (("stage 0", {**one, "rows": 1}), ("stage 1", {**one, "rows": 2}), ("stage 2", group)):
        step: dict[str, Any] = {**shape, "gpu": gpu}
        needs = {} if full is None else {"in full": step_need(full, **step).peak + (copy if name == "stage 2" else 0)}
        needs |= {"LoRA": step_need(lora, **step).peak, "QLoRA": step_need(lora, **step, bits=4).peak}
        yield Requirement(name=name, bytes_of=needs, left_out="" if full else "not computed in full: experts learn")


def fitting(requirement: Requirement, memory: Memory) -> list[str]:
    """The ways that fit."""
    return [how for how, size in requirement.bytes_of.items() if size <= memory.total]


def fit_text(requirement: Requirement, memory: Memory) -> str:
    """One line: what each way takes, and which ones fit."""
    each = ", ".join(f"{how} {_gib(size)}" for how, size in requirement.bytes_of.items())
    ways = fitting(requirement, memory)
    fits = f"{', '.join(ways)} fit" if len(ways) > 1 else f"{ways[0]} fits" if ways else "nothing fits"
    left_out = f"; {requirement.left_out}" if requirement.left_out else ""
    return f"{each} GiB; {fits} {memory.name}'s {memory.total / GIB:.1f}{left_out}"


def _gib(size: int) -> str:
    """To a tenth, or what is less to two digits."""
    return f"{size / GIB:.1f}" if size >= GIB else f"{size / GIB:.2g}"


def size_text(clip: ClipSize) -> str:
    """One line: what the memory is computed for."""
    return (
        f"{CLIP_SECONDS} s of video: {clip.frames} frames are {clip.video:,} tokens, words {clip.words:,}, a chain "
        f"{clip.chain:,}; {BATCH} clips are scored at a time; docs/training.md says how"
    )
