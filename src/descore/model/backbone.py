"""Open a backbone and its processor with transformers, and find the file that knows its family.

Knows folders, hub ids and model configs; knows nothing of queries, heads or rewards."""

import os
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError

from descore.errors import CheckpointError, ConfigError
from descore.model import qwen3_vl

FAMILIES: dict[str, ModuleType] = dict.fromkeys(qwen3_vl.MODEL_TYPES, qwen3_vl)
"""transformers' model_type → the module with that family's `positions`."""


def family_of(model_type: str) -> ModuleType:
    """The family's module. An unknown model_type raises ConfigError with the known ones."""
    if model_type not in FAMILIES:
        raise ConfigError(f"backbone: model_type is {model_type!r}; expected one of {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def open_backbone(source: Any, *, dtype: torch.dtype) -> Any:  # noqa: ANN401  # a path, an id or a transformers config
    """The model of a folder or hub id with its weights, or of a config with random ones, in `dtype` on the CPU.

    A model_type of no known family, and an adapter without the package that reads it, raise ConfigError; files that are
    missing or broken, CheckpointError."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    named = isinstance(source, str | os.PathLike)
    # Without PEFT, transformers passes an adapter over and opens the weights beside it.
    if named and (Path(source) / "adapter_config.json").is_file() and find_spec("peft") is None:
        raise ConfigError(f"{source}: has an adapter, which needs peft; run pip install 'descore[train]'")
    try:
        config = AutoConfig.from_pretrained(source) if named else source
        family_of(config.model_type)
        if not named:
            return AutoModelForImageTextToText.from_config(config, dtype=dtype)
        model, loading = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except ConfigError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as fault:
        raise CheckpointError(f"{source}: transformers cannot open the backbone: {_first_line(fault)}") from fault
    if loading["missing_keys"]:
        some = ", ".join(sorted(loading["missing_keys"])[:3])
        raise CheckpointError(f"{source}: weights are missing for {len(loading['missing_keys'])} tensors, first {some}")
    return model


def open_processor(source: str | Path) -> Any:  # noqa: ANN401  # processors share no typed base
    """The processor of a folder or hub id: tokenizer, chat template, video processor."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(source)
    except (OSError, ValueError) as fault:
        raise CheckpointError(f"{source}: transformers cannot open the processor: {_first_line(fault)}") from fault


def _first_line(fault: Exception) -> str:
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)
