"""The memory of scoring and of a step of training, computed without weights.

A model is built on torch's meta device, so that frozen and trained weights are counted, not estimated; one layer's
forward and backward runs on tensors that have sizes and no data, so that its saved tensors are counted, too. The rest
of a training step, in bfloat16 with gradient checkpointing, is

    held    frozen weights in bfloat16; of what learns, weights, gradients and AdamW's two moments in float32
    kept    the input of each layer, for each token; pixels and what the vision tower made of them
    at once the largest of: a layer again; a piece of logits; the copies in bfloat16 that mixed precision makes of what
            learns; and, when nothing is kept any more, the gradient of the embedding's table, or what AdamW needs to
            step over all weights together, as it does on a GPU

Scoring holds weights, the keys and values of a batch, and one layer's forward over it. Left out are the context of
CUDA, the kernels' workspaces, and fragmentation."""

import warnings
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import nn

from descore.errors import ConfigError, DescoreWarning
from descore.memory.live_bytes import forward_bytes, layer_bytes
from descore.model import expert_weights
from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel, open_backbone
from descore.training.config import PairTrainableConfig, PartConfig
from descore.training.losses import MAX_LOGITS
from descore.training.models import set_trainable

GIB = 1 << 30
Learns = Literal["lora", "full"]
"""How a language model does."""
Bits = Literal[4, 8]
"""In which bitsandbytes holds a weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes of a training step by purpose."""

    frozen: int
    learned: int
    kept: int
    seen: int
    layer: int
    logits: int
    copies: int
    table: int
    adamw: int

    @property
    def peak(self) -> int:
        """The largest sum at any time. When the table's gradient comes and AdamW steps, no activations are kept."""
        within = self.kept + max(self.layer, self.logits, self.copies)
        return self.frozen + self.learned + self.seen + max(within, self.table, self.adamw)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringNeed:
    """Bytes of scoring by purpose."""

    weights: int
    cache: int
    """Keys and values: each prompt's once, and those of its chains."""
    seen: int
    layer: int

    @property
    def peak(self) -> int:
        """All of it: while the prompts are read, the cache of the layers before is there."""
        return self.weights + self.cache + self.seen + self.layer


def empty_model(config: Any, *, learns: Learns | None = None) -> DescoreModel:  # noqa: ANN401
    """A model of a transformers config in bfloat16 that holds sizes and no data, and cannot lay out a conversation.
    learns: how its language model does, with query and head in full; None: nothing is prepared for training."""
    with torch.device("meta"):
        backbone = open_backbone(config, dtype=torch.bfloat16)
        chat: Any = SimpleNamespace(query_id=0)
        model = DescoreModel(backbone, chat=chat, settings=CheckpointSettings())
        if learns is not None:
            trainable = PairTrainableConfig(language_model=PartConfig(mode=learns))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DescoreWarning)  # of what does not learn, which nobody trains here
                set_trainable(model, trainable, precision=torch.bfloat16)
    return model


def scoring_need(
    model: DescoreModel,
    *,
    rows: int,
    tokens: int,
    chain: int,
    samples: int = 1,
    dtype: torch.dtype,
    bits: Bits | None = None,
    video: int | None = None,
) -> ScoringNeed:
    """Of a batch of `rows` clips, `tokens` each with its prompt and chain. dtype: of weights and cache; bits: of the
    linear layers' weights, if bitsandbytes holds them; video: tokens of the video in each row, None for half."""
    config = model.backbone.config.get_text_config()
    columns = rows * (tokens - chain) + rows * samples * chain
    hidden = (rows, tokens - chain, config.hidden_size)
    scale = dtype.itemsize / torch.bfloat16.itemsize
    # The kernel of experts has no other form without data.
    computed = torch.bfloat16 if expert_weights(model.backbone) else dtype
    peaks = [
        forward_bytes(layer.eval(), hidden, rotary=_rotary(model, hidden), dtype=computed)
        for layer in unlike_layers(model)
    ]
    return ScoringNeed(
        weights=weight_bytes(model, bits=bits, scale=scale),
        cache=cache_bytes(model, columns=columns, rows=rows * (1 + samples), dtype=dtype),
        seen=int(vision_bytes(model, tokens=rows * (tokens // 2 if video is None else video)) * scale)
        + 2 * rows * tokens * config.hidden_size * dtype.itemsize,
        layer=max(peaks) * dtype.itemsize // computed.itemsize + (dequantized_bytes(model) if bits else 0),
    )


def step_need(
    model: DescoreModel,
    *,
    rows: int,
    tokens: int,
    chain: int,
    gpu: bool,
    bits: Bits | None = None,
    video: int | None = None,
) -> Need:
    """Of a training step over `rows` sequences of `tokens`, of which `chain` have a loss on the next token. bits: of
    the frozen linear layers' weights, if bitsandbytes holds them (QLoRA). video: as in `scoring_need`. ConfigError for
    experts that learn: in float32 their kernel has no form without data."""
    config, text = model.backbone.config.get_text_config(), model.backbone.get_decoder()
    if any(weight.requires_grad for weight in expert_weights(model.backbone).values()):
        raise ConfigError(f"{config.model_type}: memory of experts that learn is not computed; by LoRA they do not")
    learned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    # Where the embedding learns it is held in float32, and so are all hidden states.
    dtype, width = text.embed_tokens.weight.dtype, config.hidden_size
    hidden = (rows, tokens, width)
    norm = norm_bytes(width, rows=rows, tokens=tokens, dtype=dtype)
    peaks = [
        layer_bytes(layer.train(), hidden, rotary=_rotary(model, hidden), dtype=dtype) for layer in unlike_layers(model)
    ]
    return Need(
        frozen=weight_bytes(model, bits=bits, learned=False),
        learned=learned * 4 * torch.float32.itemsize,
        kept=(len(text.layers) + 1) * rows * tokens * width * dtype.itemsize,  # and the gradient that goes back
        seen=vision_bytes(model, tokens=rows * (tokens // 2 if video is None else video)),
        layer=max(peaks) + waiting_bytes(model) + (dequantized_bytes(model) if bits else 0),
        logits=logits_bytes(model, written=rows * chain) + norm,
        copies=copied_bytes(model) + norm,
        table=table_bytes(model),
        adamw=learned * torch.float32.itemsize if gpu else 0,
    )


def unlike_layers(model: DescoreModel) -> list[nn.Module]:
    """A layer of the language model of each kind: with attention of one or the other form, dense or with experts."""
    by_shapes = {
        tuple((name, weight.shape) for name, weight in layer.named_parameters()): layer
        for layer in model.backbone.get_decoder().layers
    }
    return list(by_shapes.values())


def cache_bytes(model: DescoreModel, *, columns: int, rows: int, dtype: torch.dtype) -> int:
    """Keys and values of so many columns; where linear attention is, the states of `rows`, prompts and chains, too."""
    config, states = model.backbone.config.get_text_config(), model.family.ROW_STATES
    linear = 0 if states is None else list(config.layer_types).count("linear_attention")
    each = 2 * config.num_key_value_heads * _head_width(config) * columns * dtype.itemsize
    of_row = 0 if states is None else states.bytes_of(config, dtype=dtype)
    return int((config.num_hidden_layers - linear) * each + linear * rows * of_row)


def weight_bytes(model: DescoreModel, *, bits: Bits | None = None, scale: float = 1.0, learned: bool = True) -> int:
    """Of all weights, or without those that learn. With `bits`, linear layers but the output take one byte a weight and
    four a row (8), or half a byte a weight and four bytes for 64 of them (4), as bitsandbytes has them. scale: of the
    bytes of the others."""
    quantized = {id(linear.weight) for linear in _quantizable(model)} if bits else set()
    total = 0.0
    for weight in model.parameters():
        if weight.requires_grad and not learned:
            continue
        if id(weight) not in quantized:
            total += weight.nbytes * (scale if weight.dtype == torch.bfloat16 else 1.0)
        else:
            total += weight.numel() + 4 * len(weight) if bits == 8 else weight.numel() * (1 / 2 + 4 / 64)
    return int(total)


def _quantizable(model: DescoreModel) -> list[nn.Linear]:
    """The linear layers whose weights are quantized: the language model's, without its output and adapters."""
    output, prefixes = model.backbone.get_output_embeddings(), model.family.PARTS["language_model"]
    named = [(name, module) for name, module in model.backbone.named_modules() if isinstance(module, nn.Linear)]
    inside = [(name, module) for name, module in named if f"{name}.".startswith(prefixes)]
    return [module for name, module in inside if module is not output and ".lora_" not in name]


def dequantized_bytes(model: DescoreModel) -> int:
    """The largest quantized weight in bfloat16, which its layer computes with."""
    return max((linear.weight.numel() * 2 for linear in _quantizable(model)), default=0)


def _head_width(config: Any) -> int:  # noqa: ANN401  # transformers' configs share no typed base
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rotary(model: DescoreModel, hidden: tuple[int, int, int]) -> tuple[int, ...]:
    """The shape of the cosines of positions."""
    return *hidden[:2], _head_width(model.backbone.config.get_text_config())


def vision_bytes(model: DescoreModel, *, tokens: int) -> int:
    """Pixels in float32, and the vision tower's features for the first layers in bfloat16, of so many video tokens."""
    config, width = model.backbone.config, model.backbone.config.get_text_config().hidden_size
    pixels = model.family.values_of_token(config)
    deepstack = len(getattr(config.vision_config, "deepstack_visual_indexes", None) or ())
    return int(tokens * (pixels * 4 + (1 + deepstack) * width * 2))


def norm_bytes(width: int, *, rows: int, tokens: int, dtype: torch.dtype) -> int:
    """The last norm's input in float32, and its output."""
    return rows * tokens * width * (4 + dtype.itemsize)


def logits_bytes(model: DescoreModel, *, written: int) -> int:
    """A piece of logits in float32, with softmax and gradient. Where the output layer learns, beside its copy in
    bfloat16 and the gradient of the pieces before; or after that, its gradient in both precisions."""
    output = model.backbone.get_output_embeddings().weight
    tokens = MAX_LOGITS // len(output)
    piece = min(written, tokens) * len(output) * 3 * 4
    if not output.requires_grad:
        return int(piece)
    before = waiting_bytes(model) if written > tokens else 0
    return int(max(piece + output.numel() * 2 + before, piece // 6 + output.numel() * (2 + 2 + 4)))


def waiting_bytes(model: DescoreModel) -> int:
    """The output layer's gradient, kept through the whole backward if it is one table with the embedding."""
    output, table = model.backbone.get_output_embeddings().weight, model.backbone.get_input_embeddings().weight
    return table.nbytes if table is output and table.requires_grad else 0


def table_bytes(model: DescoreModel) -> int:
    """The gradient of the whole embedding, which comes last; and its sum with the output layer's, if they are one."""
    table = model.backbone.get_input_embeddings().weight
    return 2 * waiting_bytes(model) + (table.nbytes if table.requires_grad else 0)


def copied_bytes(model: DescoreModel) -> int:
    """The copies in bfloat16 of trained matrices that mixed precision keeps until the forward has ended."""
    return sum(m.weight.numel() * 2 for m in model.modules() if isinstance(m, nn.Linear) and m.weight.requires_grad)
