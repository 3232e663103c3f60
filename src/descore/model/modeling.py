"""DescoreModel: a backbone, one trainable query row, and a head.

    rewards_BK = model(inputs)          # whole sequences that end with the query

In: token ids laid out by `model.chat`. Out: hidden states and rewards. `model.generation` writes chains with it.

Shapes: B sequences, T tokens, D width, K named dimensions."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn

from descore.errors import CheckpointError, ConfigError, how_to_install
from descore.model import WeightPlacement, without_compiler, without_progress_bar
from descore.model.chat import QUERY_TOKEN, Chat, Inputs
from descore.model.checkpoint import (
    ADAPTER_CONFIG,
    CheckpointSettings,
    RefuseBroken,
    check_folder,
    find_checkpoint,
    read_as,
    read_head,
    write_descore_files,
)
from descore.rubric import DEFAULT_RUBRIC
from descore.types import Paradigm

MAX_PATCH = 256
"""The largest patch of a video processor, in pixels; known models have 14 and 16."""
FAMILIES = ("qwen3_vl", "efficient_vl", "qwen2_vl", "internvl", "qwen3_5", "smolvlm", "llava_onevision")
"""The module of each family, beside this one. They are imported in this order, until one has the model_type."""


def family_of(model_type: str) -> ModuleType:
    """The family's module. An unknown model_type raises ConfigError with the known ones."""
    known: list[str] = []
    for name in FAMILIES:
        family = import_module(f"{__package__}.{name}")
        if model_type in family.MODEL_TYPES:
            return family
        known.extend(family.MODEL_TYPES)
    raise ConfigError(f"backbone: model_type is {model_type!r}; expected one of {', '.join(known)}")


def transformers_config(source: str | Path) -> Any:  # noqa: ANN401
    """The config of a folder or hub id, by transformers."""
    from transformers import AutoConfig

    _import_family(source)
    return AutoConfig.from_pretrained(source, trust_remote_code=False)


def _import_family(source: str | Path) -> None:
    """Import the module of its family, which may have classes of its own that transformers is told of. What is missing,
    broken or unknown is refused by who opens it."""
    from transformers import PreTrainedConfig

    with suppress(ConfigError, OSError):
        family_of(PreTrainedConfig.get_config_dict(source)[0].get("model_type", ""))


def open_backbone(source: Any, *, dtype: torch.dtype, placement: WeightPlacement = WeightPlacement()) -> Any:  # noqa: ANN401, B008
    """The model of a folder or hub id with its weights, placed or on the CPU, or of a transformers config with random
    ones, in `dtype`.

    A model_type of no known family, and an adapter without the package that reads it, raise ConfigError; files that are
    missing or broken, tensors that are missing, unexpected or of another shape, and a model that needs code of its own,
    CheckpointError. Of a generation_config.json only the ids of tokens are kept: how chains are written is ours."""
    from transformers import AutoModelForImageTextToText, GenerationConfig

    named = isinstance(source, str | os.PathLike)
    if named:
        check_folder(Path(source))
    if named and (Path(source) / ADAPTER_CONFIG).is_file():
        check_peft(f"{source}: has an adapter, which")
    name, loading = source if named else "the config", dict[str, Any]()
    with RefuseBroken(name, "transformers cannot open the backbone"):
        config = transformers_config(source) if named else source
        options = placement.options(family_of(config.model_type), dtype)
        _check_attention(name, config)
        if named:
            with without_compiler(), without_progress_bar():
                model, loading = AutoModelForImageTextToText.from_pretrained(
                    source,
                    dtype=dtype,
                    use_safetensors=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, by name
                    trust_remote_code=False,
                    **options,
                )
        else:
            model = AutoModelForImageTextToText.from_config(config, dtype=dtype, trust_remote_code=False)
        ids = {key: getattr(model.generation_config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**ids)
    _check_tensors(source, loading)
    return model


def _check_attention(source: object, config: Any) -> None:  # noqa: ANN401
    """ConfigError for an attention that cannot be used here, before transformers imports or fetches it."""
    from transformers import utils

    parts = (config, *(getattr(config, name) for name in config.sub_configs))
    for chosen in sorted({str(part._attn_implementation) for part in parts}):
        version = chosen.removeprefix("flash_attention_")
        reason = None
        if version in ("2", "3", "4") and not getattr(utils, f"is_flash_attn_{version}_available")():
            reason = "is not installed"
        elif chosen.endswith("flex_attention"):
            reason = "does not take the masks that chains need"
        elif "/" in chosen or "|" in chosen:
            reason = "is code of a hub, or for a server"
        if reason:
            raise ConfigError(f"{source}: attn_implementation is {chosen}, which {reason}; set it to sdpa")


def check_peft(what: str) -> None:
    """ConfigError, which begins with `what`, unless PEFT is there and as new as this transformers needs it.

    Without PEFT, transformers passes an adapter over and opens the weights beside it."""
    if find_spec("peft") is None:
        raise ConfigError(f"{what} needs peft; {how_to_install('train')}")
    from packaging.version import Version
    from transformers.integrations.peft import MIN_PEFT_VERSION

    if Version(version("peft")) < Version(MIN_PEFT_VERSION):
        raise ConfigError(
            f"{what} needs peft {MIN_PEFT_VERSION} with transformers {version('transformers')}, found "
            f"{version('peft')}; install that, or an older transformers"
        )


def _check_tensors(source: object, loading: Mapping[str, Any]) -> None:
    """CheckpointError unless the file holds exactly the model's tensors."""
    for name, stored, needed in sorted(loading.get("mismatched_keys", ())):
        raise CheckpointError(f"{source}: {name} has shape {tuple(stored)}, config.json needs {tuple(needed)}")
    for key, fault in (
        ("missing_keys", "weights are missing for"),
        ("unexpected_keys", "config.json has no room for"),
    ):
        if names := sorted(loading.get(key, ())):
            raise CheckpointError(f"{source}: {fault} {len(names)} tensors, first {', '.join(names[:3])}")


def open_processor(source: str | Path) -> Any:  # noqa: ANN401  # processors share no typed base
    """The processor of a folder or hub id: tokenizer, chat template, video processor.

    What is missing or broken, or needs code of its own, raises CheckpointError."""
    from transformers import AutoProcessor

    check_folder(Path(source))
    _import_family(source)
    with RefuseBroken(source, "transformers cannot open the processor"):
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        check_processor(processor)
    return processor


def check_processor(processor: Any) -> None:  # noqa: ANN401
    """ValueError for a processor that reads no video, or in patches of no size."""
    video = getattr(processor, "video_processor", None)
    if video is None:
        raise ValueError(f"it is a {type(processor).__name__}, which reads no video; expected a video processor")
    for name in ("patch_size", "merge_size", "temporal_patch_size"):
        size = getattr(video, name, 1)  # a processor that leaves patches to the model has none
        if not isinstance(size, int) or not 0 < size <= MAX_PATCH:
            raise ValueError(f"{name} of its video processor is {size!r}; expected a number of pixels or frames")


def is_adapter(name: str) -> bool:
    """Whether a weight's name is that of an adapter's."""
    return ".lora_" in name


def has_adapters(backbone: Any) -> bool:  # noqa: ANN401  # the families' classes share no typed base
    """Whether there are adapters beside the backbone's weights."""
    return any(is_adapter(name) for name, _ in backbone.named_parameters())


def merge_adapters(backbone: Any) -> None:  # noqa: ANN401
    """Add each adapter's product to the weight that it stands beside, and take the adapter away."""
    if not has_adapters(backbone):
        return
    from peft.tuners.lora import LoraLayer

    for name, layer in [(n, m) for n, m in backbone.named_modules() if isinstance(m, LoraLayer)]:
        layer.merge()
        backbone.set_submodule(name, layer.get_base_layer())
    # A model that is marked so is saved as its adapters alone.
    backbone._hf_peft_config_loaded = False
    del backbone.peft_config
    # Nor is it saved by the names of the adapters' file that it was read from.
    vars(backbone).pop("_weight_conversions", None)


def save_base_weights(backbone: Any, folder: Path) -> None:  # noqa: ANN401
    """Write config and weights into a directory where `save_pretrained`, given adapters, has written these alone."""
    backbone.config.save_pretrained(folder)
    save_torch_state_dict(_without_adapters(backbone), folder)


def sort_targets(file: Path) -> None:
    """PEFT writes a set in the order of its hashes, which changes from run to run."""
    config = json.loads(file.read_text(encoding="utf-8"))
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _without_adapters(backbone: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The weights by the names that they have where there are no adapters; one that has two names, by its first."""
    once = {name for name, _ in (*backbone.named_parameters(), *backbone.named_buffers()) if not is_adapter(name)}
    weights = backbone.state_dict().items()
    return {name.replace(".base_layer.", "."): weight for name, weight in weights if name in once}


class RewardHead(nn.Module):
    """A linear map without bias, one row for each named dimension, in float32 whatever the backbone's precision, or in
    float64 behind a backbone of that."""

    def __init__(self, width: int, *, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, width, dtype=torch.float32))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Rewards (B, K), read at the last column, where the layout puts the query."""
        wide = torch.promote_types(hidden_BTD.dtype, torch.float32)
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            return hidden_BTD[:, -1].to(self.weight.device, wide) @ self.weight.to(wide).T


class DescoreModel(nn.Module):
    """A reward model: the backbone thinks, the query behind its chain is read by the head.

    A generative model's head has no rows (K = 0): its reward is the overall score at the end of its chain."""

    def __init__(self, backbone: Any, *, chat: Chat, settings: CheckpointSettings) -> None:  # noqa: ANN401
        super().__init__()
        self.backbone = backbone
        self.chat = chat
        self.settings = settings
        embedding = backbone.get_input_embeddings()
        # A row of its own, not the embedding's: only this row learns and has optimizer state. It is initialised
        # to the mean embedding.
        self.query = nn.Parameter(embedding.weight.detach().float().mean(dim=0))
        self.head = RewardHead(embedding.weight.shape[1], outputs=settings.outputs)
        self.query_id = chat.query_id
        embedding.register_forward_hook(self._insert_query)

    @classmethod
    def from_backbone(
        cls,
        source: Any,  # noqa: ANN401  # a path, a hub id or a transformers config
        *,
        processor: Any = None,  # noqa: ANN401
        settings: CheckpointSettings | None = None,
        rubric: str = DEFAULT_RUBRIC,
        dtype: torch.dtype = torch.float32,
        placement: WeightPlacement = WeightPlacement(),  # noqa: B008  # it is frozen
    ) -> Self:
        """Start a new reward model from a backbone's folder, hub id, or config (with random weights).

        The query token joins the tokenizer, and the embedding grows only if it has no row to spare. The head is
        random until it is trained: `settings.trained_on` stays None, and scoring says so. With `settings.paradigm`
        generative there is no head, and the backbone judges as it is. A config brings no processor, so one must be
        given."""
        if processor is None:
            if not isinstance(source, str | Path):
                raise ConfigError("from_backbone: a config brings no processor; give processor=")
            processor = open_processor(source)
        backbone = open_backbone(source, dtype=dtype, placement=placement)
        processor.tokenizer.add_tokens([QUERY_TOKEN], special_tokens=True)
        if len(processor.tokenizer) > backbone.get_input_embeddings().weight.shape[0]:
            backbone.resize_token_embeddings(len(processor.tokenizer), pad_to_multiple_of=64)
        family = family_of(backbone.config.model_type)
        settings = _fit_frames(settings or CheckpointSettings(), processor, family)
        chat = chat_of(processor, rubric, settings, family)
        _check_fit(source if isinstance(source, str | Path) else "the config", backbone, chat)
        return cls(backbone, chat=chat, settings=settings)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        paradigm: Paradigm | None = None,
        rubric: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        device_map: Any = None,  # noqa: ANN401  # transformers'
        quantization_config: Any = None,  # noqa: ANN401  # transformers', or a name
    ) -> Self:
        """Read a checkpoint from a folder, a hub id, or the bundled name `tiny`, ready to score.

        Paradigm: the checkpoint's own; "generative" opens any checkpoint, or a plain backbone, as a judge whose reward
        is what it writes; `rubric` does so under a released rubric, by its name or file, which says how. Device: a GPU
        if there is one. Precision: bfloat16 on a GPU, float32 on a CPU; query and head are always float32. `device_map`
        and `quantization_config`: see WeightPlacement. Anything missing or ill-fitting raises CheckpointError."""
        folder = find_checkpoint(source)
        settings, rubric = read_as(folder, paradigm, rubric=rubric)
        if device == "auto":
            device, device_map = None, "auto"
        usable = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        place = WeightPlacement(device=usable, device_map=device_map, quantization=quantization_config)
        dtype = dtype or place.dtype
        if settings.paradigm == "generative":
            judge = cls.from_backbone(folder, settings=settings, rubric=rubric, dtype=dtype, placement=place)
            return place.put(judge).eval()  # type: ignore[no-any-return]
        processor = open_processor(folder)
        backbone = open_backbone(folder, dtype=dtype, placement=place)
        chat = chat_of(processor, rubric, settings, family_of(backbone.config.model_type))
        _check_fit(folder, backbone, chat)
        model = cls(backbone, chat=chat, settings=settings.model_copy(update={"vocabulary_rows": None}))
        weights = read_head(folder, settings, backbone)
        with torch.no_grad():
            model.query.copy_(weights["query"])
            model.head.weight.copy_(weights["head"])
        return place.put(model).eval()  # type: ignore[no-any-return]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint directory atomically; one that is there is replaced."""
        from descore.io import atomic_directory  # scoring writes nothing

        with atomic_directory(Path(folder)) as aside, without_progress_bar():
            self.backbone.save_pretrained(aside)
            if has_adapters(self.backbone):
                sort_targets(aside / ADAPTER_CONFIG)
                save_base_weights(self.backbone, aside)
            if backend := getattr(self.chat.processor.tokenizer, "backend_tokenizer", None):
                backend.no_padding(), backend.no_truncation()  # of the last call: equal models have equal files
            self.chat.processor.save_pretrained(aside)
            write_descore_files(
                aside, settings=self.settings, rubric=self.chat.rubric, query=self.query, head=self.head.weight
            )

    @property
    def family(self) -> ModuleType:
        """The module that knows the backbone's family. Looked up, since a kept module could not be copied."""
        return family_of(self.backbone.config.model_type)

    def check_kernels(self) -> None:
        """ConfigError for flash attention on a CPU or in float32, where it does not run."""
        chosen = self.backbone.config.get_text_config()._attn_implementation
        if "flash" in chosen and (self.device.type == "cpu" or self.backbone.dtype == torch.float32):
            found = f"{self.backbone.dtype} on {self.device.type}".removeprefix("torch.")
            raise ConfigError(f"attn_implementation is {chosen}, which has no kernel for {found}; set it to sdpa")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.query.device

    def forward(self, inputs: Inputs) -> Tensor:
        """Rewards (B, K) of whole sequences that end with the query, as `Chat.lay_out_chains` gives them."""
        hidden_BTD = self.hidden(inputs)
        if not self.chat.queries:
            return self.rewards(hidden_BTD)
        each_B1D = self.chat.at_queries(hidden_BTD, inputs["input_ids"])
        return torch.stack([self.rewards(at_B1D)[:, k] for k, at_B1D in enumerate(each_B1D)], dim=1)

    def hidden(self, inputs: Inputs) -> Tensor:
        """Final, normalized hidden states (B, T, D) of whole sequences; the vision tower runs once."""
        inputs = {key: value for key, value in inputs.items() if key != "chain_mask"}
        position_3BT = self.family.positions(self.backbone, inputs)
        hidden_BTD: Tensor = self.family.last_hidden(self.backbone, inputs, position_ids=position_3BT, use_cache=False)
        return hidden_BTD

    def rewards(self, hidden_BTD: Tensor) -> Tensor:
        """Rewards (B, K) at the last column."""
        rewards_BK: Tensor = self.head(hidden_BTD)
        return rewards_BK

    def _insert_query(self, _embedding: nn.Module, args: tuple[Tensor, ...], embedded_BTD: Tensor) -> Tensor:
        is_query_BT1 = (args[0] == self.query_id).unsqueeze(-1)
        return torch.where(is_query_BT1, self.query.to(embedded_BTD.dtype), embedded_BTD)


def _fit_frames(settings: CheckpointSettings, processor: Any, family: ModuleType) -> CheckpointSettings:  # noqa: ANN401
    """Settings whose frames are of the family's sizes, unless they say themselves how frames are taken."""
    with RefuseBroken("the processor", "it does not belong to this backbone"):
        needed = family.sizes_needed(settings.sampling, processor)
    if "size_multiple" in settings.sampling.model_fields_set or not needed:
        return settings
    return settings.model_copy(update={"sampling": settings.sampling.model_copy(update=needed)})


def chat_of(processor: Any, rubric: str, settings: CheckpointSettings, family: ModuleType) -> Chat:  # noqa: ANN401
    """The token layout of a checkpoint of this family."""
    more: dict[str, Any] = {"wraps_frames": family.WRAPS_FRAMES, "lay_out_videos": family.lay_out_videos}
    more |= {"queries": settings.queries or (), "answer": settings.answer}
    return Chat(processor, rubric, settings.layout, resize=settings.sampling.rule == "qwen_vl_utils", **more)


def _check_fit(source: object, backbone: Any, chat: Chat) -> None:  # noqa: ANN401
    """CheckpointError if processor, tokenizer and backbone do not belong together, or the chat template is broken."""
    with RefuseBroken(source, "the processor does not belong to this backbone"):
        for fault in family_of(backbone.config.model_type).misfits(backbone.config, chat.processor):
            raise CheckpointError(f"{source}: {fault}")
    rows = backbone.get_input_embeddings().weight.shape[0]
    if len(chat.tokenizer) > rows:
        raise CheckpointError(f"{source}: the tokenizer has {len(chat.tokenizer)} tokens, the embedding {rows} rows")
    with RefuseBroken(source, "the chat template fails"):
        chat.check_template()


def _usable(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        reason = next(iter(str(fault).strip().splitlines()), type(fault).__name__)
        raise ConfigError(f"device {str(device)!r} cannot be used here: {reason}") from fault
