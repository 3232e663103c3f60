"""A training step on pairs, ours against the reference scheme, over prompt lengths and sizes of the vocabulary.

Ours: a and b in one forward; the query is a row of its own, and only what learns has a gradient and optimizer state.
The reference scheme, as its code does it: a and b in two forwards; the query is a row of the embedding, all of which
learns, and after each step the other rows are copied back from a copy that is kept. Both train the head and adapters
on the language model by the same loss, in float32. Loss and gradients of query and head must agree.

`peak` is what two steps add to the process at most, MiB; `held` is what of it stays between steps: gradients,
optimizer state and the kept copy, counted from the tensors themselves. Beside a model of this width, Qwen3-VL's whole
vocabulary weighs far more than beside a real one; the small vocabulary has about the embedding's weight in the 2B.

    python benchmarks/cold_start_step.py [--repeats 3] [--smallest]"""

import argparse
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from _bench import added_peak, environment, interleaved, noise_clip
from torch import Tensor, nn

from descore.data.chat import QUERY_TOKEN, Inputs
from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel
from descore.model.small import small_config, small_processor
from descore.training.config import LoraConfig, PairTrainableConfig
from descore.training.losses import bradley_terry
from descore.training.models import learned_weights, set_trainable

VOCABULARIES = (4096, 151_936)
"""An embedding of 1.0 million weights beside a language model of 5.1 million, and the size of Qwen3-VL's."""
FRAMES = (18, 78, 156)
"""Of 64x64: about 250, 1,000 and 2,000 tokens of prompt."""
PAIRS, CHAIN = 1, 64
"""In a step; tokens of each clip's chain."""
TOLERANCE = 1e-4
"""Of a gradient's largest entry: float32, summed in two orders."""
MEBIBYTE = 1 << 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smallest", action="store_true", help="only the shortest prompts and the small vocabulary")
    options = parser.parse_args()
    print(environment())
    print(f"pairs in a step: {PAIRS}; chains of {CHAIN} tokens, width 256; 'ref' is the reference scheme")
    names = ("vocab", "prompt", "ours", "ref", "ratio", "peak", "ref", "ratio", "held", "ref", "ratio", "apart")
    print(" ".join(f"{name:>8}" for name in names))
    for vocabulary in VOCABULARIES[:1] if options.smallest else VOCABULARIES:
        ours = new_model(vocabulary)
        reference = as_reference(ours)
        for frames in FRAMES[:1] if options.smallest else FRAMES:
            a, b, both = lay_out(ours, frames=frames)
            ways = {"ours": ChainSource(ours, [both]), "reference": ChainSource(reference, [a, b], copies_back=True)}
            row = (f"{vocabulary:,}", f"{a['input_ids'].shape[1] - CHAIN - 1:,}", *measured(ways, options.repeats))
            print(" ".join(f"{cell:>8}" for cell in row), flush=True)


@dataclass(frozen=True, slots=True)
class ChainSource:
    """A model whose weights are set to learn, and the forwards that a step on the pairs makes."""

    model: DescoreModel
    forwards: list[Inputs]
    copies_back: bool = False

    @property
    def embedding(self) -> nn.Parameter:
        """The table of all tokens."""
        return self.model.backbone.get_input_embeddings().weight

    @property
    def query_gradient(self) -> Tensor:
        """Of the query, wherever it stands."""
        return self.embedding.grad[self.model.chat.query_id] if self.copies_back else self.model.query.grad

    def loss(self) -> Tensor:
        """Bradley-Terry, with a preferred in every pair."""
        reward_R1 = torch.cat([self.model(inputs) for inputs in self.forwards])
        chosen_B1, rejected_B1 = reward_R1.tensor_split(2)
        return bradley_terry(chosen_B1 - rejected_B1, torch.ones_like(chosen_B1, dtype=torch.bool))


class Training:
    """A way's steps, with the state that they go on from. At a learning rate of 0, all ways keep the same weights."""

    def __init__(self, way: ChainSource) -> None:
        self.way = way
        self.optimizer = torch.optim.AdamW(learned_weights(way.model).values(), lr=0.0)
        self.kept = way.embedding.detach().clone() if way.copies_back else None

    def step(self) -> None:
        """One update."""
        self.optimizer.zero_grad()
        self.way.loss().backward()
        self.optimizer.step()
        if self.kept is not None:
            others_V = torch.arange(len(self.kept)) != self.way.model.chat.query_id
            with torch.no_grad():
                self.way.embedding[others_V] = self.kept[others_V]

    def held(self) -> float:
        """MiB between steps."""
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        state = [value for weight in weights for value in self.optimizer.state[weight].values()]
        tensors = [*state, *(weight.grad for weight in weights), *([] if self.kept is None else [self.kept])]
        return sum(tensor.nbytes for tensor in tensors) / MEBIBYTE


def new_model(vocabulary: int) -> DescoreModel:
    """The bundled model's layers with random weights, and an embedding of that many rows; it learns as ours does."""
    torch.manual_seed(0)
    processor = small_processor(["a red ball rolls to the left <0.5 seconds>"], vocabulary=1024)
    processor.tokenizer.add_tokens([QUERY_TOKEN], special_tokens=True)
    config = small_config(processor, vocabulary=vocabulary)
    settings = CheckpointSettings(trained_on="nothing: a benchmark")
    model = DescoreModel.from_backbone(config, processor=processor, settings=settings, rubric="{prompt}").eval()
    set_trainable(model, PairTrainableConfig(lora=LoraConfig(r=16, alpha=32)), precision=torch.float32)
    return model


def as_reference(ours: DescoreModel) -> DescoreModel:
    """The same weights, with the query in the embedding's row and all of that table to learn."""
    model = copy.deepcopy(ours)
    table = model.backbone.get_input_embeddings().weight
    table.data[model.query_id] = model.query.data
    model.query_id = -1  # no token's id: the table's row is read where our own would stand in for it
    model.query.requires_grad_(False)
    table.requires_grad_(True)
    return model


def lay_out(model: DescoreModel, *, frames: int) -> tuple[Inputs, Inputs, Inputs]:
    """Clips a, clips b, and all of them in one batch."""
    clips = [noise_clip(seed, frames=frames) for seed in range(2 * PAIRS)]
    chains = torch.randint(300, 1000, (2 * PAIRS, CHAIN), generator=torch.Generator().manual_seed(0)).tolist()

    def rows(of: slice) -> Inputs:
        prompts = model.chat.lay_out_prompts(clips[of], ["a red ball"] * len(clips[of]))
        return model.chat.lay_out_chains(prompts, chains[of])

    return rows(slice(PAIRS)), rows(slice(PAIRS, None)), rows(slice(None))


def measured(ways: dict[str, ChainSource], repeats: int) -> Iterator[str]:
    """The cells of a row: seconds, peak and held with their ratios, and by how much the ways differ."""
    apart = disagreement(*ways.values())
    assert apart < TOLERANCE, f"loss or gradients differ by {apart:.1e} of their size"
    peak = {name: added_peak(two_steps(way)) for name, way in ways.items()}
    training = {name: Training(way) for name, way in ways.items()}
    seconds = interleaved({name: each.step for name, each in training.items()}, repeats=repeats)
    held = {name: each.held() for name, each in training.items()}
    for found, form in ((seconds, "{:.2f}s"), (peak, "{:,.0f}"), (held, "{:,.0f}")):
        yield from (form.format(value) for value in found.values())
        yield f"{found['reference'] / found['ours']:.2f}"
    for way in ways.values():
        way.model.zero_grad()
    yield f"{apart:.0e}"


def two_steps(way: ChainSource) -> Callable[[], None]:
    """From nothing: the second step is the first that has optimizer state beside its activations."""

    def work() -> None:
        training = Training(way)
        training.step()
        training.step()
        way.model.zero_grad()

    return work


def disagreement(ours: ChainSource, reference: ChainSource) -> float:
    """The largest difference of loss, query gradient and head gradient, each relative to its largest entry."""
    found = []
    for way in (ours, reference):
        loss = way.loss()
        loss.backward()
        found.append((loss.detach(), way.query_gradient.clone(), way.model.head.weight.grad.clone()))
        way.model.zero_grad()
    return max(float((one - other).abs().max() / one.abs().max()) for one, other in zip(*found, strict=True))


if __name__ == "__main__":
    main()
