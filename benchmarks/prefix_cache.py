"""Chains on a prompt that is kept once, against the two ways to repeat it: K copies of its keys and values with room
for the chains, written to by transformers' `generate`, and its own prefill of K equal prompts.

A step is the time from one forward of the language model to the next, the median over all runs; the ways take turns.
"cache" is the memory of all keys and values, "peak" what a call adds to this process at its peak. Wanted for K = 8 on a
prompt of 2,012 tokens: a step 1.6 times as fast as the first of these ways, and a third of its cache.

    python -m benchmarks.prefix_cache [--repeats 3] [--samples 1 8] [--tokens 40] [--frames 160]"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from benchmarks.measure import MIB, added_peak, environment, option_parser, print_row
from benchmarks.models import noise_clip, small_model
from descore.model.chat import Inputs
from descore.model.generation import ChainWriter, suppressed_token_ids
from descore.model.modeling import DescoreModel

Way = Callable[[int], Cache]
"""Writes chains of this many tokens, and gives their cache."""


class PreallocatedLayer(DynamicLayer):
    """The prompt's columns for each sample, and room behind them: how chains were written before."""

    def __init__(self, layer: DynamicLayer, *, samples: int, room: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.columns = layer.keys.shape[2]
        self.buffers = [repeated_with_room(x, samples=samples, room=room) for x in (layer.keys, layer.values)]
        self.keys, self.values = (buffer[:, :, : self.columns] for buffer in self.buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write new columns behind the old, and give all of them."""
        start, self.columns = self.columns, self.columns + key_states.shape[2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self.columns] = states
        self.keys, self.values = (buffer[:, :, : self.columns] for buffer in self.buffers)
        return self.keys, self.values


def repeated_with_room(states_BHTD: Tensor, *, samples: int, room: int) -> Tensor:
    """Each row `samples` times, with `room` columns behind it."""
    rows, heads, columns, width = states_BHTD.shape
    buffer = states_BHTD.new_empty(rows * samples, heads, columns + room, width)
    buffer.view(rows, samples, heads, -1, width)[..., :columns, :] = states_BHTD[:, None]
    return buffer


@dataclass(frozen=True, slots=True)
class Ways:
    """Greedy chains that run to their limit: the end of turn is suppressed, so that all ways do the same work."""

    model: DescoreModel
    prompts: Inputs
    samples: int

    @torch.inference_mode()
    def shared(self, limit: int) -> Cache:
        """The prompt once, in our own loop."""
        uniform_RN = np.zeros((self.samples, limit))
        writer = ChainWriter(self.model, self.prompts, samples=self.samples, temperature=0.0, uniform_RN=uniform_RN)
        writer.suppressed = torch.cat([writer.suppressed, writer.suppressed.new_tensor([self.model.chat.end_id])])
        writer.logits_RV[:, self.model.chat.end_id] = -torch.inf
        writer.write()
        return writer.cache

    @torch.inference_mode()
    def repeated(self, limit: int) -> Cache:
        """The prompt's prefill, repeated with room."""
        model, prompts = self.model, self.prompts
        position_3BT = model.family.positions(model.backbone, prompts)
        per_token = {key: prompts[key][:, :-1] for key in ("input_ids", "mm_token_type_ids", "attention_mask")}
        prefill = DynamicCache(config=model.backbone.config.get_text_config())
        model.backbone.model(
            **{**prompts, **per_token}, position_ids=position_3BT[..., :-1], past_key_values=prefill, use_cache=True
        )
        layers = []
        for layer in prefill.layers:
            layers.append(PreallocatedLayer(layer, samples=self.samples, room=limit + 3))
            layer.reset()
        return self.generate(
            limit,
            input_ids=prompts["input_ids"].repeat_interleave(self.samples, dim=0),
            attention_mask=prompts["attention_mask"].repeat_interleave(self.samples, dim=0),
            position_ids=position_3BT.repeat_interleave(self.samples, dim=1),
            past_key_values=Cache(layers=layers),
        )

    @torch.inference_mode()
    def transformers(self, limit: int) -> Cache:
        """What `num_return_sequences` does, which repeats the inputs: greedy search takes one sequence only."""
        repeated = self.prompts
        if self.samples > 1:
            texts = {key: self.prompts[key].repeat(self.samples, 1) for key in ("input_ids", "attention_mask")}
            kinds = self.prompts["mm_token_type_ids"].repeat(self.samples, 1)
            vision = {
                "pixel_values_videos": self.prompts["pixel_values_videos"].repeat(self.samples, 1),
                "video_grid_thw": self.prompts["video_grid_thw"].repeat(self.samples, 1),
            }
            repeated = {**texts, "mm_token_type_ids": kinds, **vision}
        return self.generate(limit, **repeated)

    def generate(self, limit: int, **inputs: Any) -> Cache:  # noqa: ANN401
        """Transformers' loop."""
        chat = self.model.chat
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=limit,
            min_new_tokens=limit,
            eos_token_id=chat.end_id,
            pad_token_id=chat.pad_id,
            suppress_tokens=[*suppressed_token_ids(self.model), chat.end_id],
            return_dict_in_generate=True,
        )
        return self.model.backbone.generate(**inputs, generation_config=config).past_key_values


def cache_bytes(cache: Cache) -> int:
    """Bytes of all keys and values of its layers; views count by what they are views of."""
    storages = {}
    for layer in cache.layers:
        for value in vars(layer).values():
            if isinstance(value, Tensor) and value.is_floating_point():
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(storages.values())


def step_seconds(model: DescoreModel, work: Callable[[], object]) -> list[float]:
    """Seconds of each step: from a forward of the language model to the next, but for the first, which is the prefill,
    and the last, which may read rewards."""
    starts: list[float] = []
    hook = model.backbone.model.language_model.register_forward_pre_hook(lambda *_: starts.append(perf_counter()))
    try:
        work()
    finally:
        hook.remove()
    return [after - before for before, after in pairwise(starts[1:-1])]


def report(ways: Ways, *, tokens: int, repeats: int) -> None:
    """A row for each way, with its ratios to the shared one."""
    table: dict[str, Way] = {"shared": ways.shared, "repeated": ways.repeated, "transformers": ways.transformers}
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(repeats):
        for name, way in table.items():
            seconds[name] += step_seconds(ways.model, lambda way=way: way(tokens))  # type: ignore[misc]
    figures = {
        name: (median(seconds[name]), cache_bytes(way(tokens)) / MIB, added_peak(lambda way=way: way(tokens)))  # type: ignore[misc]
        for name, way in table.items()
    }
    for name, (step, cache, peak) in figures.items():
        ratios = [f"{one / other:.2f}" for one, other in zip((step, cache, peak), figures["shared"], strict=True)]
        print_row(
            (
                str(ways.samples),
                name,
                f"{step * 1e3:.1f} ms",
                ratios[0],
                f"{cache:.0f} MiB",
                ratios[1],
                f"{peak:.0f} MiB",
                ratios[2],
            ),
            width=13,
        )


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=3)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 8], help="K (default 1 8)")
    parser.add_argument("--frames", type=int, default=160, help="frames of the clip (default 160: 2,012 tokens)")
    parser.add_argument("--tokens", type=int, default=40, help="tokens of a chain (default 40)")
    options = parser.parse_args()
    print(environment())
    model = small_model()
    prompts = model.chat.lay_out_prompts([noise_clip(0, frames=options.frames)], ["a red ball"])
    print(f"prompt of {prompts['input_ids'].shape[1]:,} tokens, chains of {options.tokens}")
    print_row(("K", "way", "a step", "ratio", "cache", "ratio", "peak", "ratio"), width=13)
    for samples in options.samples:
        report(Ways(model, prompts, samples), tokens=options.tokens, repeats=options.repeats)


if __name__ == "__main__":
    main()
