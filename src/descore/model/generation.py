"""Think, then score, in one pass: chains are written in a batch, their KV cache is kept, and one more masked step
with the query reads each row's reward. Only where a checkpoint's layout puts the chain into the user's turn is the
whole sequence encoded again.

The prompt is encoded once however many chains are written behind it: its cache is repeated. Sampling draws each row's
uniform numbers from its own seed, so a clip's chain is the same alone, in a batch, and on the next run.

In: a DescoreModel and laid-out prompts. Out: completions with their rewards.

Shapes: B prompts, S samples for each, R = B * S rows, T tokens, N tokens written, V vocabulary, K named dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from descore.data.chat import Inputs, Layout, Tokens
from descore.errors import AnswerError
from descore.model.modeling import DescoreModel
from descore.rubric import read_answer
from descore.types import Completion


def preallocate(prefill: DynamicCache, *, samples: int, room: int) -> Cache:
    """The prefill's columns, each row `samples` times, and `room` columns to write to. The prefill is emptied as it is
    read, a layer at a time, so that there is never a second copy of the whole."""
    layers = []
    for layer in prefill.layers:
        assert type(layer) is DynamicLayer, "a layer that forgets columns needs a room of its own"
        layers.append(_PreallocatedLayer(layer.keys, layer.values, samples=samples, room=room))
        layer.reset()
    return Cache(layers=layers)


class _PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """`keys` and `values` are views of the columns written so far, of buffers that are longer."""

    def __init__(self, keys_BHTD: Tensor, values_BHTD: Tensor, *, samples: int, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys_BHTD, values_BHTD)
        self._key_room, self._value_room = (_preallocated(x, samples, room) for x in (keys_BHTD, values_BHTD))
        self._show(keys_BHTD.shape[2])

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: object,  # noqa: ARG002  # transformers' signature
        **kwargs: object,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Write new columns behind the old, and give all of them."""
        start = self.keys.shape[2]
        self._show(start + key_states.shape[2])
        self.keys[:, :, start:] = key_states
        self.values[:, :, start:] = value_states
        return self.keys, self.values

    def _show(self, columns: int) -> None:
        assert columns <= self._key_room.shape[2], "more columns than the cache has room for"
        self.keys, self.values = self._key_room[:, :, :columns], self._value_room[:, :, :columns]


def _preallocated(states_BHTD: Tensor, samples: int, room: int) -> Tensor:
    rows, heads, columns, width = states_BHTD.shape
    buffer = states_BHTD.new_empty(rows * samples, heads, columns + room, width)
    buffer.view(rows, samples, heads, -1, width)[..., :columns, :] = states_BHTD[:, None]
    return buffer


@torch.inference_mode()
def think_and_score(
    model: DescoreModel,
    prompts: Inputs,
    *,
    limit: int,
    samples: int = 1,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> list[list[Completion]]:
    """Write `samples` chains for each of the B prompts, and read each one's rewards: B lists of S completions.

    limit: tokens that a chain may have before its end of turn is forced. temperature 0 is greedy; above 0, chain s of
    prompt b is drawn with the seed (seeds[b], s), 0 where no seeds are given."""
    rows = Prefill.encode(model, prompts, samples=samples, limit=limit)
    seeds = seeds or [0] * len(prompts["input_ids"])
    uniform_RN = np.stack(
        [np.random.default_rng([seed, s]).random(limit + 1) for seed in seeds for s in range(samples)]
    )
    chains, cache = _write_chains(model, rows, limit=limit, temperature=temperature, uniform_RN=uniform_RN)
    if model.chat.layout is Layout.USER_TURN:
        by_sample = [score_chains(model, prompts, chains[s::samples]) for s in range(samples)]
        rewards_RK = torch.stack(by_sample, dim=1).flatten(0, 1)
    else:
        rewards_RK = _read_rewards(model, rows, chains, cache).cpu()
    completions = [
        _completion(model, chain, truncated=len(chain) > limit, rewards=rewards)
        for chain, rewards in zip(chains, rewards_RK.tolist(), strict=True)
    ]
    return [completions[start : start + samples] for start in range(0, len(completions), samples)]


def _completion(model: DescoreModel, chain: Tokens, *, truncated: bool, rewards: Sequence[float]) -> Completion:
    """A written chain, parsed. `rewards`: the head's, one for each dimension; a generative model has no head."""
    text = model.chat.decode_chain(chain)
    verdict, flaw = None, None
    try:
        verdict = read_answer(text)
    except AnswerError as fault:
        flaw = str(fault)
    dimensions = model.settings.dimensions
    if model.settings.paradigm == "generative":
        named = dict.fromkeys(dimensions, verdict.overall) if verdict else {}
    else:
        named = dict(zip(dimensions, rewards, strict=True))
    return Completion(token_ids=chain, text=text, truncated=truncated, verdict=verdict, flaw=flaw, rewards=named)


def score_without_thinking(model: DescoreModel, prompts: Inputs) -> list[Completion]:
    """Read the reward of each of the B prompts at once: B completions with an empty chain."""
    empty = model.chat.no_thinking
    rewards_BK = score_chains(model, prompts, [empty] * len(prompts["input_ids"]))
    dimensions = model.settings.dimensions
    return [
        Completion(
            token_ids=empty,
            text="",
            truncated=False,
            verdict=None,
            flaw=None,
            rewards=dict(zip(dimensions, rewards, strict=True)),
        )
        for rewards in rewards_BK.tolist()
    ]


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


@dataclass(frozen=True, slots=True)
class Prefill:
    """The prompts, encoded and repeated once for each sample."""

    input_ids_RT: Tensor
    mask_RT: Tensor
    position_3RT: Tensor
    cache: Cache

    @classmethod
    def encode(cls, model: DescoreModel, prompts: Inputs, *, samples: int, limit: int) -> "Prefill":
        """Encode all but the prompts' last token, which generation reads first, and repeat the cache, with room for
        that token, a chain and its forced end, and the query."""
        position_3BT = model.family.positions(model.backbone, prompts)
        per_token = {key: prompts[key][:, :-1] for key in ("input_ids", "mm_token_type_ids", "attention_mask")}
        prefill = DynamicCache(config=model.backbone.config.get_text_config())
        model.backbone.model(
            **{**prompts, **per_token}, position_ids=position_3BT[..., :-1], past_key_values=prefill, use_cache=True
        )
        return cls(
            prompts["input_ids"].repeat_interleave(samples, dim=0),
            prompts["attention_mask"].repeat_interleave(samples, dim=0),
            position_3BT.repeat_interleave(samples, dim=1),
            preallocate(prefill, samples=samples, room=limit + 3),
        )


def _write_chains(
    model: DescoreModel, rows: Prefill, *, limit: int, temperature: float, uniform_RN: np.ndarray
) -> tuple[list[Tokens], Cache]:
    """The chains' ids, each ending with the end of turn, and the cache of all that was read to write them."""
    chat = model.chat
    draw = SeededSampling(uniform_RN, temperature=temperature, start=rows.input_ids_RT.shape[1])
    out = model.backbone.generate(
        input_ids=rows.input_ids_RT,
        attention_mask=rows.mask_RT,
        position_ids=rows.position_3RT,
        past_key_values=rows.cache,
        logits_processor=LogitsProcessorList([draw] if temperature > 0 else []),
        generation_config=GenerationConfig(
            do_sample=False,  # with a temperature, SeededSampling leaves one token to choose
            max_new_tokens=limit + 1,
            forced_eos_token_id=chat.end_id,
            eos_token_id=chat.end_id,
            pad_token_id=chat.pad_id,
            suppress_tokens=suppressed_token_ids(model),
            repetition_penalty=1.0,
            return_dict_in_generate=True,
        ),
    )
    written_RN = out.sequences[:, rows.input_ids_RT.shape[1] :].tolist()
    return [row[: row.index(chat.end_id) + 1] for row in written_RN], out.past_key_values


def _read_rewards(model: DescoreModel, rows: Prefill, chains: list[Tokens], cache: Cache) -> Tensor:
    """One masked step of n = 2 columns: the longest chains' last token, which is not in the cache yet, and the query.
    Where the query does not see the end of turn, it is the only column.

    Shorter chains hide what generation padded behind them, and the query stands right behind what it sees of each."""
    device, chat = rows.mask_RT.device, model.chat
    seen_R = torch.tensor([len(chat.before_query(chain)) for chain in chains], device=device)
    longest = int(seen_R.max())
    written_RN = torch.arange(longest, device=device) < seen_R[:, None]
    mask_RT = torch.cat([rows.mask_RT, written_RN.long(), torch.ones_like(seen_R)[:, None]], dim=1)
    next_R = rows.position_3RT.amax(dim=(0, 2)) + 1
    columns = 2 if chat.layout is Layout.QUERY_LAST else 1
    position_Rn = torch.stack([next_R + longest - 1, next_R + seen_R], dim=1)[:, -columns:]
    step_Rn = torch.tensor([[chat.end_id, chat.query_id]], device=device)[:, -columns:].expand(len(chains), columns)
    hidden_RnD = model.backbone.model(
        input_ids=step_Rn,
        attention_mask=mask_RT,
        position_ids=position_Rn.expand(3, -1, -1),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return model.rewards(hidden_RnD)


class SeededSampling(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Leave the one token that a row's next uniform number picks from its distribution (inverse transform sampling).

    Works on the logits that are left when forbidden tokens are taken out."""

    def __init__(self, uniform_RN: np.ndarray, *, temperature: float, start: int) -> None:
        self.uniform_RN = torch.from_numpy(uniform_RN)
        self.temperature = temperature
        self.start = start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Minus infinity (R, V) everywhere but at the token drawn."""
        step = input_ids.shape[1] - self.start
        scores_RV = scores.double()
        # Below the largest score none overflows, whatever the temperature: towards 0 it becomes the likeliest token.
        below_RV = scores_RV - scores_RV.amax(dim=-1, keepdim=True)
        cumulative_RV = (below_RV / self.temperature).softmax(dim=-1).cumsum(dim=-1)
        # Scaled by the last column, which rounding leaves a little off 1.
        target_R1 = self.uniform_RN[:, step : step + 1].to(scores.device) * cumulative_RV[:, -1:]
        drawn_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn_R1, 0.0)
