"""The model of a run: how it is opened, which weights are trained, and how these and the whole model are stored.

A checkpoint-N folder holds `learned.safetensors`, the weights that have a gradient, where adapters, or query and head
alone are trained; else a whole checkpoint directory, `model/`."""

import os
import re
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from descore.errors import CheckpointError, ConfigError, DataError, DescoreWarning
from descore.io import atomic_directory, read_json_object
from descore.model import WeightPlacement, bits_of, expert_weights
from descore.model.checkpoint import CheckpointSettings, find_checkpoint, read_head, read_settings
from descore.model.modeling import DescoreModel, RewardHead, check_peft, has_adapters, is_adapter, merge_adapters
from descore.rubric import DEFAULT_RUBRIC, fill_rubric
from descore.training.config import ColdStartConfig, OptimConfig, TrainableConfig, TrainingConfig
from descore.training.model_card import CARD_FILE
from descore.types import Paradigm

LEARNED_FILE, STATE_FILE = "learned.safetensors", "trainer_state.json"
"""Of a checkpoint-N folder. The state is written last."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_TORCH_WRITER = re.compile(r"PytorchStreamWriter|inline_container|basic_ios|iostream")
"""In the message of a RuntimeError for a file that torch cannot write."""
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises for a file that is no whole archive."""


def part_of(model: DescoreModel, name: str) -> str:
    """The part of the backbone that a weight or module belongs to, by its name within the backbone."""
    parts = model.family.PARTS
    part = next((part for part, prefixes in parts.items() if f"{name}.".startswith(prefixes)), None)
    assert part is not None, f"{name} belongs to none of {', '.join(parts)}"
    return str(part)


def set_trainable(model: DescoreModel, trainable: TrainableConfig, *, precision: torch.dtype) -> None:
    """Freeze all weights, then add adapters and unfreeze parts by their modes.

    Trainable weights are held in float32, all others in `precision`. Existing adapters are merged first. ConfigError if
    no layer has a name of `lora.target_modules`."""
    merge_adapters(model.backbone)
    model.requires_grad_(False)
    for part, weight in _rows(model).items():
        weight.requires_grad_(trainable.modes.get(part) == "full")
    if "lora" in trainable.modes.values():
        _add_adapters(model, trainable)
    for name, weight in model.backbone.named_parameters():
        full = trainable.modes[part_of(model, name)] == "full"
        if weight.is_floating_point():  # quantized weights stay as they are
            weight.requires_grad_(full or is_adapter(name))
            weight.data = weight.data.float() if weight.requires_grad else weight.data.to(precision)


def trainable_weights(model: DescoreModel) -> dict[str, torch.Tensor]:
    """By name, all weights that are trained."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def zero_loss(model: DescoreModel) -> torch.Tensor:
    """The loss of a batch without a readable video: 0, with a gradient, since other processes wait for it."""
    return torch.stack([weight.sum() for weight in trainable_weights(model).values()]).sum() * 0.0


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
    """The weights beside the backbone: the query (D) and the head's matrix (K, D)."""
    return {"query": model.query, "head": model.head.weight}


def _add_adapters(model: DescoreModel, trainable: TrainableConfig) -> None:
    check_peft("trainable: lora")
    import peft

    if trainable.modes["language_model"] == "lora" and expert_weights(model.backbone):
        message = (
            "trainable.language_model: lora leaves experts as they are, beside which no adapter stands; full does not"
        )
        warnings.warn(message, DescoreWarning, stacklevel=4)
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


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer of tokens, or of a picture's pixels."""
    at_pixels = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    return at_pixels or isinstance(module, nn.Linear)


def _targets(model: DescoreModel, trainable: TrainableConfig) -> list[str]:
    """Full names of the linear layers that get an adapter."""
    linear = [name for name, module in model.backbone.named_modules() if is_linear(module)]
    chosen = [name for name in linear if _is_target(model, name, trainable)]
    for part in (part for part, mode in trainable.modes.items() if mode == "lora"):
        if not any(part_of(model, name) == part for name in chosen):
            known = sorted({name.rsplit(".")[-1] for name in linear if part_of(model, name) == part})
            experts = "; experts get no adapter" if part == "language_model" and expert_weights(model.backbone) else ""
            raise ConfigError(
                f"trainable.lora.target_modules: {part} has no linear layer of these names; it has "
                f"{', '.join(known)}{experts}"
            )
    return chosen


def _is_target(model: DescoreModel, name: str, trainable: TrainableConfig) -> bool:
    part, last = part_of(model, name), name.rsplit(".")[-1]
    return trainable.modes[part] == "lora" and last in (
        trainable.lora.target_modules or model.family.LORA_TARGETS[part]
    )


def open_model(config: TrainingConfig, *, rubric: str | None, paradigm: Paradigm | None = None) -> DescoreModel:
    """The model to train, on the CPU. Weights that are trained in full are read in float32, so that no digit is lost.

    paradigm: None opens any checkpoint with a head, as descore; the stage sets the paradigm of the trained model. As
    descore, a checkpoint that was trained without chains is refused: CheckpointError. As generative, any checkpoint
    starts without its head. Quantized weights need a GPU: ConfigError without one, or for a checkpoint with adapters,
    which cannot be folded into them."""
    start, dimensions = config.model, config.dimensions if isinstance(config, ColdStartConfig) else None
    dtype = torch.float32 if "full" in config.trainable.backbone_modes.values() else dtype_of(start.precision)
    if start.checkpoint is not None:
        paradigm = paradigm or _with_head(start.checkpoint)
        how: dict[str, Any] = {"device": "cpu", "dtype": dtype}
        if start.quantization is not None:
            how = {"device": _card(start.quantization), "dtype": dtype, "quantization_config": start.quantization}
        model = DescoreModel.from_pretrained(start.checkpoint, paradigm=paradigm, **how)
        if dimensions is not None and model.settings.dimensions != dimensions:
            _renew_head(model, dimensions)
    else:
        settings = CheckpointSettings(
            dimensions=dimensions or CheckpointSettings().dimensions, paradigm=paradigm or "descore"
        )
        rubric = rubric or DEFAULT_RUBRIC
        place = WeightPlacement()
        if start.quantization is not None:
            place = WeightPlacement(device=_card(start.quantization), quantization=start.quantization)
        model = DescoreModel.from_backbone(
            start.backbone, settings=settings, rubric=rubric, dtype=dtype, placement=place
        )
        place.put(model)
    if model.chat.queries or model.chat.answer:
        raise ConfigError(f"model.checkpoint: {start.checkpoint} has queries or answers of another form than ours")
    model.chat = replace(model.chat, rubric=rubric or model.chat.rubric)
    model.settings = _settings(model.settings, config)
    _check_frame_size(model)
    if start.quantization is not None:
        _prepare_quantized(model, source=start.checkpoint or start.backbone)
    if start.gradient_checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def _card(quantization: str) -> torch.device:
    if not torch.cuda.is_available():
        raise ConfigError(
            f"model.quantization: {quantization} needs a GPU to train on, and there is none; leave it out"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _prepare_quantized(model: DescoreModel, *, source: str | None) -> None:
    """PEFT's preparation of a quantized backbone. Which weights learn, and in what precision, is decided later."""
    check_peft("model.quantization")
    if has_adapters(model.backbone):
        raise ConfigError(f"model.quantization: {source} has adapters, which are not folded into quantized weights")
    import peft

    peft.prepare_model_for_kbit_training(model.backbone, use_gradient_checkpointing=False)


def head_origin(config: ColdStartConfig) -> str:
    """Where the query and the head come from, in words that follow the name of the run's checkpoint or backbone."""
    if config.model.checkpoint is None:
        return "with a new query and head"
    settings = read_settings(find_checkpoint(config.model.checkpoint))
    if settings.dimensions != config.dimensions:
        return f"with a new head: it scored {', '.join(settings.dimensions)}"
    return "whose head was never trained" if settings.trained_on is None else "whose head goes on"


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
    """Torch's type of a config's precision."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _with_head(source: str) -> Paradigm:
    """The paradigm to open a checkpoint as, so that it has a head."""
    return "discriminative" if read_settings(find_checkpoint(source)).paradigm == "discriminative" else "descore"


def _renew_head(model: DescoreModel, dimensions: tuple[str, ...]) -> None:
    """Give the model a new head with a row for each of these dimensions, with a warning if it had a trained one."""
    if model.settings.trained_on is not None:
        old, new = ", ".join(model.settings.dimensions), ", ".join(dimensions)
        message = f"model.checkpoint scores {old}, dimensions are {new}: its head is replaced by a new one"
        warnings.warn(message, DescoreWarning, stacklevel=2)
    model.head = RewardHead(model.query.shape[0], outputs=len(dimensions))
    model.settings = model.settings.model_copy(
        update={"dimensions": dimensions, "reward_mean": None, "reward_std": None}
    )


def _settings(settings: CheckpointSettings, config: TrainingConfig) -> CheckpointSettings:
    """The checkpoint's settings with those of the config. The head does not fit the backbone once that is trained, so
    it counts as untrained until its stage has fitted it."""
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


def _check_frame_size(model: DescoreModel) -> None:
    sampling = model.settings.sampling
    for name, needed in model.family.sizes_needed(sampling, model.chat.processor).items():
        expected = f"come in multiples of {needed}" if name == "size_multiple" else f"have {needed} pixels"
        raise ConfigError(f"data.sampling.{name} is {getattr(sampling, name)}; this model's frames {expected}")


def save_trained(model: DescoreModel, folder: Path, *, precision: torch.dtype, card: str | None = None) -> None:
    """Write the checkpoint directory whole, its weights in `precision`, adapters in float32; with a model card, if
    given.

    The weights in memory are converted to that precision, quantized ones too."""
    if bits_of(model.backbone) is not None:
        model.backbone.dequantize()
    for name, weight in model.backbone.named_parameters():
        weight.data = weight.data.float() if is_adapter(name) else weight.data.to(precision)
    with atomic_directory(folder) as aside:
        model.save_pretrained(aside)
        if card is not None:
            (aside / CARD_FILE).write_text(card, encoding="utf-8")


@contextmanager
def checkpoint_directory(folder: Path) -> Iterator[Path]:
    """Yield a directory beside checkpoint-N to fill, which takes its name once it is on the disk.

    ConfigError if it cannot be written, also where torch or safetensors write, whose errors are no OSErrors."""
    try:
        with atomic_directory(folder) as aside:
            yield aside
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _TORCH_WRITER.search(str(error)):
            raise
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{folder}: cannot be written ({reason}); make room, and give the command again") from error


def rotate_checkpoints(out: Path, *, step: int, keep: int) -> None:
    """Delete all checkpoints but the last `keep` up to `step`. Later ones are of a course that was not gone on with."""
    numbers = sorted(_checkpoints(out))
    kept = [number for number in numbers if number <= step][-keep:]
    for number in set(numbers) - set(kept):
        shutil.rmtree(_checkpoints(out)[number], ignore_errors=True)


def remove_unfinished(out: Path) -> None:
    """Delete what a kill in the middle of writing a checkpoint has left."""
    for left in out.glob("checkpoint-*"):
        if left.suffix in (".partial", ".old"):
            shutil.rmtree(left, ignore_errors=True)


def last_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint-N of a run that is whole, with a DescoreWarning if newer ones are damaged; None if there is
    none at all. A folder without a state was never finished and is passed over.

    ConfigError that names what to delete if all are damaged."""
    folders = _checkpoints(out)
    faults: dict[Path, str] = {}
    for number in sorted(folders, reverse=True):
        fault = _fault_in(folders[number]) if (folders[number] / STATE_FILE).is_file() else None
        if fault is not None:
            faults[folders[number]] = fault
        elif (folders[number] / STATE_FILE).is_file():
            _warn_of_damage(faults, used=folders[number])
            return folders[number]
    if faults:
        fault, names = next(iter(faults.values())), " and ".join(map(str, faults))
        raise ConfigError(f"{fault}; there is no whole checkpoint before it: delete {names} to train from the start")
    return None


def _checkpoints(out: Path) -> dict[int, Path]:
    matches = {path: _CHECKPOINT.fullmatch(path.name) for path in out.glob("checkpoint-*")}
    return {int(match[1]): path for path, match in matches.items() if match}


def _warn_of_damage(faults: dict[Path, str], *, used: Path) -> None:
    for fault in faults.values():
        warnings.warn(f"{fault}; going on from {used.name}", DescoreWarning, stacklevel=3)


def _fault_in(checkpoint: Path) -> str | None:
    """Why nothing can resume from a checkpoint: the first file that is missing, cut or altered. None if it is whole."""
    try:
        state = read_json_object(checkpoint / STATE_FILE)
    except DataError as error:
        return str(error)
    if not all(isinstance(state.get(name), int) for name in ("global_step", "max_steps")):
        return f"{checkpoint / STATE_FILE}: has no global_step and max_steps"
    needed: list[tuple[str, tuple[str, ...]]] = [
        ("weights", (LEARNED_FILE, "model/model*.safetensors")),
        ("optimizer state", ("optimizer*", "global_step*")),
    ]
    if (checkpoint / "optimizer.pt").is_file() and "tally" not in state:  # Trainer's own; stage 2 has one file
        needed += [("learning rate schedule", ("scheduler.pt",)), ("random state", ("rng_state*",))]
    for what, names in needed:
        if not any(True for name in names for _ in checkpoint.glob(name)):
            return f"{checkpoint}: has no {what} ({names[0]})"
    return next((fault for file in sorted(checkpoint.rglob("*")) if (fault := _fault_of_file(file))), None)


def _fault_of_file(file: Path) -> str | None:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt"):  # compares the header with the length
                return None
        if file.suffix in (".pt", ".pth") and file.is_file():
            with zipfile.ZipFile(file) as archive:
                altered = archive.testzip()
            return f"{file}: {altered} has another checksum than when it was written" if altered else None
    except (SafetensorError, OSError, *_ZIP_ERRORS) as error:
        return f"{file}: is cut or altered ({next(iter(str(error).splitlines()), type(error).__name__)})"
    return None


def save_learned(model: DescoreModel, folder: Path) -> None:
    """Write the weights that are trained into a checkpoint-N folder."""
    weights = {name: weight.detach().contiguous() for name, weight in trainable_weights(model).items()}
    save_file(weights, folder / LEARNED_FILE)


def load_learned(model: DescoreModel, file: Path) -> None:
    """Read the weights that are trained into a model of which the same ones are, in place."""
    expected, weights = trainable_weights(model), load_file(file)
    shapes, there = ({name: tuple(w.shape) for name, w in each.items()} for each in (expected, weights))
    if shapes != there:
        odd = sorted(name for name in {**shapes, **there} if shapes.get(name) != there.get(name))
        raise CheckpointError(f"{file}: holds other weights than those that are trained here, such as {odd[0]}")
    # Puts whole weights in their place also where each process holds a shard of the model.
    set_model_state_dict(model, dict(weights), options=StateDictOptions(full_state_dict=True, strict=False))


def load_weights(model: DescoreModel, folder: Path) -> None:
    """Read a checkpoint's weights into a model of the same form, in place."""
    load_model(model.backbone, folder / "model.safetensors")
    weights = read_head(folder, model.settings, model.backbone)
    model.query.data.copy_(weights["query"])
    model.head.weight.data.copy_(weights["head"])


def has_frozen_backbone(model: DescoreModel) -> bool:
    """Whether only adapters, or query and head alone are trained: little beside a backbone that stays."""
    backbone = model.backbone
    return has_adapters(backbone) or not any(weight.requires_grad for weight in backbone.parameters())
