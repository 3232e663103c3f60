"""An update of stage 2 and its rollout: all chains of a clip behind one prompt, against each chain behind its own.

An update reads, of the G chains of a clip, every token's log-probability and the reward behind it, with gradients.
`packed` does so by one forward over [prompt, chain 1, query, ..., chain G, query]. `naive` has a row for each chain,
and a forward for the log-probabilities and another for the rewards, each followed by its own backward. Both take logits
of the chains' tokens alone. Adapters on the language model, query and head learn; values and gradients must agree.

`peak` is the most that forward and backward add to weights and gradients, in MiB: to the process, or on a GPU to what
torch has allocated there. `single` is the peak of one row, which naive needs if rows take turns. `tok/s` are chain
tokens a second, of packed and of shared.

A rollout is G chains and their rewards: `shared` has one prefill for all, `own` a prefill for each chain.

A rollout whose vision tower is frozen keeps its features for the update: `kept` is the packed update with them, `again`
the one that encodes the pixels once more; `MiB` is what the features take, and `pixels` what they stand in for.

`--model 8B` is the true size: Qwen3-VL-8B by its config with random weights in bfloat16, a clip of about 4,000 tokens,
chains of 600, G = 8, gradient checkpointing. It needs a GPU of 80 GB.

    python -m benchmarks.rl_update [--model 8B] [--repeats 3] [--smallest]"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import MIB, added_peak, environment, interleaved, option_parser, print_row
from benchmarks.models import SIZES, Size, noise_clip, small_learner, true_size_filled
from descore.model.chat import Inputs, Tokens
from descore.model.generation import suppressed_token_ids, think_and_score
from descore.model.modeling import DescoreModel
from descore.training.models import trainable_weights
from descore.training.rl.packing import forward_pack, pack_groups
from descore.training.rl.rollout import encode_frozen_vision


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is measured."""

    name: str
    model: Callable[[], DescoreModel]
    frames: tuple[int, ...]
    """Lengths of the clips."""
    edge: int
    """Pixels along each side of a frame."""
    chain: int
    """Tokens of a chain, with its end of turn."""
    groups: tuple[int, ...]
    tolerance: float | None
    """Largest allowed difference of the two ways, relative to a gradient's largest entry. None: not checked."""
    bfloat16: bool = False

    @property
    def smallest(self) -> "Setup":
        """The shortest prompt and the smallest group."""
        return replace(self, frames=self.frames[:1], groups=self.groups[:1])


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=3)
    parser.add_argument("--model", choices=SETUPS, default="small")
    parser.add_argument("--smallest", action="store_true", help="only the shortest prompt and the smallest group")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    if options.model == "8B" and not gpu:
        raise SystemExit("--model 8B: found no GPU that torch can use; expected one of 80 GB; leave --model out here")
    setup, device = SETUPS[options.model], "cuda" if options.model == "8B" else "cpu"
    print(environment() + (f", {torch.cuda.get_device_name()}" if device == "cuda" else ""))
    measure(setup.smallest if options.smallest else setup, repeats=options.repeats, device=device)


def measure(setup: Setup, *, repeats: int, device: str) -> None:
    """Print a line for each prompt and group."""
    print(f"one clip, chains of {setup.chain} tokens, {setup.name}")
    names = ("prompt", "G", "packed", "naive", "ratio", "tok/s", "peak", "naive", "ratio", "single", "apart")
    names += ("shared", "own", "ratio", "tok/s", "kept", "again", "ratio", "MiB", "pixels", "apart")
    print_row(names, width=7)
    model = setup.model().to(device)
    autocast = partial(torch.autocast, device, dtype=torch.bfloat16, enabled=setup.bfloat16)
    for frames in setup.frames:
        laid_out = model.chat.lay_out_prompts([noise_clip(0, frames=frames, edge=setup.edge)], ["a red ball"])
        prompts = {name: value.to(device) for name, value in laid_out.items()}
        for size in setup.groups:
            group = Group(model, prompts, random_chains(model, size, tokens=setup.chain), autocast)
            row = (f"{prompts['input_ids'].shape[1]:,}", f"{size}")
            cells = (*row, *updates(group, repeats, tolerance=setup.tolerance), *rollouts(group, repeats))
            print_row((*cells, *encodings(group, repeats, tolerance=setup.tolerance)), width=7)


@dataclass(frozen=True, slots=True)
class Group:
    """A clip's prompt and its chains, and the two ways to compute an update."""

    model: DescoreModel
    prompts: Inputs
    chains: list[Tokens]
    autocast: Callable[[], AbstractContextManager[Any]]
    """The precision of a forward."""

    @property
    def tokens(self) -> int:
        """Tokens of all chains."""
        return sum(map(len, self.chains))

    def packed(self) -> list[Tensor]:
        """Log-probabilities and rewards by one forward; their gradients are left in the model."""
        [pack] = pack_groups(self.model, self.prompts, [self.chains])
        with self.autocast():
            read = forward_pack(self.model, pack)
        (objective(read.log_prob_N) + objective(read.reward_RK)).backward()
        return [read.log_prob_N.detach(), read.reward_RK.detach()]

    def naive(self) -> list[Tensor]:
        """The same by two forwards over a row for each chain."""
        prompts = self.repeated()
        inputs = self.model.chat.lay_out_chains(prompts, self.chains, query=False)
        with self.autocast():
            log_prob_N = self.log_probs(inputs)
        objective(log_prob_N).backward()
        with self.autocast():
            reward_RK = self.model(self.model.chat.lay_out_chains(prompts, self.chains))
        objective(reward_RK).backward()
        return [log_prob_N.detach(), reward_RK.detach()]

    def log_probs(self, inputs: Inputs) -> Tensor:
        """Log-probabilities of the chains' tokens, chain by chain."""
        chain_RT = inputs["chain_mask"][:, 1:]
        logits_NV = self.model.backbone.lm_head(self.model.hidden(inputs)[:, :-1][chain_RT])
        logits_NV[:, suppressed_token_ids(self.model)] = -torch.inf
        target_N = inputs["input_ids"][:, 1:][chain_RT]
        return logits_NV.float().log_softmax(dim=-1).gather(1, target_N[:, None])[:, 0]

    def repeated(self) -> Inputs:
        """A row for each chain, with a video of its own."""
        size = len(self.chains)
        return {name: value.repeat(size, *[1] * (value.ndim - 1)) for name, value in self.prompts.items()}


def objective(values: Tensor) -> Tensor:
    """A sum in which neighbours weigh differently, as in a group's advantages."""
    return (values.flatten() * torch.linspace(-1, 1, values.numel(), device=values.device)).sum()


def true_learner(size: Size) -> DescoreModel:
    """A published size with random weights; adapters, query and head learn, with gradient checkpointing."""
    model = true_size_filled(size, learns="lora")
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    return model


SETUPS = {
    "small": Setup(
        name="width 256, vocabulary 1,024",
        model=small_learner,
        frames=(10, 20, 40, 82),  # prompts about 2, 4, 8 and 16 times as long as a chain
        edge=64,
        chain=64,
        groups=(4, 8, 16),
        tolerance=1e-4,  # float32, summed in two orders
    ),
    "8B": Setup(
        name="Qwen3-VL-8B, bfloat16",
        model=partial(true_learner, SIZES["8B"]),
        frames=(40,),  # of 448 x 448 pixels, the most that a frame has: two have 196 tokens
        edge=448,
        chain=600,
        groups=(8,),
        tolerance=None,  # of eight binary digits
        bfloat16=True,
    ),
}


def random_chains(model: DescoreModel, size: int, *, tokens: int) -> list[Tokens]:
    """Random chains of one length, so that naive has no padding."""
    written = sorted({*range(len(model.chat.tokenizer))} - {*suppressed_token_ids(model), model.chat.end_id})
    draw = torch.randint(len(written), (size, tokens - 1), generator=torch.Generator().manual_seed(0))
    return [[*(written[i] for i in row), model.chat.end_id] for row in draw.tolist()]


def updates(group: Group, repeats: int, *, tolerance: float | None) -> Iterator[str]:
    """Seconds and peak of the two ways with their ratios, the peak of one row, and by how much the ways differ."""
    group.model.train()
    variants = {"packed": group.packed, "naive": group.naive}
    apart = disagreement(group, *variants.values())
    assert tolerance is None or apart < tolerance, f"values or gradients differ by {apart:.1e} of their size"
    peak = {name: peak_of(variant) for name, variant in variants.items()}
    single = peak_of(replace(group, chains=group.chains[:1]).naive)
    seconds = interleaved({name: synchronized(variant) for name, variant in variants.items()}, repeats=repeats)
    yield from (*with_ratio(seconds), f"{group.tokens / seconds['packed']:,.0f}")
    yield from (f"{value:,.0f}" for value in peak.values())
    yield from (f"{peak['naive'] / max(peak['packed'], 1e-9):.2f}", f"{single:,.0f}", f"{apart:.0e}")


def encodings(group: Group, repeats: int, *, tolerance: float | None) -> Iterator[str]:
    """Seconds of an update with the rollout's vision features and with pixels, their ratio, the memory of both, and by
    how much values and gradients differ."""
    group.model.train()
    with group.autocast():
        kept = replace(group, prompts=encode_frozen_vision(group.model, group.prompts))
    assert "vision_features" in kept.prompts, "a weight of the vision tower is trained"
    variants = {"kept": kept.packed, "again": group.packed}
    apart = disagreement(group, *variants.values())
    assert tolerance is None or apart < tolerance, f"values or gradients differ by {apart:.1e} of their size"
    seconds = interleaved({name: synchronized(variant) for name, variant in variants.items()}, repeats=repeats)
    yield from with_ratio(seconds)
    yield f"{kept.prompts['vision_features'].nbytes / MIB:.1f}"
    yield f"{group.prompts['pixel_values_videos'].nbytes / MIB:.1f}"
    yield f"{apart:.0e}"


def with_ratio(variants: dict[str, float]) -> Iterator[str]:
    """Seconds of two ways, and the ratio of the second to the first."""
    yield from (f"{value:.2f}s" for value in variants.values())
    ours, theirs = variants.values()
    yield f"{theirs / ours:.2f}"


def peak_of(work: Callable[[], object]) -> float:
    """Peak of the memory that some work adds, in MiB; on a GPU, of what torch allocates there."""
    if not torch.cuda.is_initialized():
        return added_peak(work)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def synchronized(work: Callable[[], object]) -> Callable[[], object]:
    """The work, followed by a wait for the GPU, which calls do not wait for."""

    def run() -> object:
        done = work()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return done

    return run


def disagreement(group: Group, *variants: Callable[[], list[Tensor]]) -> float:
    """The largest difference of values and gradients, each relative to its largest entry."""
    results = []
    for variant in variants:
        group.model.zero_grad()
        values = variant()
        results.append([*values, *(weight.grad for weight in trainable_weights(group.model).values())])
    # Half of each new adapter is 0, and so is the other half's gradient.
    return max(
        float((one - other).abs().max() / one.abs().max()) for one, other in zip(*results, strict=True) if one.any()
    )


@torch.no_grad()
def rollouts(group: Group, repeats: int) -> Iterator[str]:
    """Seconds of the two ways and their ratio, and tokens a second of the first."""
    group.model.eval()
    size, limit, num_tokens = len(group.chains), len(group.chains[0]) - 1, list[int]()

    def write(prompts: Inputs, **options: Any) -> None:  # noqa: ANN401
        with group.autocast():
            completions = think_and_score(group.model, prompts, limit=limit, temperature=1.0, **options)
        num_tokens.append(sum(completion.num_tokens for row in completions for completion in row))

    variants = {
        "shared": partial(write, group.prompts, samples=size),
        "own": partial(write, group.repeated(), seeds=range(size)),
    }
    seconds = interleaved({name: synchronized(variant) for name, variant in variants.items()}, repeats=repeats)
    yield from (*with_ratio(seconds), f"{num_tokens[0] / seconds['shared']:,.0f}")


if __name__ == "__main__":
    main()
