"""How far a clip's reward in a batch is from its reward alone, in float32 and in bfloat16, and what helps.

The bundled model scores drawn clips of unlike lengths and the bundled real ones, each alone and in batches of 8.
Rewards are compared where both chains are the same; other chains count as forked. Ways:

    float32             everything in float32
    bfloat16            the backbone in bfloat16, query and head in float32: what a GPU gets unless told otherwise
    query in float32    the same chains, and the last step, which reads the reward, in float32 on their cache
    read in float32     the same chains, and a second pass in float32 over the whole sequences
    one at a time       bfloat16 with batch_size=1: in a batch a clip is alone

"from float32" is the median distance from the reward in float32 of the same clip, in batches, where the chains are the
same. Torch has a switch for batch-invariant kernels in its compiler only, so that is no way here.

python -m benchmarks.bfloat16 [--repeats 1] [--clips 16]"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from statistics import median, pstdev
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.measure import environment, interleaved, option_parser, print_row
from descore.cli.world import REAL
from descore.model import generation
from descore.model.chat import Inputs, Tokens
from descore.model.generation import ChainWriter, SharedPrefixCache
from descore.model.modeling import DescoreModel
from descore.synthetic.splits import Split, draw_plan, plan_example
from descore.types import Clip
from descore.video.reader import read_clip

BATCH = 8
FRAMES = (4, 6, 8, 12, 16, 24)
"""Frames of the drawn clips, in turn: a batch holds rows of unlike lengths."""
Read = tuple[Tokens, float]
"""A chain, and the reward behind it."""
Way = Callable[[Inputs, float], list[Read]]
"""Scores a batch of prompts at a temperature."""


@dataclass(frozen=True, slots=True)
class Models:
    """The bundled model in two precisions."""

    full: DescoreModel
    half: DescoreModel


def bundled() -> Models:
    """Both on the CPU."""
    full, half = (DescoreModel.from_pretrained("tiny", device="cpu", dtype=t) for t in (torch.float32, torch.bfloat16))
    return Models(full, half)


def clips_of(model: DescoreModel, count: int) -> list[tuple[Clip, str]]:
    """The bundled clips, and drawn ones of the split that nothing was trained on, with their prompts."""
    real = [
        (read_clip(str(files("descore") / "bundled" / "clips" / name), sampling=model.settings.sampling), prompt)
        for name, prompt in REAL.items()
    ]
    plans = [plan_example(Split.IN_DOMAIN, index) for index in range(count - len(real))]
    drawn = [(draw_plan(plan, frames=FRAMES[i % len(FRAMES)]).clip, plan.prompt) for i, plan in enumerate(plans)]
    return real + drawn


def one_pass(model: DescoreModel) -> Way:
    """Think and score as always."""

    def score(prompts: Inputs, temperature: float) -> list[Read]:
        rows = generation.think_and_score(
            model, prompts, limit=model.settings.max_chain_tokens, temperature=temperature
        )
        return [(one.token_ids, one.reward) for [one] in rows]

    return score


def read_again(models: Models) -> Way:
    """Chains in bfloat16; rewards by a second pass in float32."""
    think = one_pass(models.half)

    def score(prompts: Inputs, temperature: float) -> list[Read]:
        chains = [chain for chain, _ in think(prompts, temperature)]
        rewards = generation.score_chains(models.full, prompts, chains)[:, 0].tolist()
        return list(zip(chains, rewards, strict=True))

    return score


def query_in_float32(models: Models) -> Way:
    """Chains in bfloat16; the last step by the float32 weights, on the cache of the chains."""

    def read(writer: ChainWriter, *args: Any) -> Tensor:  # noqa: ANN401
        half, writer.cache = writer.cache, in_float32(writer.cache)
        writer.model = models.full
        try:
            with generation.attending_by(models.full.backbone, generation.SHARED_PREFIX):
                return read_by_half(writer, *args)
        finally:
            writer.model, writer.cache = models.half, half

    read_by_half, think = ChainWriter._read_rewards, one_pass(models.half)

    def score(prompts: Inputs, temperature: float) -> list[Read]:
        with patch.object(ChainWriter, "_read_rewards", read):
            return think(prompts, temperature)

    return score


def in_float32(cache: SharedPrefixCache) -> SharedPrefixCache:
    """A copy of the cache."""
    copy = deepcopy(cache)
    for layer in copy.layers:
        for name in ("prompt_keys", "prompt_values", "keys", "values"):
            setattr(layer, name, getattr(layer, name).float())
    return copy


def scored(way: Way, laid_out: Sequence[Inputs], *, temperature: float) -> list[Read]:
    """All batches, in order."""
    return [read for prompts in laid_out for read in way(prompts, temperature)]


def keep(results: dict[str, list[Read]], name: str, work: Callable[[], list[Read]]) -> Callable[[], None]:
    """The same work; its result is kept under the name."""

    def run() -> None:
        results[name] = work()

    return run


def laid_out_by(model: DescoreModel, clips: Sequence[tuple[Clip, str]], size: int) -> list[Inputs]:
    """The prompts in batches of this size."""
    parts = [clips[start : start + size] for start in range(0, len(clips), size)]
    return [model.chat.lay_out_prompts([c for c, _ in part], [prompt for _, prompt in part]) for part in parts]


def apart(some: Sequence[Read], others: Sequence[Read]) -> list[float]:
    """Distances of the rewards behind equal chains."""
    return [abs(a - b) for (one, a), (other, b) in zip(some, others, strict=True) if one == other]


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=1)
    parser.add_argument("--clips", type=int, default=16, help="drawn and real clips (default 16)")
    options = parser.parse_args()
    models = bundled()
    clips = clips_of(models.full, options.clips)
    alone, batches = (laid_out_by(models.full, clips, size) for size in (1, BATCH))
    half = one_pass(models.half)
    ways: dict[str, tuple[Way, list[Inputs]]] = {
        "float32": (one_pass(models.full), batches),
        "bfloat16": (half, batches),
        "query in float32": (query_in_float32(models), batches),
        "read in float32": (read_again(models), batches),
        "one at a time": (half, alone),
    }
    print(environment())
    for temperature in (0.0, 1.0):
        exact = scored(ways["float32"][0], batches, temperature=temperature)
        spread = pstdev(reward for _, reward in exact)
        print(f"\n{len(clips)} clips, temperature {temperature:g}; the rewards' standard deviation is {spread:.2f}")
        together: dict[str, list[Read]] = {}
        timed = {
            name: keep(together, name, partial(scored, way, parts, temperature=temperature))
            for name, (way, parts) in ways.items()
        }
        seconds = interleaved(timed, repeats=options.repeats)
        print_row(("", "largest", "median", "forked", "from float32", "seconds"), width=17)
        for name, (way, parts) in ways.items():
            single = together[name] if parts is alone else scored(way, alone, temperature=temperature)
            distances = apart(single, together[name])
            forked = 1 - len(distances) / len(clips)
            error = median(apart(together[name], exact))
            row = (name, f"{max(distances):.1g}", f"{median(distances):.1g}", f"{forked:.0%}", f"{error:.1g}")
            print_row((*row, f"{seconds[name]:.1f}"), width=17)


if __name__ == "__main__":
    main()
