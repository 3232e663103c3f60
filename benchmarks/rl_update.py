"""An update of stage 2 and its rollout, each chain behind its own prompt against all chains of a clip behind one.

An update reads, of the G chains of a clip, every token's log-probability and the reward behind it, with gradients.
`packed` does so by one forward over [prompt, chain 1, query, ..., chain G, query]. `naive` has a row for each chain,
and a forward for the log-probabilities and another for the rewards, each followed by its own backward. Both take logits
of the chains' tokens alone. Adapters on the language model, query and head learn; values and gradients must agree.

`peak` is what forward and backward add to the process at most, MiB, beside the memory of the gradients. `single` is
that of one row alone, to which naive comes down where rows take turns.

A rollout is G chains and their rewards: `shared` has one prefill whose cache is repeated, `own` a prefill for each
chain.

    python benchmarks/rl_update.py [--repeats 3] [--smallest]"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from _bench import added_peak, bench_model, environment, interleaved, noise_clip
from torch import Tensor

from descore.data.chat import Inputs, Tokens
from descore.model.descore_model import DescoreModel
from descore.model.shared_prefix import pack_groups, read_pack
from descore.model.thinker import never_written, think_and_score
from descore.training.config import LoraConfig, PairTrainableConfig
from descore.training.trainable import learned_weights, set_trainable

GROUPS = (4, 8, 16)
CHAIN = 64
FRAMES = {2: 10, 4: 20, 8: 40, 16: 82}
"""Prompt : chain, about, and the frames of 64x64 that make such a prompt."""
TOLERANCE = 1e-4
"""Of a gradient's largest entry: float32, summed in two orders."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smallest", action="store_true", help="only the shortest prompt and the smallest group")
    options = parser.parse_args()
    print(environment())
    print(f"one clip, chains of {CHAIN} tokens, width 256, vocabulary 1,024")
    names = ("prompt", "G", "packed", "naive", "ratio", "peak", "naive", "ratio", "single", "apart")
    names += ("shared", "own", "ratio")
    print(" ".join(f"{name:>7}" for name in names))
    model = learner()
    for frames in [*FRAMES.values()][:1] if options.smallest else FRAMES.values():
        prompts = model.chat.lay_out_prompts([noise_clip(0, frames=frames)], ["a red ball"])
        for size in GROUPS[:1] if options.smallest else GROUPS:
            group = Group(model, prompts, random_chains(model, size))
            row = (f"{prompts['input_ids'].shape[1]:,}", f"{size}")
            cells = (*row, *updates(group, options.repeats), *rollouts(group, options.repeats))
            print(" ".join(f"{cell:>7}" for cell in cells), flush=True)


@dataclass(frozen=True, slots=True)
class Group:
    """A clip's prompt and its chains, and the two ways of an update."""

    model: DescoreModel
    prompts: Inputs
    chains: list[Tokens]

    def packed(self) -> list[Tensor]:
        """Log-probabilities and rewards, with their gradients left in the model."""
        [pack] = pack_groups(self.model, self.prompts, [self.chains])
        read = read_pack(self.model, pack)
        (objective(read.log_prob_N) + objective(read.reward_RK)).backward()
        return [read.log_prob_N.detach(), read.reward_RK.detach()]

    def naive(self) -> list[Tensor]:
        """The same."""
        prompts = self.repeated()
        inputs = self.model.chat.lay_out_chains(prompts, self.chains, query=False)
        log_prob_N = self.log_probs(inputs)
        objective(log_prob_N).backward()
        reward_RK = self.model(self.model.chat.lay_out_chains(prompts, self.chains))
        objective(reward_RK).backward()
        return [log_prob_N.detach(), reward_RK.detach()]

    def log_probs(self, inputs: Inputs) -> Tensor:
        """Of the chains' tokens, chain by chain."""
        chain_RT = inputs["chain_mask"][:, 1:]
        logits_NV = self.model.backbone.lm_head(self.model.hidden(inputs)[:, :-1][chain_RT])
        logits_NV[:, never_written(self.model)] = -torch.inf
        target_N = inputs["input_ids"][:, 1:][chain_RT]
        return logits_NV.float().log_softmax(dim=-1).gather(1, target_N[:, None])[:, 0]

    def repeated(self) -> Inputs:
        """A row for each chain, with a video of its own."""
        size = len(self.chains)
        return {name: value.repeat(size, *[1] * (value.ndim - 1)) for name, value in self.prompts.items()}


def objective(values: Tensor) -> Tensor:
    """A sum in which neighbours weigh differently, as in a group's advantages."""
    return (values.flatten() * torch.linspace(-1, 1, values.numel())).sum()


def learner() -> DescoreModel:
    """The bundled model's layers with random weights. It learns as stage 2 does."""
    model = bench_model()
    set_trainable(model, PairTrainableConfig(lora=LoraConfig(r=16, alpha=32)), precision=torch.float32)
    return model


def random_chains(model: DescoreModel, size: int) -> list[Tokens]:
    """Chains of one length: so naive has no padding to carry."""
    written = sorted({*range(len(model.chat.tokenizer))} - {*never_written(model), model.chat.end_id})
    draw = torch.randint(len(written), (size, CHAIN - 1), generator=torch.Generator().manual_seed(0))
    return [[*(written[i] for i in row), model.chat.end_id] for row in draw.tolist()]


def updates(group: Group, repeats: int) -> Iterator[str]:
    """Seconds and peak of the two ways with their ratios, the peak of one row, and by how much the ways differ."""
    ways = {"packed": group.packed, "naive": group.naive}
    apart = disagreement(group, *ways.values())
    assert apart < TOLERANCE, f"values or gradients differ by {apart:.1e} of their size"
    peak = {name: added_peak(way) for name, way in ways.items()}
    single = added_peak(Group(group.model, group.prompts, group.chains[:1]).naive)
    seconds = interleaved(ways, repeats=repeats)
    for found, form in ((seconds, "{:.2f}s"), (peak, "{:,.0f}")):
        yield from (form.format(value) for value in found.values())
        yield f"{found['naive'] / found['packed']:.2f}"
    yield f"{single:,.0f}"
    yield f"{apart:.0e}"


def disagreement(group: Group, *ways: Callable[[], list[Tensor]]) -> float:
    """The largest difference of values and gradients, each relative to its largest entry."""
    found = []
    for way in ways:
        group.model.zero_grad()
        values = way()
        found.append([*values, *(weight.grad for weight in learned_weights(group.model).values())])
    # Half of each new adapter is 0, and so is the other half's gradient.
    return max(
        float((one - other).abs().max() / one.abs().max()) for one, other in zip(*found, strict=True) if one.any()
    )


def rollouts(group: Group, repeats: int) -> Iterator[str]:
    """Seconds of the two ways and their ratio."""
    size, limit = len(group.chains), CHAIN - 1
    ways = {
        "shared": lambda: think_and_score(group.model, group.prompts, limit=limit, samples=size, temperature=1.0),
        "own": lambda: think_and_score(group.model, group.repeated(), limit=limit, temperature=1.0, seeds=range(size)),
    }
    seconds = interleaved(ways, repeats=repeats)
    yield from (f"{value:.2f}s" for value in seconds.values())
    yield f"{seconds['own'] / seconds['shared']:.2f}"


if __name__ == "__main__":
    main()
