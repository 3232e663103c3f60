"""Write a trained model in the precision of its run. Knows weights; knows nothing of how the model was trained."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from descore.errors import ConfigError, DescoreWarning
from descore.io import atomic_directory
from descore.model.checkpoint import CheckpointSettings, find_checkpoint, read_settings
from descore.model.modeling import DescoreModel, RewardHead, is_adapter, merge_adapters
from descore.rubric import DEFAULT_RUBRIC, fill_rubric
from descore.training.config import ColdStartConfig, OptimConfig, TrainableConfig, TrainingConfig
from descore.types import Paradigm


def part_of(model: DescoreModel, name: str) -> str:
    """The part of the backbone that a weight or module belongs to, by its name within the backbone."""
    parts = model.family.PARTS
    found = next((part for part, starts in parts.items() if f"{name}.".startswith(starts)), None)
    assert found is not None, f"{name} belongs to none of {', '.join(parts)}"
    return str(found)


def set_trainable(model: DescoreModel, trainable: TrainableConfig, *, precision: torch.dtype) -> None:
    """Freeze all, then let learn what the table says: adapters are added, full parts have a gradient.

    Weights that learn are held in float32, all others in `precision`. Adapters that were there before are folded in.
    ConfigError if there is no layer of the names that `lora.target_modules` has."""
    merge_adapters(model.backbone)
    model.requires_grad_(False)
    for part, weight in _rows(model).items():
        weight.requires_grad_(trainable.modes.get(part) == "full")
    if "lora" in trainable.modes.values():
        _add_adapters(model, trainable)
    for name, weight in model.backbone.named_parameters():
        full = trainable.modes[part_of(model, name)] == "full"
        weight.requires_grad_(full or is_adapter(name))
        weight.data = weight.data.float() if weight.requires_grad else weight.data.to(precision)


def learned_weights(model: DescoreModel) -> dict[str, torch.Tensor]:
    """By name, all weights that learn."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def no_loss(model: DescoreModel) -> torch.Tensor:
    """The loss where no video of a batch could be read: 0, with a gradient, since other processes wait for it."""
    return torch.stack([weight.sum() for weight in learned_weights(model).values()]).sum() * 0.0


def parameter_groups(model: DescoreModel, trainable: TrainableConfig, optim: OptimConfig) -> list[dict[str, Any]]:
    """Groups for an optimizer: by part, its matrices (which decay) and its vectors (which do not), each group with
    `params`, `lr`, `weight_decay` and `name`."""
    weights = [(part_of(model, name), weight) for name, weight in model.backbone.named_parameters()]
    groups: dict[str, dict[str, Any]] = {}
    for part, weight in (*weights, *_rows(model).items()):
        if weight.requires_grad:
            kind = "matrices" if weight.ndim > 1 else "vectors"
            rate, decay = trainable.rates[part] or optim.learning_rate, optim.weight_decay if weight.ndim > 1 else 0.0
            group: dict[str, Any] = {"params": [], "lr": rate, "weight_decay": decay, "name": f"{part} {kind}"}
            groups.setdefault(f"{part} {kind}", group)["params"].append(weight)
    return list(groups.values())


def _rows(model: DescoreModel) -> dict[str, nn.Parameter]:
    """What there is beside the backbone: the query (D) and the head's matrix (K, D)."""
    return {"query": model.query, "head": model.head.weight}


def _add_adapters(model: DescoreModel, trainable: TrainableConfig) -> None:
    import peft

    lora, source = trainable.lora, model.backbone.config._name_or_path
    model.backbone.add_adapter(
        peft.LoraConfig(
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=_targets(model, trainable),
        )
    )
    model.backbone.peft_config["default"].base_model_name_or_path = source


def _targets(model: DescoreModel, trainable: TrainableConfig) -> list[str]:
    """Full names of the linear layers that get an adapter."""
    linear = [name for name, module in model.backbone.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in linear if _is_target(model, name, trainable)]
    for part in (part for part, mode in trainable.modes.items() if mode == "lora"):
        if not any(part_of(model, name) == part for name in chosen):
            known = sorted({name.rsplit(".")[-1] for name in linear if part_of(model, name) == part})
            raise ConfigError(
                f"trainable.lora.target_modules: {part} has no linear layer of these names; it has {', '.join(known)}"
            )
    return chosen


def _is_target(model: DescoreModel, name: str, trainable: TrainableConfig) -> bool:
    part, last = part_of(model, name), name.rsplit(".")[-1]
    return trainable.modes[part] == "lora" and last in (
        trainable.lora.target_modules or model.family.LORA_TARGETS[part]
    )


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
        settings = CheckpointSettings(
            dimensions=dimensions or CheckpointSettings().dimensions, paradigm=paradigm or "descore"
        )
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
    model.settings = model.settings.model_copy(
        update={"dimensions": dimensions, "reward_mean": None, "reward_std": None}
    )


def _settings(settings: CheckpointSettings, config: TrainingConfig) -> CheckpointSettings:
    """The checkpoint's, with what the config says. A head fits what the backbone said before, so it counts as untrained
    until it has been fitted anew."""
    return settings.model_copy(
        update={
            "paradigm": "generative" if settings.paradigm == "generative" else "descore",
            "sampling": config.data.sampling or settings.sampling,
            "max_chain_tokens": config.model.max_chain_tokens or settings.max_chain_tokens,
            "reward_mean": None,
            "reward_std": None,
            "trained_on": None,
        }
    )


def _refuse_odd_sizes(model: DescoreModel) -> None:
    videos, found = model.chat.processor.video_processor, model.settings.sampling.size_multiple
    needed = videos.patch_size * videos.merge_size
    if found % needed:
        raise ConfigError(f"data.sampling.size_multiple is {found}; this model's frames come in multiples of {needed}")


CARD_FILE = "README.md"


def save_trained(model: DescoreModel, folder: Path, *, precision: torch.dtype, card: str | None = None) -> None:
    """Write the checkpoint directory, its weights in `precision`, adapters in float32; with a model card, if given.

    The directory is there when all of it is. The model in memory takes on that precision."""
    for name, weight in model.backbone.named_parameters():
        weight.data = weight.data.float() if is_adapter(name) else weight.data.to(precision)
    with atomic_directory(folder) as aside:
        model.save_pretrained(aside)
        if card is not None:
            (aside / CARD_FILE).write_text(card, encoding="utf-8")
