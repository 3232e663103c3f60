"""Export a checkpoint for engines that know of no reward head: query and head become rows of the vocabulary.

In: a checkpoint. Out: a folder that transformers and vLLM open as a plain Qwen3-VL, with adapters merged, and a
descore.json that names the rows. At the query token the reward is a sum of logits: see `VocabularyRows`. The weights
are held once.

Shapes: V vocabulary, D width, K named dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from descore.errors import CheckpointError, ConfigError
from descore.io import atomic_directory, check_place
from descore.model.chat import Chat
from descore.model.checkpoint import (
    HEAD_FILE,
    CheckpointSettings,
    RefuseBroken,
    VocabularyRows,
    check_folder,
    find_checkpoint,
    read_settings,
    write_settings,
)
from descore.model.modeling import DescoreModel, family_of, merge_adapters, open_processor, transformers_config

SCALE = 64.0
"""A power of two, so that dividing the head by it rounds nothing."""
_GROW = "in Python, model.backbone.resize_token_embeddings({rows}) and model.save_pretrained(FOLDER) of a DescoreModel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The result of an export."""

    folder: Path
    settings: CheckpointSettings
    """As its descore.json has them, with `vocabulary_rows`."""
    rows: VocabularyRows
    dtype: torch.dtype
    """Of the weights, query and head among them."""


def export_for_vllm(source: str | Path, out: str | Path, *, dtype: torch.dtype | None = None) -> Export:
    """Write `out` atomically. dtype: of the weights; None: as the checkpoint's config says.

    ConfigError for a folder that exists already, and a family that is not exported; CheckpointError for a checkpoint
    that has no head or no row to spare, or whose config other engines read in another way than transformers."""
    folder, out = find_checkpoint(source), Path(out)
    _refuse_out(out)
    settings = read_settings(folder)
    _refuse_paradigm(folder, settings)
    config = check_for_engines(folder)
    _refuse_family(folder, config.model_type)
    processor = open_processor(folder)
    rows = _spare_rows(
        folder,
        vocabulary=config.get_text_config().vocab_size,
        tokenizer=processor.tokenizer,
        query=settings.query_token,
        dimensions=settings.dimensions,
    )
    model = DescoreModel.from_pretrained(folder, device="cpu", dtype=dtype or config.dtype or torch.float32)
    merge_adapters(model.backbone)
    rows.fold(model.backbone, query_D=model.query, head_KD=model.head.weight)
    settings = settings.model_copy(update={"vocabulary_rows": rows})
    _fit_processor(model.chat)
    with atomic_directory(out) as aside:
        model.save_pretrained(aside)
        (aside / HEAD_FILE).unlink()
        write_settings(aside, settings)
    return Export(folder=out, settings=settings, rows=rows, dtype=model.backbone.dtype)


def check_for_engines(folder: Path) -> Any:  # noqa: ANN401  # transformers' configs share no typed base
    """The config of a folder that other engines read as transformers does. CheckpointError if they would not."""
    check_folder(folder)
    config = _read_config(folder)
    if family_of(config.model_type).INTERLEAVES_POSITIONS:
        _check_positions(folder, config)
    _check_normalization(folder, open_processor(folder))
    return config


def _refuse_out(out: Path) -> None:
    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder, or remove it")
    check_place(out)


def _refuse_paradigm(folder: Path, settings: CheckpointSettings) -> None:
    if settings.paradigm == "generative":
        raise CheckpointError(f"{folder}: is generative and has no head to export; engines open it as it is")
    if settings.queries is not None:
        raise CheckpointError(
            f"{folder}: its queries stand inside the rubric, where no engine but native reads rewards"
        )
    if settings.vocabulary_rows is not None:
        raise CheckpointError(f"{folder}: is exported already; export the checkpoint that it was made of")


def _refuse_family(folder: Path, model_type: str) -> None:
    family = family_of(model_type)
    if not family.EXPORTS:
        raise ConfigError(f"{folder}: {model_type} {family.ENGINE_FAULT}, so it is not exported; open it as it is")


def _fit_processor(chat: Chat) -> None:
    """What `Chat` asks of a processor in each call is made its setting, since a server takes no such wishes: frames are
    ours, and where each has a wrapper of its own the template writes the video's placeholder alone."""
    processor = chat.processor
    if chat.lay_out_videos is not None:
        return  # which asks for nothing
    processor.video_processor.do_sample_frames = False
    processor.video_processor.do_resize = chat.resize
    if chat.wraps_frames and isinstance(processor.chat_template, str):
        wrapped = f"{processor.vision_start_token}{processor.video_token}{processor.vision_end_token}"
        processor.chat_template = processor.chat_template.replace(wrapped, processor.video_token)


def _read_config(folder: Path) -> Any:  # noqa: ANN401  # transformers' configs share no typed base
    with RefuseBroken(folder, "transformers cannot read the config"):
        config = transformers_config(folder)
    family_of(config.model_type)
    return config


def _check_positions(folder: Path, config: Any) -> None:  # noqa: ANN401
    """CheckpointError unless the config says that rotary positions are interleaved. transformers interleaves those of
    this family without being asked, vLLM does not, and then every token behind a frame differs."""
    found = (config.get_text_config().rope_parameters or {}).get("mrope_interleaved")
    if found is not True:
        raise CheckpointError(
            f"{folder / 'config.json'}: mrope_interleaved in text_config's rope_parameters is {found}; expected true, "
            "as transformers takes it; set it there"
        )


def _check_normalization(folder: Path, processor: Any) -> None:  # noqa: ANN401
    """CheckpointError unless images and videos are normalized alike: vLLM takes the image part's numbers for both."""
    for name in ("image_mean", "image_std"):
        image, video = (getattr(part, name) for part in (processor.image_processor, processor.video_processor))
        if list(image or ()) != list(video or ()):
            raise CheckpointError(
                f"{folder}: {name} of the image processor is {image}, of the video processor {video}, and vLLM "
                "takes the first for both; set the first to the second, since descore reads videos only"
            )


def _spare_rows(
    folder: Path,
    *,
    vocabulary: int,
    tokenizer: Any,  # noqa: ANN401
    query: str,
    dimensions: Sequence[str],
) -> VocabularyRows:
    """The first rows behind every token's, 2 K + 1 of them: no text holds one, so they may also be rows of the input.

    CheckpointError if there are too few."""
    tokens = 1 + max(*tokenizer.get_vocab().values(), len(tokenizer) - 1)
    needed = 2 * len(dimensions) + 1
    if vocabulary - tokens < needed:
        raise CheckpointError(
            f"{folder}: needs {needed} rows of the vocabulary that no token has, and has {max(0, vocabulary - tokens)} "
            f"({vocabulary:,} rows, {tokens:,} tokens); add some: {_GROW.format(rows=tokens + needed)}"
        )
    zero, hi, lo = tokens, tokens + 1, tokens + 1 + len(dimensions)
    return VocabularyRows(
        scale=SCALE,
        query=tokenizer.convert_tokens_to_ids(query),
        zero=zero,
        hi={name: hi + row for row, name in enumerate(dimensions)},
        lo={name: lo + row for row, name in enumerate(dimensions)},
    )
