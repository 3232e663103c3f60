"""One forward over chains that share a prompt: the log-probabilities of all their tokens, and the rewards behind them.

    [prompt, chain 1, query, chain 2, query, ..., chain G, query]

A chain sees the prompt and itself, and its positions begin where the prompt's end, so each number and each gradient is
that of its own whole sequence, while the video and the prompt are encoded once. A family whose layers read in order,
which no mask parts (`PACKS` is False), has one chain in a row: the same numbers, and the prompt is encoded for each.

`pack_groups` lays chains out behind their prompts as packs, `forward_pack` reads one.

Shapes: C clips, P rows of a pack (a clip each, or a chain each), T columns, R chains of a pack, N chain tokens, n of
them at a time, D width, V vocabulary, K named dimensions."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain as joined
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from descore.errors import ConfigError
from descore.model import attending_by
from descore.model.chat import Inputs, Layout, Tokens
from descore.model.generation import suppressed_token_ids
from descore.model.modeling import DescoreModel
from descore.training.losses import map_chunks, tokens_at_once

PACKED = "descore_packed"
"""The name of `attend_packed` among transformers' attention functions."""
MASK_BLOCK = 128
"""Columns of a block of flex_attention's mask: its kernels' own."""
COLUMN_MULTIPLE = 8
"""The columns of a pack are a multiple of it: attention kernels would otherwise copy the mask into one, in each
layer."""
_PROMPT, _PADDING = 0, -1

Member = tuple[int, int]
"""Which clip, and which of its chains."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pack:
    """What one forward reads: a row for each clip (or chain: see `PACKS` of a family), its prompt padded on the left,
    all prompts ending at one column."""

    input_ids_PT: Tensor
    """Prompt, then each chain as the query sees it, followed by the query."""
    position_3PT: Tensor
    """Rotary positions: each chain's go on from its prompt's."""
    part_PT: Tensor
    """0 at the prompt, 1 at the row's first chain and its query, 2 at the next; -1 at padding."""
    vision: Inputs
    """The vision inputs of the clips, each once."""
    clip_of_P: tuple[int, ...]
    """Which of these clips a row has."""
    chains: tuple[Member, ...]
    """The R chains, row by row."""
    target_N: Tensor
    """The chains' tokens, chain by chain, each one's end of turn included."""
    before_N: Tensor
    """The column of the hidden state that predicts each of them, counted through all rows."""
    chain_of_N: Tensor
    """The chain of each of them, from 0 to R - 1."""
    query_R: Tensor
    """The column of each chain's query, counted through all rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackOutput:
    """The output of a forward of a pack. Log-probabilities and rewards have gradients where the weights are trained."""

    log_prob_N: Tensor
    """Of each chain token, among those that a rollout may write, at its temperature: float32."""
    reward_RK: Tensor | None
    """Float32; None without `reward`."""
    entropy_N: Tensor | None
    """Of the distribution that each token was drawn from, nats, float32, without gradient; None without `entropy`."""
    chain_of_N: Tensor
    """The chain of each token, from 0 to R - 1."""
    chains: tuple[Member, ...]
    """The R chains, as (clip, number within its group)."""


def pack_groups(
    model: DescoreModel, prompts: Inputs, chains: Sequence[Sequence[Tokens]], *, token_budget: int | None = None
) -> list[Pack]:
    """Packs that together hold every chain once, clip by clip, chain by chain.

    prompts: C user turns, as `Chat.lay_out_prompts` gives them. chains: of each clip any number, each ending with the
    end of turn; a clip without any is in no pack. token_budget: rows times columns of a pack at most, padding included,
    unless a single chain behind its prompt has more. Whole groups stand side by side as far as it goes; a group beyond
    it is spread over several packs, in each of which its prompt is encoded again. None: all is one pack.

    ConfigError for a checkpoint that reads its chain in the user's turn, where no chain follows what was encoded."""
    if model.chat.layout is Layout.USER_TURN:
        raise ConfigError(
            f"layout: found {model.chat.layout.value!r}, where chains cannot share a prompt; expected "
            f"{Layout.QUERY_LAST.value!r}, start from a checkpoint of that layout"
        )
    prompt_C = prompts["attention_mask"].sum(dim=1).tolist()
    tail_CG = [[len(model.chat.before_query(chain)) + 1 for chain in group] for group in chains]
    packs = _assign_packs(prompt_C, tail_CG, token_budget, shares=model.family.PACKS)
    position_3CT = model.family.positions(model.backbone, prompts)
    return [_lay_out(model, prompts, position_3CT, chains, members) for members in packs]


def forward_pack(
    model: DescoreModel,
    pack: Pack,
    *,
    temperature: float = 1.0,
    reward: bool = True,
    entropy: bool = False,
    max_logits: int | None = None,
) -> PackOutput:
    """One forward. The model's mode, and whether there are gradients, are the caller's choice.

    temperature: that of the rollout. Tokens that a rollout never samples have no probability here either; the end of
    turn that is forced on a chain at its limit has the probability that the model gives it. max_logits: logits that
    exist at one time; None: `losses.MAX_LOGITS`."""
    hidden_QD = _hidden(model, pack).flatten(0, 1)
    suppressed = torch.tensor(suppressed_token_ids(model), device=hidden_QD.device)

    def token_log_probs(hidden_nD: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
        logits_nV = (model.backbone.lm_head(hidden_nD).float() / temperature).index_fill_(1, suppressed, -torch.inf)
        log_prob_nV = logits_nV.log_softmax(dim=-1)
        entropy_n = torch.special.entr(log_prob_nV.detach().exp()).sum(dim=-1) if entropy else log_prob_nV.new_empty(0)
        return log_prob_nV.gather(1, target_n[:, None])[:, 0], entropy_n

    chunk_size = tokens_at_once(model, max_logits=max_logits)
    log_probs, entropies = map_chunks(token_log_probs, hidden_QD[pack.before_N], pack.target_N, chunk_size=chunk_size)
    return PackOutput(
        log_prob_N=torch.cat(log_probs),
        reward_RK=model.rewards(hidden_QD[pack.query_R, None]) if reward else None,
        entropy_N=torch.cat(entropies) if entropy else None,
        chain_of_N=pack.chain_of_N,
        chains=pack.chains,
    )


def _hidden(model: DescoreModel, pack: Pack) -> Tensor:
    """Final, normalized hidden states (P, T, D)."""
    if not model.family.PACKS:
        return _hidden_of_whole_rows(model, pack)
    inputs, config = {"input_ids": pack.input_ids_PT, **pack.vision}, model.backbone.config.get_text_config()
    options = {"attention_mask": _attention_mask(model, pack.part_PT), "position_ids": pack.position_3PT}
    name = "eager" if config._attn_implementation == "eager" else PACKED
    with attending_by(model.backbone, name):
        hidden_PTD: Tensor = model.family.last_hidden(model.backbone, inputs, use_cache=False, **options)
    if torch.is_grad_enabled() and model.backbone.is_gradient_checkpointing:
        config._attn_implementation = name  # the backward reads the layers again
    return hidden_PTD


def _hidden_of_whole_rows(model: DescoreModel, pack: Pack) -> Tensor:
    """The same where a row has one chain, under a mask of padding alone. Each clip is encoded once."""
    vision = model.family.vision_of(model.family.encode_vision(model.backbone, pack.vision), pack.clip_of_P)
    inputs = {"input_ids": pack.input_ids_PT, "attention_mask": (pack.part_PT != _PADDING).long(), **vision}
    options = {"position_ids": pack.position_3PT, "use_cache": False}
    hidden_PTD: Tensor = model.family.last_hidden(model.backbone, inputs, **options)
    return hidden_PTD


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,  # noqa: ANN401  # a tensor, a BlockMask or None
    **kwargs: Any,  # noqa: ANN401  # transformers' signature
) -> tuple[Tensor, None]:
    """Attention under a pack's mask without repeated keys and values: a block mask by flex_attention, a tensor on a
    CPU by sdpa, whose kernel there takes both a mask and groups of heads. Everything else is transformers' sdpa."""
    if attention_mask is None or (isinstance(attention_mask, Tensor) and query.device.type != "cpu"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    options, kind = {"scale": kwargs["scaling"], "enable_gqa": query.shape[1] != key.shape[1]}, query.device.type
    if isinstance(attention_mask, Tensor):
        options |= {"attn_mask": attention_mask, "dropout_p": kwargs.get("dropout", 0.0)}
        out = scaled_dot_product_attention(query, key, value, **options)
    else:
        # autocast knows sdpa, and not flex_attention
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
        query, key, value = (states.to(dtype) for states in (query, key, value))
        out = flex_attention(kind)(query, key, value, block_mask=attention_mask, **options)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(PACKED, attend_packed)
AttentionMaskInterface.register(PACKED, sdpa_mask)


@cache
def flex_attention(device: str) -> Callable[..., Tensor]:
    """Torch's flex_attention: compiled on CUDA, and as it is elsewhere, where it is slow and for tests."""
    from torch.nn.attention import flex_attention as flex

    attend: Any = flex.flex_attention
    return torch.compile(attend) if device == "cuda" else attend  # type: ignore[no-any-return]


@cache
def flex_fault(device: torch.device, dtype: torch.dtype, heads: int, groups: int, width: int) -> str | None:
    """Why flex_attention cannot be used for a model of this form; None if it can. A small pack is tried, forward and
    backward."""
    if device.type != "cuda":
        return "flex_attention is compiled for CUDA"
    part_PT = torch.ones(1, 2 * MASK_BLOCK, dtype=torch.long, device=device)
    try:
        query, key, value = (
            torch.zeros(1, h, 2 * MASK_BLOCK, width, dtype=dtype, device=device, requires_grad=True)
            for h in (heads, groups, groups)
        )
        out = flex_attention("cuda")(query, key, value, block_mask=block_mask(part_PT), enable_gqa=heads != groups)
        torch.autograd.backward(out.sum())
    except (RuntimeError, NotImplementedError, ImportError, OSError, subprocess.SubprocessError) as error:
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return None


def block_mask(part_PT: Tensor) -> Any:  # noqa: ANN401
    """The mask of a pack for flex_attention, which skips blocks of columns that see nothing of one another."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(row: Tensor, _head: Tensor, column: Tensor, other: Tensor) -> Tensor:
        part, others = part_PT[row, column], part_PT[row, other]
        return ((part == others) | (others == _PROMPT)) & (column >= other)

    rows, columns = part_PT.shape
    return create_block_mask(sees, rows, None, columns, columns, device=part_PT.device, BLOCK_SIZE=MASK_BLOCK)


def _attention_mask(model: DescoreModel, part_PT: Tensor) -> Any:  # noqa: ANN401
    """A block mask where flex_attention runs, else an additive one."""
    dtype, config = _attention_dtype(model), model.backbone.config.get_text_config()
    attention = model.backbone.get_decoder().layers[0].self_attn
    form = (config.num_attention_heads, config.num_key_value_heads, attention.head_dim)
    dropout = config.attention_dropout > 0 and model.training  # which flex_attention does not know
    if config._attn_implementation == "eager" or dropout or flex_fault(part_PT.device, dtype, *form):
        return _mask(part_PT, dtype)
    return block_mask(part_PT)


def _mask(part_PT: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive attention mask (P, 1, T, T): 0 where a column sees another, the least number elsewhere.

    Padding sees padding, since a column that sees nothing has no softmax. Additive and not boolean, so that one tensor
    serves all layers: attention would convert a boolean mask in each."""
    causal_TT = torch.ones(part_PT.shape[1], part_PT.shape[1], dtype=torch.bool, device=part_PT.device).tril()
    own_or_prompt_PTT = (part_PT[:, :, None] == part_PT[:, None, :]) | (part_PT == _PROMPT)[:, None, :]
    hidden_PTT = ~(own_or_prompt_PTT & causal_TT)
    return torch.zeros(hidden_PTT.shape, dtype=dtype, device=part_PT.device).masked_fill_(
        hidden_PTT, torch.finfo(dtype).min
    )[:, None]


def check_attention(model: DescoreModel) -> None:
    """ConfigError for kernels that take no mask, such as flash attention's, where chains share a prompt."""
    kernel = model.backbone.config.get_text_config()._attn_implementation
    if model.family.PACKS and kernel not in ("sdpa", "eager", PACKED):
        raise ConfigError(
            f"attn_implementation is {kernel}, which takes no mask, and stage 2 packs chains behind one prompt with a "
            "mask; set it to sdpa"
        )


def _attention_dtype(model: DescoreModel) -> torch.dtype:
    """The type of attention's scores."""
    check_attention(model)
    kind = model.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.backbone.dtype


def _assign_packs(
    prompt_C: Sequence[int], tail_CG: Sequence[Sequence[int]], budget: int | None, *, shares: bool
) -> list[list[Member]]:
    """The chains of each pack, from the lengths of prompts, and of chains with their query. shares: chains of a clip
    stand in one row."""

    def fits(members: Sequence[Member]) -> bool:
        tails = Counter[object]()
        for clip, g in members:
            tails[clip if shares else (clip, g)] += tail_CG[clip][g]
        # All prompts end at one column: the longest prompt and the longest chains need not be one row's.
        columns = _columns(max(prompt_C[clip] for clip, _ in members) + max(tails.values()))
        return budget is None or len(tails) * columns <= budget

    packs: list[list[Member]] = []
    for clip, group in enumerate(tail_CG):
        for part in _split_to_fit([(clip, g) for g in range(len(group))], fits):
            if packs and fits([*packs[-1], *part]):
                packs[-1] += part
            else:
                packs.append(part)
    return packs


def _split_to_fit(members: Sequence[Member], fits: Callable[[Sequence[Member]], bool]) -> Iterator[list[Member]]:
    """The members in order, as many at a time as fit, and one at least."""
    part: list[Member] = []
    for member in members:
        if part and not fits([*part, member]):
            yield part
            part = []
        part.append(member)
    if part:
        yield part


def _lay_out(
    model: DescoreModel,
    prompts: Inputs,
    position_3CT: Tensor,
    chains: Sequence[Sequence[Tokens]],
    members: Sequence[Member],
) -> Pack:
    clips = list(dict.fromkeys(clip for clip, _ in members))
    clip_R = [clips.index(clip) for clip, _ in members]
    clip_P, row_R = (range(len(clips)), clip_R) if model.family.PACKS else (clip_R, range(len(members)))
    rows = [clips[clip] for clip in clip_P]
    mask_PT = prompts["attention_mask"][rows].cpu()
    width = int(mask_PT.sum(dim=1).max())
    tail_R = [[*model.chat.before_query(chains[clip][g]), model.query_id] for clip, g in members]
    places = _places(row_R, [len(tail) for tail in tail_R], begin=width)
    columns, device = _columns(max(place.end for place in places)), prompts["input_ids"].device

    def widen(of_prompts: Tensor, fill: int) -> Tensor:
        return pad(of_prompts[..., -width:].cpu(), (0, columns - width), value=fill)

    ids_PT = widen(prompts["input_ids"][rows], model.chat.pad_id)
    part_PT = widen(mask_PT - 1, _PADDING)
    position_3PT = widen(position_3CT[:, rows], 0)
    next_P = position_3PT.amax(dim=(0, 2)) + 1
    for place, tail in zip(places, tail_R, strict=True):
        ids_PT[place.row, place.begin : place.end] = torch.tensor(tail)
        part_PT[place.row, place.begin : place.end] = place.part
        position_3PT[:, place.row, place.begin : place.end] = next_P[place.row] + torch.arange(len(tail))
    chain_R = [chains[clip][g] for clip, g in members]
    before = [
        place.row * columns + c
        for place, chain in zip(places, chain_R, strict=True)
        for c in (width - 1, *range(place.begin, place.begin + len(chain) - 1))
    ]
    return Pack(
        input_ids_PT=ids_PT.to(device),
        position_3PT=position_3PT.to(device),
        part_PT=part_PT.to(device),
        vision=model.family.vision_of(prompts, clips),
        clip_of_P=tuple(clip_P),
        chains=tuple(members),
        target_N=torch.tensor([*joined(*chain_R)], device=device),
        before_N=torch.tensor(before, device=device),
        chain_of_N=torch.tensor([r for r, chain in enumerate(chain_R) for _ in chain], device=device),
        query_R=torch.tensor([place.row * columns + place.end - 1 for place in places], device=device),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """The columns of a chain and its query."""

    row: int
    part: int
    begin: int
    end: int


def _places(row_R: Sequence[int], length_R: Sequence[int], *, begin: int) -> list[_Place]:
    """One after another in each row, from the column `begin` on."""
    parts, ends, places = Counter[int](), dict.fromkeys(row_R, begin), []
    for row, length in zip(row_R, length_R, strict=True):
        parts[row] += 1
        places.append(_Place(row, parts[row], ends[row], ends[row] + length))
        ends[row] += length
    return places


def _columns(least: int) -> int:
    return -(-least // COLUMN_MULTIPLE) * COLUMN_MULTIPLE
