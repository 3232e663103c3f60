"""The folder that another engine opens: an export, or a generative checkpoint as it is.

A checkpoint that is no export is exported once into a cache, `~/.cache/descore/exports` or below `XDG_CACHE_HOME`, in
the precision that the engine runs in."""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from descore.errors import ConfigError, DescoreWarning
from descore.model.chat import QUERY_TOKEN, Chat
from descore.model.checkpoint import CheckpointSettings, find_checkpoint, read_as
from descore.model.export import check_for_engines, export_for_vllm
from descore.model.modeling import chat_of, family_of, open_processor
from descore.types import Paradigm


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCheckpoint:
    """A folder that an engine opens, and what descore has to know of it."""

    folder: Path
    source: str
    settings: CheckpointSettings
    chat: Chat
    vocabulary: int
    """Rows of the output matrix."""
    longest: int
    """Tokens that the model's positions reach."""
    dtype: torch.dtype
    """As the config has it."""


def open_export(source: str | Path, *, paradigm: Paradigm | None, called: str | Path | None = None) -> EngineCheckpoint:
    """An export, or a checkpoint that is judged as generative, which needs none. No weights are read.

    called: its name in messages, if not `source`.
    CheckpointError for what cannot be used; ConfigError for a checkpoint with a head that is no export."""
    folder = find_checkpoint(source)
    settings, rubric = read_as(folder, paradigm)
    if settings.paradigm != "generative" and settings.vocabulary_rows is None:
        raise ConfigError(f"{source}: is no export; give the folder that descore export {source} OUT --for vllm writes")
    if settings.answer is not None and settings.answer.read_out != "written":
        raise ConfigError(f"{source}: its scores are read from probabilities, which engine native alone gives")
    config = check_runs(called or source, folder)
    processor = open_processor(folder)
    processor.tokenizer.add_tokens([QUERY_TOKEN], special_tokens=True)  # a plain backbone has none
    text = config.get_text_config()
    return EngineCheckpoint(
        folder=folder,
        source=str(called or source),
        settings=settings,
        chat=chat_of(processor, rubric, settings, family_of(config.model_type)),
        vocabulary=int(text.vocab_size),
        longest=int(text.max_position_embeddings),
        dtype=config.dtype or torch.float32,
    )


def check_runs(source: str | Path, folder: Path) -> Any:  # noqa: ANN401  # transformers' configs share no typed base
    """The config of a checkpoint of a family that other engines run. ConfigError, which names the source, for another;
    CheckpointError where they would read the config otherwise."""
    config = check_for_engines(folder)
    if fault := family_of(config.model_type).ENGINE_FAULT:
        raise ConfigError(f"{source}: {config.model_type} {fault}; open it with engine native")
    return config


def find_or_export(source: str | Path, *, paradigm: Paradigm | None, dtype: torch.dtype) -> EngineCheckpoint:
    """The same, of any checkpoint: one that is no export is exported into the cache, unless it is there already."""
    folder = find_checkpoint(source)
    settings, _ = read_as(folder, paradigm)
    if settings.paradigm == "generative" or settings.vocabulary_rows is not None:
        return open_export(source, paradigm=paradigm)
    cached = export_cache() / _name_of(folder, dtype)
    if not cached.is_dir():
        cached.parent.mkdir(parents=True, exist_ok=True)
        warnings.warn(f"{source}: is exported for the engine, once, to {cached}", DescoreWarning, stacklevel=2)
        _export(folder, cached, dtype=dtype)
    return open_export(cached, paradigm=paradigm, called=source)


def export_cache() -> Path:
    """The folder of exports that were made in passing. It may be removed at any time."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "descore" / "exports"


def _export(folder: Path, out: Path, *, dtype: torch.dtype) -> None:
    try:
        export_for_vllm(folder, out, dtype=dtype)
    except ConfigError:
        if not out.is_dir():  # another process has been quicker
            raise


def _name_of(folder: Path, dtype: torch.dtype) -> str:
    """A name that changes with any of the checkpoint's files."""
    digest = hashlib.sha256(str(dtype).encode())
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"\n{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode())
    return f"{folder.resolve().name[:60]}-{digest.hexdigest()[:16]}"
