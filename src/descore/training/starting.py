"""The model that a run starts from: a plain backbone with a new query and head, or a checkpoint to go on with.

In: a stage's settings. Out: a DescoreModel on the CPU, in the precision that its training asks for. Knows checkpoints
and settings; knows nothing of data, losses or what learns how fast."""

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from descore.errors import ConfigError, DescoreWarning
from descore.model.checkpoint import Settings, find_checkpoint, read_settings
from descore.model.descore_model import DescoreModel
from descore.model.head import RewardHead
from descore.rubric import DEFAULT_RUBRIC, fill_rubric
from descore.training.cold_start_config import ColdStartConfig
from descore.training.config import TrainingConfig
from descore.types import Paradigm


def open_model(config: TrainingConfig, *, rubric: str | None, paradigm: Paradigm | None = None) -> DescoreModel:
    """The model that starts, on the CPU. What learns in full is read in float32, so that no digit of it is lost.

    None: any checkpoint with a head, and it starts as descore; what it is in the end, its stage says. As descore, one
    that was trained without chains is refused: CheckpointError. As generative, any checkpoint starts without its head.
    """
    told, dimensions = config.model, config.dimensions if isinstance(config, ColdStartConfig) else None
    dtype = torch.float32 if "full" in config.trainable.backbone_modes.values() else dtype_of(told.precision)
    if told.checkpoint is not None:
        paradigm = paradigm or _with_head(told.checkpoint)
        model = DescoreModel.from_pretrained(told.checkpoint, paradigm=paradigm, device="cpu", dtype=dtype)
        if dimensions is not None and model.settings.dimensions != dimensions:
            _renew_head(model, dimensions)
    else:
        settings = Settings(dimensions=dimensions or Settings().dimensions, paradigm=paradigm or "descore")
        rubric = rubric or DEFAULT_RUBRIC
        model = DescoreModel.from_backbone(told.backbone, settings=settings, rubric=rubric, dtype=dtype)
    model.chat = replace(model.chat, rubric=rubric or model.chat.rubric)
    model.settings = _settings(model.settings, config)
    _refuse_odd_sizes(model)
    if told.gradient_checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def origin_of_head(config: ColdStartConfig) -> str:
    """Where the query and the head that a run fits come from, in words that go on after the name of its start."""
    if config.model.checkpoint is None:
        return "with a new query and head"
    there = read_settings(find_checkpoint(config.model.checkpoint))
    if there.dimensions != config.dimensions:
        return f"with a new head: it scored {', '.join(there.dimensions)}"
    return "whose head was never trained" if there.trained_on is None else "whose head goes on"


def read_rubric_file(file: Path | None) -> str | None:
    """The judging text of a file; ConfigError if it cannot be used."""
    if file is None:
        return None
    try:
        rubric = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"model.rubric: {file} cannot be read as text: {fault}") from fault
    fill_rubric(rubric, prompt="")
    return rubric


def dtype_of(precision: str) -> torch.dtype:
    """The type of torch that a config's precision names."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _with_head(source: str) -> Paradigm:
    """What a checkpoint is opened as where it is to have a head."""
    return "discriminative" if read_settings(find_checkpoint(source)).paradigm == "discriminative" else "descore"


def _renew_head(model: DescoreModel, dimensions: tuple[str, ...]) -> None:
    """Give the model a new head with a row for each of these dimensions, and say so if it had a fitted one."""
    if model.settings.trained_on is not None:
        had, asked = ", ".join(model.settings.dimensions), ", ".join(dimensions)
        said = f"model.checkpoint scores {had}, dimensions are {asked}: its head is replaced by a new one"
        warnings.warn(said, DescoreWarning, stacklevel=2)
    model.head = RewardHead(model.query.shape[0], outputs=len(dimensions))
    model.settings = replace(model.settings, dimensions=dimensions, reward_mean=None, reward_std=None)


def _settings(settings: Settings, config: TrainingConfig) -> Settings:
    """The checkpoint's, with what the config says. A head fits what the backbone said before, so it counts as untrained
    until it has been fitted anew."""
    return replace(
        settings,
        paradigm="generative" if settings.paradigm == "generative" else "descore",
        sampling=config.data.sampling or settings.sampling,
        max_chain_tokens=config.model.max_chain_tokens or settings.max_chain_tokens,
        reward_mean=None,
        reward_std=None,
        trained_on=None,
    )


def _refuse_odd_sizes(model: DescoreModel) -> None:
    videos, found = model.chat.processor.video_processor, model.settings.sampling.size_multiple
    needed = videos.patch_size * videos.merge_size
    if found % needed:
        raise ConfigError(f"data.sampling.size_multiple is {found}; this model's frames come in multiples of {needed}")
