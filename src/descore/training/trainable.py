"""What learns is a table: each part of the backbone is frozen, learns beside low-rank adapters, or learns in full;
query and head learn or do not. The query is a weight of its own: a frozen embedding has no row that learns.

In: a DescoreModel and a `TrainableConfig`. Out: the model with its weights set to learn or not, and the groups that an
optimizer takes. Knows names and shapes of weights; knows nothing of data or losses."""

from typing import Any

import torch
from torch import nn

from descore.errors import ConfigError
from descore.model.adapters import fold_adapters, is_adapter
from descore.model.descore_model import DescoreModel
from descore.training.config import OptimConfig, TrainableConfig


def part_of(model: DescoreModel, name: str) -> str:
    """The part of the backbone that a weight or module belongs to, by its name within the backbone."""
    parts = model.family.PARTS
    found = next((part for part, starts in parts.items() if f"{name}.".startswith(starts)), None)
    assert found is not None, f"{name} belongs to none of {', '.join(parts)}"
    return str(found)


def set_trainable(model: DescoreModel, trainable: TrainableConfig, *, precision: torch.dtype) -> None:
    """Freeze all, then let learn what the table says: adapters are added, full parts have a gradient.

    Weights that learn are held in float32, all others in `precision`. Adapters that were there before are folded in.
    ConfigError if there is no layer of the names that `lora.targets` has."""
    fold_adapters(model.backbone)
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
            r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=_targets(model, trainable)
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
                f"trainable.lora.targets: {part} has no linear layer of these names; it has {', '.join(known)}"
            )
    return chosen


def _is_target(model: DescoreModel, name: str, trainable: TrainableConfig) -> bool:
    part, last = part_of(model, name), name.rsplit(".")[-1]
    return trainable.modes[part] == "lora" and last in (trainable.lora.targets or model.family.LORA_TARGETS[part])
