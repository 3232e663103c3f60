"""Convert a checkpoint of VideoAlign's code, such as KlingTeam/VideoReward, into a descore checkpoint.

    model_config.json                  what it was trained with, and the mean and deviation of its rewards
    checkpoint-N/model.pth             all weights by PEFT's names, base and adapter apart; or
    checkpoint-N/adapter_model.safetensors, non_lora_state_dict.pth    the adapter, and what else learned
    checkpoint-N/tokenizer/            with the query tokens added

The queries <|VQ_reward|>, <|MQ_reward|> and <|TA_reward|> stand inside the rubric, and one head reads each of them
(Liu et al. 2025, arXiv 2501.13918; github.com/KwaiVGI/VideoAlign). In: that directory, and the backbone that it names,
for its config and processor. Out: a discriminative checkpoint; files are read as plain tensors, and nothing is run.

Each row of our head is theirs divided by the reward's deviation, so that the mean of the dimensions orders clips as
their "Overall" does, and the standardized score is a third of it.

Shapes: V vocabulary, D width, K dimensions."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from descore.errors import CheckpointError, ConfigError
from descore.io import atomic_directory
from descore.model.checkpoint import (
    ADAPTER_CONFIG,
    WEIGHTS_FILE,
    CheckpointSettings,
    RefuseBroken,
    find_checkpoint,
    read_json,
    weight_files,
    write_descore_files,
)
from descore.model.convert_official import Conversion, merge_folder, open_config, refuse_out
from descore.model.modeling import open_processor
from descore.model.official_layout import ADAPTER_FILE, LEARNED_BESIDE, read_torch_file
from descore.rubric import fill_rubric, read_released
from descore.video.sampling import VideoSampling

REWARD_NAMES = ("VQ", "MQ", "TA")
"""Visual quality, motion quality, text alignment."""
QUERIES = tuple(f"<|{name}_reward|>" for name in REWARD_NAMES)
_MODEL_CONFIG, _WHOLE = "model_config.json", "model.pth"
FRAME_PIXELS = 128 * 28 * 28
"""Pixels of a frame at least, in their copy of qwen-vl-utils."""
_HEAD = "rm_head.weight"
_TEMPLATE = "detailed_special"
"""The name of the rubric that has the queries in it."""
_NAMES = (
    (r"^base_model\.model\.", ""),
    (r"\.base_layer\.|\.modules_to_save\.default\.", "."),
    (r"\.(lora_[AB])\.default\.", r".\1."),
    (r"^model\.(layers|embed_tokens|norm)\b", r"model.language_model.\1"),
    (r"^visual\.", "model.visual."),
)
"""From the names of PEFT and of transformers 4 to those of transformers 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A checkpoint as it is read."""

    settings: CheckpointSettings
    config: Any
    """transformers' config of the backbone."""
    processor: Any
    weights: Mapping[str, Tensor]
    """The backbone's, by transformers' names."""
    adapter: Mapping[str, Tensor]
    """Low-rank factors by PEFT's names; empty if it was trained in full."""
    lora: Mapping[str, Any]
    head_KD: Tensor
    query_D: Tensor
    template: str


def convert_videoalign(
    source: str | Path, out: str | Path, *, rubric: str | None = None, base: str | None = None, merge: bool = False
) -> Conversion:
    """Write `out` atomically. All weights are in memory once.

    rubric: the text that it was trained with, if not the released model's. base: its backbone's folder or hub id, if
    not where model_config.json says; of a whole checkpoint only config and processor are read there. merge: add the
    adapter to the weights.
    ConfigError for options that do not fit, CheckpointError for a source that cannot be read."""
    out = Path(out)
    refuse_out(out)
    read = _read(find_checkpoint(source), base=base)
    if merge and not read.adapter:
        raise ConfigError(f"--merge: {source} has no adapter; leave it out")
    text = _rubric(rubric, template=read.template)
    with atomic_directory(out) as folder:
        _write(read, folder, rubric=text)
        if merge:
            merge_folder(folder, dtype=read.query_D.dtype)
    adapter = "none" if not read.adapter else "merged" if merge else "kept"
    return Conversion(folder=out, settings=read.settings, adapter=adapter)


def _rubric(text: str | None, *, template: str) -> str:
    if text is None and template != _TEMPLATE:
        raise ConfigError(f"--rubric: it was trained with the prompt {template!r}; expected the text of that in a file")
    text = read_released("videoalign").rubric if text is None else text
    fill_rubric(text, prompt="")
    return text


def _read(folder: Path, *, base: str | None) -> _Source:
    if not (folder / _MODEL_CONFIG).is_file():
        raise CheckpointError(f"{folder}: has no {_MODEL_CONFIG}; expected a checkpoint of VideoAlign's code")
    content = read_json(folder / _MODEL_CONFIG)
    parts = {name: _part(content, name, file=folder / _MODEL_CONFIG) for name in ("data_config", "model_config")}
    _check_form(parts["model_config"], file=folder / _MODEL_CONFIG)
    step = _last_step(folder)
    backbone = find_checkpoint(base or str(parts["model_config"].get("model_name_or_path")))
    processor = _open_processor(step, backbone)
    tensors = _read_tensors(step, backbone)
    head_KD = _take_head(tensors, source=step)
    weights = {name: tensor for name, tensor in tensors.items() if ".lora_" not in name}
    embedding_VD = weights.get("model.language_model.embed_tokens.weight")
    ids = processor.tokenizer.convert_tokens_to_ids(list(QUERIES))
    if embedding_VD is None or max(ids) >= len(embedding_VD):
        rows = "none" if embedding_VD is None else f"one of {len(embedding_VD):,} rows"
        raise CheckpointError(f"{step}: the queries are tokens {ids}; expected an embedding with them, found {rows}")
    config = open_config(backbone)
    config.get_text_config().vocab_size = len(embedding_VD)
    moments = _part(content, "inference_config", file=folder / _MODEL_CONFIG) if content.get("inference_config") else {}
    settings, scale_K1 = _settings(folder, parts["data_config"], moments, processor=processor, head_KD=head_KD)
    return _Source(
        settings=settings,
        config=config,
        processor=processor,
        weights=_untied(weights, config),
        adapter={f"base_model.model.{name}": tensor for name, tensor in tensors.items() if ".lora_" in name},
        lora=content.get("peft_lora_config") or {},
        head_KD=head_KD.expand(len(REWARD_NAMES), -1) / scale_K1,
        query_D=embedding_VD[ids[-1]],
        template=str(parts["data_config"].get("prompt_template_type")),
    )


def _part(content: Mapping[str, Any], name: str, *, file: Path) -> Mapping[str, Any]:
    part = content.get(name)
    if not isinstance(part, dict):
        raise CheckpointError(f"{file}: {name} is {part!r}, expected an object")
    return part


def _check_form(config: Mapping[str, Any], *, file: Path) -> None:
    """CheckpointError for a model that reads its rewards elsewhere than at the three tokens."""
    if not config.get("use_special_tokens"):
        reads = config.get("reward_token", "last")
        raise CheckpointError(f"{file}: reads its reward at {reads!r}; expected use_special_tokens, a token for each")


def _last_step(folder: Path) -> Path:
    steps = {int(path.name.split("-")[-1]): path for path in folder.glob("checkpoint-*[0-9]") if path.is_dir()}
    if not steps:
        raise CheckpointError(f"{folder}: has no folder checkpoint-N")
    return steps[max(steps)]


def _open_processor(step: Path, backbone: Path) -> Any:  # noqa: ANN401  # processors share no typed base
    """The backbone's, with the tokenizer of the checkpoint, or with the queries added as their code does it."""
    from transformers import AutoTokenizer

    processor = open_processor(backbone)
    place = next((each for each in (step / "tokenizer", step) if (each / "tokenizer.json").is_file()), None)
    if place is not None:
        with RefuseBroken(place, "transformers cannot open the tokenizer"):
            processor.tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    processor.tokenizer.add_tokens(list(QUERIES), special_tokens=True)
    return processor


def _read_tensors(step: Path, backbone: Path) -> dict[str, Tensor]:
    """All of the model's tensors by transformers' names, factors as PEFT saves them, without a prefix."""
    if (step / _WHOLE).is_file():
        return _renamed(read_torch_file(step / _WHOLE))
    adapter, learned = step / ADAPTER_FILE, step / LEARNED_BESIDE
    if not (adapter.is_file() and learned.is_file()):
        raise CheckpointError(f"{step}: has neither {_WHOLE} nor {ADAPTER_FILE} with {LEARNED_BESIDE}")
    files = weight_files(backbone)
    if not files:
        raise CheckpointError(
            f"{backbone}: has no {WEIGHTS_FILE}; expected the backbone of {adapter}; name it with --base"
        )
    tensors: dict[str, Tensor] = {}
    for file in (*files, adapter):
        with RefuseBroken(file, "cannot be read"):
            tensors |= _renamed(load_file(file))
    return tensors | _renamed(read_torch_file(learned))


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        if ".original_module." in name:
            continue
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    return renamed


def _take_head(tensors: dict[str, Tensor], *, source: Path) -> Tensor:
    """The head (1 or K, D), taken out of the tensors."""
    head = tensors.pop(_HEAD, None)
    if head is None or head.ndim != 2 or head.shape[0] not in (1, len(REWARD_NAMES)):
        found = "none" if head is None else tuple(head.shape)
        raise CheckpointError(f"{source}: {_HEAD} is {found}; expected a matrix of 1 or {len(REWARD_NAMES)} rows")
    return head.float()


def _untied(weights: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The weights without an output matrix that is the embedding."""
    tied = bool(config.tie_word_embeddings)
    return {name: tensor.contiguous() for name, tensor in weights.items() if not (tied and name == "lm_head.weight")}


def _settings(
    folder: Path,
    data: Mapping[str, Any],
    moments: Mapping[str, Any],
    *,
    processor: Any,  # noqa: ANN401
    head_KD: Tensor,
) -> tuple[CheckpointSettings, Tensor]:
    """Settings, and the deviations (K, 1) that the head is divided by: ones where none are stored."""
    try:
        std = {name: float(moments[f"{name}_std"]) if moments else 1.0 for name in REWARD_NAMES}
        mean = {name: float(moments[f"{name}_mean"]) / std[name] for name in REWARD_NAMES} if moments else None
        sampling = _sampling(data, multiple=processor.video_processor.patch_size * processor.video_processor.merge_size)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, ConfigError) as fault:
        raise CheckpointError(f"{folder / _MODEL_CONFIG}: cannot be used: {fault}") from fault
    settings = CheckpointSettings(
        paradigm="discriminative",
        dimensions=REWARD_NAMES,
        queries=QUERIES,
        sampling=sampling,
        reward_mean=mean,
        reward_std=None if mean is None else dict.fromkeys(REWARD_NAMES, 1.0),
        trained_on=f"by VideoAlign's code; converted from {folder.resolve().name}",
    )
    return settings, head_KD.new_tensor([[std[name]] for name in REWARD_NAMES])


def _sampling(data: Mapping[str, Any], *, multiple: int) -> VideoSampling:
    """How their code reads a video, whatever its length."""
    if data.get("sample_type", "uniform") != "uniform":
        raise ValueError(f"sample_type is {data['sample_type']!r}, expected 'uniform'")
    frames = data.get("num_frames")
    least, most = (4, 768) if frames is None else (int(frames), int(frames))
    pixels = int(data["max_frame_pixels"])
    return VideoSampling(
        rule="videoalign",
        fps=float(data.get("fps") or 2.0),
        min_frames=least,
        max_frames=most,
        min_pixels=min(FRAME_PIXELS, pixels),
        max_pixels=pixels,
        size_multiple=multiple,
    )


def _write(read: _Source, folder: Path, *, rubric: str) -> None:
    read.config.save_pretrained(folder)
    # Newer versions of transformers bound each frame by themselves, which their code's does not.
    read.processor.video_processor.cap_pixels_per_frame = False
    read.processor.save_pretrained(folder)
    save_file(dict(read.weights), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    if read.adapter:
        adapter = {name: tensor.contiguous() for name, tensor in read.adapter.items()}
        save_file(adapter, folder / ADAPTER_FILE, metadata={"format": "pt"})
        (folder / ADAPTER_CONFIG).write_text(json.dumps(_adapter_config(read), indent=2), encoding="utf-8")
    write_descore_files(folder, settings=read.settings, rubric=rubric, query=read.query_D, head=read.head_KD)


def _adapter_config(read: _Source) -> dict[str, Any]:
    """As PEFT reads it; its target modules are exactly the layers that have factors."""
    layers = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in read.adapter}
    rank = next(tensor.shape[0] for name, tensor in read.adapter.items() if ".lora_A." in name)
    return {
        "peft_type": "LORA",
        "task_type": read.lora.get("lora_task_type"),
        "r": rank,
        "lora_alpha": read.lora.get("lora_alpha", rank),
        "lora_dropout": 0.0,
        "use_rslora": bool(read.lora.get("use_rslora")),
        "bias": "none",
        "target_modules": sorted(layers),
        "base_model_name_or_path": None,
    }
