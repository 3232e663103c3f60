"""Convert a checkpoint of the official DeScore code into a descore checkpoint.

In: a directory as the official code writes it, its rubric, and the token layout that it was trained with. Out: a
directory that `DescoreModel.from_pretrained` opens. Weights are copied file by file and not loaded, unless an adapter
is merged into them, which holds them once. The query token keeps its id and is renamed.

Shapes: D width, K outputs of the head."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from descore.errors import CheckpointError, ConfigError
from descore.io import atomic_directory, check_place
from descore.model import official_layout as official
from descore.model.chat import QUERY_TOKEN, VIDEO_PLACE, Layout
from descore.model.checkpoint import (
    ADAPTER_CONFIG,
    INDEX_FILE,
    CheckpointSettings,
    RefuseBroken,
    check_folder,
    weight_files,
    write_descore_files,
)
from descore.model.modeling import DescoreModel, family_of, merge_adapters, open_processor
from descore.model.official_layout import Adapter, Parts
from descore.rubric import fill_rubric
from descore.video.sampling import VideoSampling

MAX_CHAIN_TOKENS = 4096
"""The limit of the official code, in training and inference."""
SAMPLING = VideoSampling(
    rule="qwen_vl_utils", fps=2.0, min_frames=4, max_frames=768, min_pixels=56 * 56, max_pixels=448 * 448
)
"""How the official code reads a video for its reward (`inference.py`), where it gives no bound the default of
qwen-vl-utils."""
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_OFFICIAL_VIDEO_PLACE = "<video>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """The result of a conversion."""

    folder: Path
    """The new checkpoint."""
    settings: CheckpointSettings
    """Its settings."""
    adapter: str
    """none, kept or merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A checkpoint as it is read, before anything is written."""

    parts: Parts
    config: Any
    """transformers' config of the backbone."""
    processor: Any
    query_D: Tensor
    head_KD: Tensor
    adapter: Adapter | None


def convert_official(
    source: str | Path,
    out: str | Path,
    *,
    rubric: str,
    layout: str,
    base: str | None = None,
    query_token: str = official.OFFICIAL_QUERY_TOKEN,
    dimensions: Sequence[str] = ("overall",),
    merge: bool = False,
) -> Conversion:
    """Write `out` atomically. `merge` adds the adapter to the weights.

    base: where an adapter's backbone is, if not where the adapter says. dimensions: a name for each output of the head.
    ConfigError for options that do not fit, CheckpointError for a source that cannot be read."""
    out = Path(out)
    _refuse_options(out, rubric=rubric, layout=layout)
    read = _read(official.find_parts(source, base=base), query_token=query_token)
    if merge and read.adapter is None:
        raise ConfigError(f"--merge: {source} has no adapter; leave it out")
    if len(dimensions) != len(read.head_KD):
        raise ConfigError(f"--dimension: the head has {len(read.head_KD)} outputs, found {len(dimensions)} names")
    settings = _settings(read, source=Path(source).resolve().name, layout=layout, dimensions=dimensions)
    with atomic_directory(out) as folder:
        _write(read, folder, settings=settings, rubric=rubric, query_token=query_token, linked=merge)
        if merge:
            merge_folder(folder, dtype=read.query_D.dtype)
    adapter = "none" if read.adapter is None else "merged" if merge else "kept"
    return Conversion(folder=out, settings=settings, adapter=adapter)


def _refuse_options(out: Path, *, rubric: str, layout: str) -> None:
    known = [known_layout.value for known_layout in Layout]
    if layout not in known:
        raise ConfigError(f"--layout: found {layout!r}, expected one of {', '.join(map(repr, known))}")
    if _OFFICIAL_VIDEO_PLACE in rubric:
        raise ConfigError(f"rubric: found {_OFFICIAL_VIDEO_PLACE}; write {VIDEO_PLACE} where the video stands")
    fill_rubric(rubric, prompt="")
    refuse_out(out)


def refuse_out(out: Path) -> None:
    """ConfigError for a folder that is there already, or whose parent is not."""
    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder with --out, or remove it")
    check_place(out)


def _read(parts: Parts, *, query_token: str) -> _Source:
    for folder in (parts.folder, parts.backbone):
        check_folder(folder)
    processor = _open_processor(parts)
    query_id = _token_id(query_token, processor.tokenizer, parts)
    config = open_config(parts.backbone)
    weights = official.stored_weights(weight_files(parts.backbone))
    adapter = official.read_adapter(parts.adapter, weights, query_id=query_id) if parts.adapter else None
    return _Source(
        parts=parts,
        config=config,
        processor=processor,
        query_D=official.read_query_row(parts, weights, adapter, query_id=query_id),
        head_KD=official.read_official_head(parts.head, width=config.get_text_config().hidden_size),
        adapter=adapter,
    )


def _open_processor(parts: Parts) -> Any:  # noqa: ANN401
    """The checkpoint's own, or its base's with the checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    if any((parts.folder / name).is_file() for name in _PROCESSOR_FILES):
        return open_processor(parts.folder)
    processor = open_processor(parts.backbone)
    if (parts.folder / "tokenizer.json").is_file():
        with RefuseBroken(parts.folder, "transformers cannot open the tokenizer"):
            processor.tokenizer = AutoTokenizer.from_pretrained(parts.folder, trust_remote_code=False)
    return processor


def open_config(backbone: Path) -> Any:  # noqa: ANN401
    """The backbone's config, with the name of transformers' class in place of another code's own."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    with RefuseBroken(backbone, "transformers cannot read the config"):
        config = AutoConfig.from_pretrained(backbone, trust_remote_code=False)
    family_of(config.model_type)
    config.architectures = [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[config.model_type]]
    return config


def _token_id(query_token: str, tokenizer: Any, parts: Parts) -> int:  # noqa: ANN401
    added = tokenizer.get_added_vocab()
    if query_token not in added:
        few = ", ".join(sorted(added, key=added.get)[-3:])
        raise CheckpointError(
            f"{parts.folder}: the tokenizer has no added token {query_token}; name the query token with --query-token "
            f"(the last ones added are {few})"
        )
    if query_token != QUERY_TOKEN and QUERY_TOKEN in added:
        raise CheckpointError(f"{parts.folder}: has both {query_token} and {QUERY_TOKEN}; expected one query token")
    return int(added[query_token])


def _settings(read: _Source, *, source: str, layout: str, dimensions: Sequence[str]) -> CheckpointSettings:
    videos = read.processor.video_processor
    return CheckpointSettings(
        dimensions=tuple(dimensions),
        layout=Layout(layout),
        sampling=SAMPLING.model_copy(update={"size_multiple": videos.patch_size * videos.merge_size}),
        max_chain_tokens=MAX_CHAIN_TOKENS,
        trained_on=f"by the official DeScore code; converted from {source}",
    )


def _write(
    read: _Source, folder: Path, *, settings: CheckpointSettings, rubric: str, query_token: str, linked: bool
) -> None:
    """The whole directory, without merging. `linked`: large files are links, since they are replaced soon."""
    backbone = read.parts.backbone
    place: Callable[[Path, Path], object] = _link if linked else shutil.copyfile
    for file in weight_files(backbone):
        place(file, folder / file.name)
    for name in (INDEX_FILE, "generation_config.json"):
        if (backbone / name).is_file():
            shutil.copyfile(backbone / name, folder / name)
    read.config.save_pretrained(folder)
    # Newer versions of transformers bound each frame by itself, which the official code's do not.
    read.processor.video_processor.cap_pixels_per_frame = False
    read.processor.save_pretrained(folder)
    _rename_token(folder, query_token)
    if read.adapter is not None:
        (folder / ADAPTER_CONFIG).write_text(json.dumps(read.adapter.config, indent=2), encoding="utf-8")
        save_file(dict(read.adapter.tensors), folder / official.ADAPTER_FILE, metadata={"format": "pt"})
    write_descore_files(folder, settings=settings, rubric=rubric, query=read.query_D, head=read.head_KD)


def _link(file: Path, link: Path) -> None:
    link.symlink_to(file.resolve())


def _rename_token(folder: Path, query_token: str) -> None:
    """Rename the query token in every tokenizer file. Its id, and so its row of the embedding, stays."""
    for file in folder.glob("tokenizer*.json"):
        content = _renamed(json.loads(file.read_text(encoding="utf-8")), {query_token: QUERY_TOKEN})
        for token in content.get("added_tokens", []):
            if token["content"] == QUERY_TOKEN:
                token |= {"special": True, "normalized": False}
        file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def _renamed(value: Any, names: dict[str, str]) -> Any:  # noqa: ANN401  # JSON
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def merge_folder(folder: Path, *, dtype: torch.dtype) -> None:
    """Add the adapter of a converted checkpoint to its weights."""
    model = DescoreModel.from_pretrained(folder, device="cpu", dtype=dtype)
    merge_adapters(model.backbone)
    model.save_pretrained(folder)
