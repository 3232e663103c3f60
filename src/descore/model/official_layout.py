"""Read a checkpoint of the official DeScore code (arXiv 2605.05922, github.com/KlingAIResearch/DeScore).

    rm_head.pth                      the head's state dict, pickled
    config.json, *.safetensors       the backbone as transformers has it, or
    adapter_config.json, ...         a LoRA adapter as PEFT has it, which names its base; also in lora_adapter/
    tokenizer and processor          with the query token added, <Reward>

Stage 2 puts all but the head into huggingface/. In: a directory. Out: the places of its parts, its head, its query row
and its adapter, or a CheckpointError. Weights are compared on disk, and the head is read as tensors only: nothing is
unpickled.

Shapes: D width, K outputs of the head."""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from descore.errors import CheckpointError, ConfigError
from descore.model.checkpoint import (
    ADAPTER_CONFIG,
    WEIGHTS_FILE,
    RefuseBroken,
    find_checkpoint,
    read_json,
    weight_files,
)

OFFICIAL_QUERY_TOKEN = "<Reward>"
OFFICIAL_HEAD_FILE, ADAPTER_FILE = "rm_head.pth", "adapter_model.safetensors"
LEARNED_BESIDE = "non_lora_state_dict.pth"

_PEFT_PREFIX = "base_model.model."
_EMBEDDING, _OUTPUT = "embed_tokens.weight", "lm_head.weight"
_FACTORS_AND_COPIES = (".lora_", ".original_module.", ".modules_to_save.")
"""Parts of the names of an adapter's tensors: low-rank factors, and copies of tensors that PEFT also saves plainly."""
_PICKLE = b"\x80"
"""How a pickle begins."""
_COMPARED_ROWS = 8192
"""Rows of an embedding that are compared at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Where the parts of a checkpoint are."""

    folder: Path
    """The checkpoint's own files."""
    head: Path
    """The head's file."""
    backbone: Path
    """A transformers directory with the weights: `folder`, or the base of its adapter."""
    adapter: Path | None
    """A directory with a LoRA adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor in a safetensors file."""

    file: Path
    name: str
    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> Tensor:
        """Read these rows alone."""
        with safe_open(self.file, framework="pt") as opened:
            rows: Tensor = opened.get_slice(self.name)[start:stop]
            return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter that fits its backbone."""

    config: Mapping[str, Any]
    """As PEFT reads it; its target modules are exactly the layers that have an adapter."""
    tensors: Mapping[str, Tensor]
    """Low-rank factors by PEFT's names."""
    embedding: StoredTensor | None
    """A copy of the embedding that was saved with them, which has the trained query row."""


def find_parts(source: str | Path, *, base: str | None) -> Parts:
    """The parts of a folder or hub id. `base`: where an adapter's backbone is, if not where the adapter says.

    CheckpointError for what is missing, ConfigError for a base that is not needed."""
    root = find_checkpoint(source)
    nested = root / "huggingface"
    folder = nested if (nested / "config.json").is_file() and not (root / "config.json").is_file() else root
    heads = (
        folder / OFFICIAL_HEAD_FILE,
        root / OFFICIAL_HEAD_FILE,
        *([root.parent / OFFICIAL_HEAD_FILE] if root.name == nested.name else []),
    )
    head = next((file for file in heads if file.is_file()), None)
    if head is None:
        raise CheckpointError(f"{source}: has no {OFFICIAL_HEAD_FILE}; without it there is no reward")
    adapters = (folder, folder / "lora_adapter")
    adapter = next((place for place in adapters if (place / ADAPTER_CONFIG).is_file()), None)
    return Parts(folder=folder, head=head, backbone=_find_backbone(folder, adapter, base=base), adapter=adapter)


def _find_backbone(folder: Path, adapter: Path | None, *, base: str | None) -> Path:
    if weight_files(folder):
        if base is not None:
            raise ConfigError(f"--base: {folder} has weights of its own; leave it out")
        return folder
    if adapter is None:
        raise CheckpointError(f"{folder}: has neither {WEIGHTS_FILE} nor {ADAPTER_CONFIG}; save it with safetensors")
    if (folder / LEARNED_BESIDE).is_file():
        raise CheckpointError(
            f"{folder}: {LEARNED_BESIDE} says that more than the adapter learned, and the backbone with it is not "
            f"there; expected {WEIGHTS_FILE} beside it"
        )
    named = base or read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not named or not isinstance(named, str):
        raise CheckpointError(f"{adapter}: names no base (found {named!r}); give --base")
    places = (Path(named), folder / named, folder.parent / Path(named).name)
    backbone = next((place for place in places if place.is_dir()), None) or find_checkpoint(named)
    if not weight_files(backbone):
        raise CheckpointError(f"{backbone}: has no {WEIGHTS_FILE}; expected the base of {adapter}")
    return backbone


def stored_weights(files: list[Path]) -> dict[str, StoredTensor]:
    """All tensors of safetensors files by name. Only the files' headers are read."""
    stored = {}
    for file in files:
        with RefuseBroken(file, "cannot be read"), safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # no mapping
                stored[name] = StoredTensor(file=file, name=name, shape=tuple(opened.get_slice(name).get_shape()))
    return stored


def read_official_head(file: Path, *, width: int) -> Tensor:
    """The head (K, D) in float32: the one matrix in the file, whatever its name. A bias must be zero."""
    tensors = read_torch_file(file)
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(matrices) != 1 or any(tensor.shape[1] != width for tensor in matrices.values()):
        raise CheckpointError(f"{file}: found {shapes}; expected one matrix, outputs x {width} (the backbone's width)")
    for name in tensors.keys() - matrices.keys():
        if tensors[name].count_nonzero():
            raise CheckpointError(f"{file}: {name} is not zero; the head here has no bias")
    [head_KD] = matrices.values()
    if not head_KD.isfinite().all():
        raise CheckpointError(f"{file}: holds numbers that are not finite")
    return head_KD.float()


def read_torch_file(file: Path) -> dict[str, Tensor]:
    """All tensors that `torch.save` wrote, by name, on the CPU; nothing is unpickled. CheckpointError for a file that
    holds more than tensors."""
    with RefuseBroken(file, "cannot be read"):
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as fault:
            if not is_zipfile(file) and not file.read_bytes().startswith(_PICKLE):
                raise CheckpointError(f"{file}: is no file that torch.save writes; expected a state dict") from fault
            raise CheckpointError(
                f"{file}: is refused, because it holds more than tensors, which could run code when it is opened; "
                "expected a state dict"
            ) from fault
    return dict(_tensors_in(loaded))


def _tensors_in(loaded: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401
    if isinstance(loaded, Tensor):
        yield name or "(a tensor)", loaded
    elif isinstance(loaded, Mapping):
        for key, value in loaded.items():
            yield from _tensors_in(value, f"{name}.{key}" if name else str(key))


def read_query_row(
    parts: Parts, weights: Mapping[str, StoredTensor], adapter: Adapter | None, *, query_id: int
) -> Tensor:
    """The query (D): that row of the embedding, from the adapter if it has an embedding of its own."""
    own = adapter.embedding if adapter else None
    stored = own or find_embedding(parts, weights)
    if query_id >= stored.shape[0]:
        raise CheckpointError(
            f"{stored.file}: the embedding has {stored.shape[0]:,} rows, and the query token's id is {query_id:,}; "
            "expected the backbone that was trained with it"
        )
    return stored.rows(query_id, query_id + 1)[0]


def find_embedding(parts: Parts, weights: Mapping[str, StoredTensor]) -> StoredTensor:
    """The backbone's embedding; CheckpointError if there is none, or more than one."""
    found = [stored for name, stored in weights.items() if name.endswith(_EMBEDDING)]
    if len(found) != 1:
        raise CheckpointError(f"{parts.backbone}: found {len(found)} weights named ...{_EMBEDDING}, expected one")
    return found[0]


def read_adapter(folder: Path, weights: Mapping[str, StoredTensor], *, query_id: int) -> Adapter:
    """The adapter of a directory, compared with the backbone's `weights`.

    CheckpointError for an adapter of another kind, for layers that the backbone lacks, and for weights that learned in
    full, except row `query_id` of the embedding, which is the query's."""
    config, file = read_json(folder / ADAPTER_CONFIG), folder / ADAPTER_FILE
    if config.get("peft_type") != "LORA" or not file.is_file():
        raise CheckpointError(f"{folder}: found {config.get('peft_type')!r}, expected LORA and its {ADAPTER_FILE}")
    stored = stored_weights([file])
    layers = _adapted_layers(file, stored, weights)
    embedding = None
    for whole in (tensor for name, tensor in stored.items() if not any(part in name for part in _FACTORS_AND_COPIES)):
        _refuse_other_rows(whole, weights, query_id=query_id)
        embedding = whole if whole.name.endswith(_EMBEDDING) else embedding
    config |= {"target_modules": sorted(layers), "modules_to_save": None}
    tensors = {name: tensor for name, tensor in load_file(file).items() if ".lora_" in name}
    return Adapter(config=config, tensors=tensors, embedding=embedding)


def _adapted_layers(file: Path, stored: Mapping[str, StoredTensor], weights: Mapping[str, StoredTensor]) -> set[str]:
    """Names of the layers that have an adapter. Every one must be the backbone's, and of its size."""
    layers = {name.partition(".lora_")[0] for name in stored if ".lora_" in name}
    for layer in sorted(layers):
        factors = [stored.get(f"{layer}.lora_{side}.weight") for side in "BA"]
        beside = weights.get(f"{layer.removeprefix(_PEFT_PREFIX)}.weight")
        shape = tuple(factor.shape[side] for side, factor in enumerate(factors) if factor)
        if beside is None or shape != beside.shape:
            expected = "no such layer" if beside is None else beside.shape
            raise CheckpointError(f"{file}: {layer} is {shape}, the backbone has {expected}; give its own --base")
    if not layers:
        raise CheckpointError(f"{file}: holds no low-rank factors")
    return {layer.removeprefix(_PEFT_PREFIX) for layer in layers}


def _refuse_other_rows(copy: StoredTensor, weights: Mapping[str, StoredTensor], *, query_id: int) -> None:
    """PEFT saves whole embeddings with an adapter; only the query's row may differ from the backbone's."""
    kind = next((end for end in (_EMBEDDING, _OUTPUT) if copy.name.endswith(end)), None)
    original = next((tensor for name, tensor in weights.items() if kind and name.endswith(kind)), None)
    # Tied weights are stored once, by the embedding's name.
    tied = (tensor for name, tensor in weights.items() if kind and name.endswith(_EMBEDDING))
    original = original or next(tied, None)
    if original is None or not _equal_except_row(copy, original, query_id=query_id):
        raise CheckpointError(
            f"{copy.file}: {copy.name} learned in full, which an adapter cannot hold; merge the adapter into its base "
            "with PEFT, and convert the merged model"
        )


def _equal_except_row(one: StoredTensor, other: StoredTensor, *, query_id: int) -> bool:
    if one.shape[1:] != other.shape[1:]:
        return False
    rows = min(one.shape[0], other.shape[0])
    for start in range(0, rows, _COMPARED_ROWS):
        stop = min(start + _COMPARED_ROWS, rows)
        unlike = (one.rows(start, stop).float() != other.rows(start, stop).float()).any(dim=1).nonzero().flatten()
        if any(start + row != query_id for row in unlike.tolist()):
            return False
    return True
