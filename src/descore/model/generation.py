"""Think, then score, in one pass: chains are written together on the prompts' keys and values, and one more step with
the query reads each row's reward. Only where a checkpoint's layout puts the chain into the user's turn is the whole
sequence encoded again.

A prompt's keys and values are kept once, however many chains are written behind it; states of linear attention are
copied for each. Sampling draws each row's uniform numbers from its own seed, so a clip's chain is the same alone, in a
batch, and on the next run.

In: a DescoreModel and laid-out prompts. Out: completions with their rewards.

Shapes: B prompts, S samples of each that are still written, R = B * S rows, P columns of a prompt, C of a row's own
room, N tokens written, n columns of a step, V vocabulary, K named dimensions; H heads of queries, G of keys, D width.
M, the columns that a prompt's rows read for one of the G: rows, repeated heads and n."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from descore.model import attending_by
from descore.model.chat import Inputs, Layout, Tokens
from descore.model.modeling import DescoreModel, has_adapters
from descore.types import Completion

if TYPE_CHECKING:
    from descore.model.decoding import StepGraphs

SHARED_PREFIX = "descore_shared_prefix"
"""The name of `attend_shared_prefix` among transformers' attention functions, while chains are written."""
ROOM = 64
"""Own columns come in multiples of this: products of odd lengths are slow on a GPU."""
OnToken: TypeAlias = Callable[[int, int], bool]
"""Called with the number of a prompt's chain and its next token; where it returns False the chain ends there."""
_BLOCK = 256
"""Tokens of the vocabulary that sampling adds up first."""


class SharedPrefixCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """Each prompt's keys and values once, and the own ones of the S rows behind it, to the length of the longest.

    What keeps no keys is a layer of linear attention: `states`, the family's, makes of it one with a state a row."""

    def __init__(self, prefill: DynamicCache, mask_BP: Tensor, *, samples: int, states: Any = None) -> None:  # noqa: ANN401
        kinds = [_SharedPrefixLayer if isinstance(layer, DynamicLayer) else states for layer in prefill.layers]
        super().__init__(layers=[new(layer, samples) for new, layer in zip(kinds, prefill.layers, strict=True)])
        hidden_B11P = mask_BP[:, None, None] == 0
        self.prompt_bias_B11P: Tensor | None = None
        if hidden_B11P.any():
            self.prompt_bias_B11P = added_to_scores(~hidden_B11P)
        self.column_n = torch.zeros(1, dtype=torch.long, device=mask_BP.device)
        self.room = ROOM
        """Own columns that there is room for."""

    def write_at(self, column: int, *, count: int = 1, moves_R: Tensor | None = None) -> None:
        """Let the next forward write its `count` columns at this own column of each row. moves_R: the rows whose states
        it moves; None: all."""
        while self.room < column + count:
            self.room += ROOM
            for layer in self.layers:
                layer.widen(self.room)
        for layer in self.layers:
            layer.moves_R = moves_R
        self.column_n = torch.arange(column, column + count, device=self.column_n.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Write a step's columns, and give all own columns (R, G, C, D), also those that nothing is written to."""
        layer = self.layers[layer_idx]
        layer.keys.index_copy_(2, self.column_n.to(layer.keys.device), key_states.to(layer.keys.dtype))
        layer.values.index_copy_(2, self.column_n.to(layer.values.device), value_states.to(layer.values.dtype))
        return layer.keys, layer.values

    def keep(self, prompts: Tensor, rows: Tensor) -> None:
        """Keep these prompts, and these rows of theirs, and forget the others."""
        if self.prompt_bias_B11P is not None:
            self.prompt_bias_B11P = self.prompt_bias_B11P[prompts]
        for layer in self.layers:
            layer.keep(prompts, rows)


def added_to_scores(visible: Tensor) -> Tensor:
    """What is added to scores: 0, and minus infinity where nothing is visible."""
    return torch.zeros_like(visible, dtype=torch.float32).masked_fill(~visible, -torch.inf)


class _SharedPrefixLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """`keys` and `values` are the rows' own columns (R, G, C, D)."""

    def __init__(self, prefill: DynamicLayer, samples: int) -> None:
        super().__init__()
        self.lazy_initialization(prefill.keys, prefill.values)
        self.prompt_keys, self.prompt_values = prefill.keys, prefill.values
        # Zeros, since what is not written yet is multiplied by a probability of 0.
        self.keys, self.values = (
            x.new_zeros(len(x) * samples, x.shape[1], ROOM, x.shape[3]) for x in (prefill.keys, prefill.values)
        )

    def widen(self, room: int) -> None:
        self.keys, self.values = (nn.functional.pad(x, (0, 0, 0, room - x.shape[2])) for x in (self.keys, self.values))

    def keep(self, prompts: Tensor, rows: Tensor) -> None:
        if len(prompts) < len(self.prompt_keys):
            self.prompt_keys, self.prompt_values = self.prompt_keys[prompts], self.prompt_values[prompts]
        self.keys, self.values = self.keys[rows], self.values[rows]


def attend_shared_prefix(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    shared_prefix: SharedPrefixCache | None = None,
    **kwargs: Any,  # noqa: ANN401  # transformers' signature
) -> tuple[Tensor, None]:
    """Attention of a step's n columns over their prompts' keys and their rows' own, in one softmax: (R, n, H, D).

    All columns of a prompt's rows are one product with its keys, which are repeated neither for rows nor for heads.
    query (R, H, n, D), key and value (R, G, C, D); attention_mask is added to the own columns' scores."""
    if shared_prefix is None:  # a forward beside the writing, such as another thread's
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)  # type: ignore[no-any-return]
    with torch.autocast(query.device.type, enabled=False):
        return _joined_attention(query * scaling, key, value, attention_mask, shared_prefix, module.layer_idx), None  # type: ignore[arg-type]


def _joined_attention(
    query_RHnD: Tensor, key_RGCD: Tensor, value_RGCD: Tensor, bias: Tensor | None, cache: SharedPrefixCache, layer: int
) -> Tensor:
    prompt_keys, prompt_values = cache.layers[layer].prompt_keys, cache.layers[layer].prompt_values
    prompts, groups, length, width = prompt_keys.shape
    rows, heads, columns, _ = query_RHnD.shape
    samples, repeats = rows // prompts, heads // groups
    query = query_RHnD.to(key_RGCD.dtype).reshape(prompts, samples, groups, repeats * columns, width)
    prompt_BGMP = _product(query.transpose(1, 2).reshape(prompts, groups, -1, width), prompt_keys.mT)
    if cache.prompt_bias_B11P is not None:
        prompt_BGMP += cache.prompt_bias_B11P.to(prompt_BGMP.device)
    own = _product(query.flatten(0, 1), key_RGCD.mT)
    if bias is not None:
        own = (own.view(rows, groups, repeats, columns, -1) + bias[:, :, None]).flatten(2, 3)
    own_BGMC = own.view(prompts, samples, groups, repeats * columns, -1).transpose(1, 2).flatten(2, 3)
    weight_BGML = torch.cat([prompt_BGMP, own_BGMC], dim=-1).softmax(dim=-1).to(value_RGCD.dtype)
    out_BGMD = _product(weight_BGML[..., :length], prompt_values)
    by_row = (prompts, groups, samples, repeats * columns, -1)
    own_weight = weight_BGML[..., length:].reshape(by_row).transpose(1, 2).flatten(0, 1)
    out = _product(own_weight, value_RGCD) + out_BGMD.view(by_row).transpose(1, 2).flatten(0, 1)
    return out.reshape(rows, heads, columns, -1).transpose(1, 2).to(value_RGCD.dtype).contiguous()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Left @ right (two leading dimensions) in float32, also of factors in half precision: as fused kernels have it."""
    if left.dtype == torch.float32 or left.device.type != "cuda":
        return left.float() @ right.float()
    product: Tensor = torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out_dtype=torch.float32)
    return product.view(*left.shape[:2], *product.shape[1:])


AttentionInterface.register(SHARED_PREFIX, attend_shared_prefix)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)


@torch.inference_mode()
def think_and_score(
    model: DescoreModel,
    prompts: Inputs,
    *,
    limit: int,
    samples: int = 1,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    on_tokens: Sequence[OnToken | None] | None = None,
) -> list[list[Completion]]:
    """Write `samples` chains for each of the B prompts, and read each one's rewards: B lists of S completions.

    limit: tokens that a chain may have before its end of turn is forced. temperature 0 is greedy; above 0, chain s of
    prompt b is drawn with the seed (seeds[b], s), 0 where no seeds are given. on_tokens: those who watch the chains of
    each prompt being written."""
    seeds = seeds or [0] * len(prompts["input_ids"])
    uniform_RN = np.stack(
        [np.random.default_rng([seed, s]).random(limit + 1) for seed in seeds for s in range(samples)]
    )
    with _decoding_of(model) as graphs:
        writer = ChainWriter(
            model, prompts, samples=samples, temperature=temperature, uniform_RN=uniform_RN, graphs=graphs
        )
        if on_tokens is not None:
            writer.watchers = [(watch, s) for watch in on_tokens for s in range(samples)]
        chains, rewards_RK = writer.write()
    if model.chat.layout is Layout.USER_TURN:
        by_sample = [score_chains(model, prompts, chains[s::samples]) for s in range(samples)]
        rewards_RK = torch.stack(by_sample, dim=1).flatten(0, 1)
    dimensions = model.settings.dimensions if model.settings.outputs else ()
    completions = [
        model.chat.to_completion(
            chain, limit=limit, rewards=dict(zip(dimensions, rewards, strict=True)) if dimensions else None
        )
        for chain, rewards in zip(chains, rewards_RK.tolist(), strict=True)
    ]
    return [completions[start : start + samples] for start in range(0, len(completions), samples)]


def _decoding_of(model: DescoreModel) -> "AbstractContextManager[StepGraphs | None]":
    """What makes steps fast, loaded where there is any."""
    if model.device.type == "cpu" and not has_adapters(model.backbone):
        return nullcontext()
    from descore.model.decoding import fast_decoding

    return fast_decoding(model)


def score_without_thinking(model: DescoreModel, prompts: Inputs) -> list[Completion]:
    """Read the reward of each of the B prompts at once: B completions with an empty chain."""
    empty = model.chat.no_thinking
    rewards_BK = score_chains(model, prompts, [empty] * len(prompts["input_ids"]))
    dimensions = model.settings.dimensions
    return [model.chat.empty_completion(dict(zip(dimensions, rewards, strict=True))) for rewards in rewards_BK.tolist()]


@torch.inference_mode()
def score_chains(model: DescoreModel, prompts: Inputs, chains: Sequence[Tokens]) -> Tensor:
    """Rewards (B, K) of given chains, one for each prompt, by encoding the whole sequences."""
    rewards_BK: Tensor = model(model.chat.lay_out_chains(prompts, chains))
    return rewards_BK.cpu()


def suppressed_token_ids(model: DescoreModel) -> Tokens:
    """What no chain holds: special ids but the end of turn, and rows of the embedding beyond the tokenizer, which stand
    for nothing."""
    vocabulary = model.backbone.get_input_embeddings().weight.shape[0]
    return [*model.chat.forbidden_ids, *range(len(model.chat.tokenizer), vocabulary)]


class ChainWriter:
    """The rows that are still written: S of each of B prompts, in order. Rows that are done leave when at most half of
    all rows would be left, so that no more than a few steps are made for rewards; until then they are passed over."""

    def __init__(
        self,
        model: DescoreModel,
        prompts: Inputs,
        *,
        samples: int,
        temperature: float,
        uniform_RN: np.ndarray,
        graphs: "StepGraphs | None" = None,
    ) -> None:
        """`graphs`: those that steps are read by; None: the plain loop."""
        self.model, self.temperature, self.graphs = model, temperature, graphs
        self.limit, device = uniform_RN.shape[1] - 1, model.device
        self.suppressed = torch.tensor(suppressed_token_ids(model), device=device)
        position_3BP = model.family.positions(model.backbone, prompts)
        prefill = DynamicCache(config=model.backbone.config.get_text_config())
        options = {"position_ids": position_3BP, "past_key_values": prefill, "use_cache": True}
        encoded = model.family.encode_vision(model.backbone, prompts)
        hidden_BPD = model.family.last_hidden(model.backbone, encoded, **options)
        new_cache = SharedPrefixCache if graphs is None else graphs.cache
        self.cache = new_cache(prefill, prompts["attention_mask"], samples=samples, states=model.family.ROW_STATES)
        self.samples = samples
        self.logits_RV = self._suppress(self._logits(hidden_BPD[:, -1:])).repeat_interleave(samples, dim=0)
        self.position_R = (position_3BP.amax(dim=(0, 2)) + 1).repeat_interleave(samples)
        """The position of each row's first own token."""
        self.uniform_RN = torch.from_numpy(uniform_RN).to(device)
        self.written_RN = torch.full(uniform_RN.shape, model.chat.end_id, device=device)
        self.length_R = torch.zeros(len(uniform_RN), dtype=torch.long, device=device)
        """Tokens of each chain with its end of turn; 0 until it is there."""
        self.number_R = torch.arange(len(uniform_RN), device=device)
        """Which of all rows this one is."""
        self.watchers: list[tuple[OnToken | None, int]] = []
        """Of each row, with its number among its prompt's."""
        self.chains: list[Tokens] = [[] for _ in uniform_RN]
        self.rewards_RK = torch.zeros(len(uniform_RN), model.settings.outputs)

    def write(self) -> tuple[list[Tokens], Tensor]:
        """All rows' chains, each ending with the end of turn, and their rewards (R, K) on the CPU: zeros in the layout
        whose rewards the cache cannot give."""
        with attending_by(self.model.backbone, SHARED_PREFIX):
            for column in range(self.limit + 1):
                self._add_token(column)
                open_R = self.length_R == 0
                if not open_R.any():
                    break
                if (kept := self._fewer_rows(open_R)) is not None:
                    self._collect(column)
                    self._keep(*kept)
                self._step(column)
            self._collect(column)
        return self.chains, self.rewards_RK

    def _add_token(self, column: int) -> None:
        """Choose each row's next token. The end of turn is forced behind the limit, and goes on behind an end."""
        if column < self.limit:
            uniform_R1 = self.uniform_RN[:, column : column + 1]
            token_R = sample_token_ids(self.logits_RV, uniform_R1, temperature=self.temperature)
            self.written_RN[:, column] = token_R.masked_fill(self.length_R > 0, self.model.chat.end_id)
        if self.watchers:
            self._show(column)
        ended_R = (self.length_R == 0) & (self.written_RN[:, column] == self.model.chat.end_id)
        self.length_R.masked_fill_(ended_R, column + 1)

    def _show(self, column: int) -> None:
        """Give each open row's token to who watches it, and end the rows that nobody waits for any more."""
        rows = zip(self.number_R.tolist(), self.length_R.tolist(), self.written_RN[:, column].tolist(), strict=True)
        for row, (number, length, token) in enumerate(rows):
            watch, sample = self.watchers[number]
            if watch is not None and not length and not watch(sample, token):
                self.written_RN[row, column] = self.model.chat.end_id

    def _step(self, column: int) -> None:
        """Read the tokens at this column, for the logits of the next."""
        self.cache.write_at(column, moves_R=self.length_R == 0)
        step = (self.written_RN[:, column : column + 1], (self.position_R + column)[:, None], self.cache.column_n)
        read = self.read if self.graphs is None else self.graphs.reader(self)
        self.logits_RV = self._suppress(read(*step))

    def read(self, token_R1: Tensor, position_R1: Tensor, column_1: Tensor) -> Tensor:
        """The logits (R, V) behind the tokens at an own column. All that changes from step to step is in tensors."""
        self.cache.column_n = column_1
        visible_C = torch.arange(self.cache.room, device=self.model.device) <= column_1
        return self._logits(self._forward(token_R1, position_R1, visible_C[None, None]))

    def _forward(self, token_Rn: Tensor, position_Rn: Tensor, visible_RnC: Tensor) -> Tensor:
        hidden_RnD: Tensor = self.model.family.last_hidden(
            self.model.backbone,
            {"input_ids": token_Rn, "attention_mask": added_to_scores(visible_RnC)[:, None]},
            position_ids=position_Rn.expand(3, -1, -1),
            past_key_values=self.cache,
            shared_prefix=self.cache,
            use_cache=True,
        )
        return hidden_RnD

    def _logits(self, hidden_RnD: Tensor) -> Tensor:
        logits_RV: Tensor = self.model.backbone.get_output_embeddings()(hidden_RnD[:, -1])
        return logits_RV.to(self.model.device, torch.float32)

    def _suppress(self, logits_RV: Tensor) -> Tensor:
        return logits_RV.index_fill_(1, self.suppressed, -torch.inf)

    def _fewer_rows(self, open_R: Tensor) -> tuple[Tensor, Tensor] | None:
        """Prompts and rows to keep for the open rows, if they are at most half. Each prompt keeps as many rows, so that
        one with few open ones keeps some that are done."""
        open_BS = open_R.view(-1, self.samples)
        prompts = open_BS.any(dim=1).nonzero()[:, 0]
        samples = int(open_BS.sum(dim=1).max())
        if 2 * len(prompts) * samples > len(open_R):
            return None
        sample_BS = open_BS[prompts].int().argsort(dim=1, descending=True, stable=True)[:, :samples]
        return prompts, (prompts[:, None] * self.samples + sample_BS).flatten()

    def _keep(self, prompts: Tensor, rows: Tensor) -> None:
        self.cache.keep(prompts, rows)
        self.samples = len(rows) // len(prompts)
        for name in ("logits_RV", "position_R", "uniform_RN", "written_RN", "length_R", "number_R"):
            setattr(self, name, getattr(self, name)[rows])

    def _collect(self, column: int) -> None:
        """Keep chains and rewards of the rows that are done. Tokens before this column are in the cache."""
        read = self.model.chat.layout is not Layout.USER_TURN and self.model.settings.outputs > 0
        seen_R = torch.where(self.length_R > 0, self.length_R - 1, column)
        rewards_RK = self._read_rewards(seen_R, column).cpu() if read else None
        for row, (number, length) in enumerate(zip(self.number_R.tolist(), self.length_R.tolist(), strict=True)):
            if length and not self.chains[number]:
                self.chains[number] = self.written_RN[row, :length].tolist()
                if rewards_RK is not None:
                    self.rewards_RK[number] = rewards_RK[row]

    def _read_rewards(self, seen_R: Tensor, column: int) -> Tensor:
        """Rewards (R, K) by one step of n = 2 columns, the end of turn and the query, behind the `seen_R` tokens of
        each chain. Where the query does not see the end of turn, it is the only column.

        The columns are written behind those of the longest chain, and written over afterwards."""
        chat, device = self.model.chat, self.model.device
        token_n = [chat.end_id, chat.query_id] if chat.layout is Layout.QUERY_LAST else [chat.query_id]
        step_n = torch.arange(len(token_n), device=device)
        self.cache.write_at(column, count=len(token_n), moves_R=torch.zeros_like(seen_R, dtype=torch.bool))
        column_C = torch.arange(self.cache.room, device=device)
        own_RnC = column_C < seen_R[:, None, None]
        step_nC = (column_C >= column) & (column_C <= column + step_n[:, None])
        hidden_RnD = self._forward(
            torch.tensor([token_n], device=device).expand(len(seen_R), -1),
            (self.position_R + seen_R)[:, None] + step_n,
            own_RnC | step_nC,
        )
        return self.model.rewards(hidden_RnD)


def sample_token_ids(logits_RV: Tensor, uniform_R1: Tensor, *, temperature: float) -> Tensor:
    """The token (R,) that each row's uniform number picks from its distribution (inverse transform sampling); at
    temperature 0 the likeliest. A token whose logit is minus infinity is never picked.

    The vocabulary is in float32; only sums are in float64: those of its blocks, and those inside the block drawn."""
    if temperature == 0:
        return logits_RV.argmax(dim=-1)
    # Below the largest score none overflows, whatever the temperature: towards 0 it becomes the likeliest token.
    below_RV = logits_RV - logits_RV.amax(dim=-1, keepdim=True)
    weight_RV = (below_RV / max(temperature, torch.finfo(torch.float32).tiny)).softmax(dim=-1)
    weight_RbW = nn.functional.pad(weight_RV, (0, -weight_RV.shape[1] % _BLOCK)).view(len(weight_RV), -1, _BLOCK)
    end_Rb = weight_RbW.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    target_R1 = _below(uniform_R1 * end_Rb[:, -1:], end_Rb[:, -1:])
    block_R1 = torch.searchsorted(end_Rb, target_R1, right=True)
    inside_RW = weight_RbW[torch.arange(len(block_R1), device=block_R1.device), block_R1[:, 0]].double().cumsum(dim=-1)
    start_R1 = end_Rb.gather(1, block_R1) - inside_RW[:, -1:]
    rest_R1 = _below((target_R1 - start_R1).clamp(min=0), inside_RW[:, -1:])
    return (block_R1 * _BLOCK + torch.searchsorted(inside_RW, rest_R1, right=True))[:, 0]


def _below(target_R1: Tensor, end_R1: Tensor) -> Tensor:
    """The target, or the largest number under the end, so that rounding never picks what is behind all weights."""
    return torch.minimum(target_R1, torch.nextafter(end_R1, torch.zeros_like(end_R1)))
