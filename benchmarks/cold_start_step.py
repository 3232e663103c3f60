"""A training step on pairs, ours against the reference scheme, over prompt lengths and sizes of the vocabulary.

Ours: a and b in one forward; the query is a row of its own, and only what learns has a gradient and optimizer state.
The reference scheme, as its code does it: a and b in two forwards; the query is a row of the embedding, all of which
learns, and after each step the other rows are copied back from a copy that is kept. Both train the head and adapters
on the language model by the same loss, in float32. Loss and gradients of query and head must agree.

`peak` is the most that two steps add to the process, in MiB; `held` is the part that stays between steps: gradients,
optimizer state and the kept copy, counted from the tensors themselves. Beside a model of this width, Qwen3-VL's whole
vocabulary weighs far more than beside a real one; the small vocabulary has about the embedding's weight in the 2B.

    python -m benchmarks.cold_start_step [--repeats 3] [--smallest]"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.measure import MIB, added_peak, environment, interleaved, option_parser, print_row
from benchmarks.models import noise_clip, small_learner
from descore.model.chat import Inputs
from descore.model.modeling import DescoreModel
from descore.training.losses import bradley_terry
from descore.training.models import trainable_weights

VOCABULARIES = (4096, 151_936)
"""An embedding of 1.0 million weights beside a language model of 5.1 million, and the size of Qwen3-VL's."""
FRAMES = (18, 78, 156)
"""Of 64x64: about 250, 1,000 and 2,000 tokens of prompt."""
PAIRS, CHAIN = 1, 64
"""Pairs in a step, and tokens of each clip's chain."""
TOLERANCE = 1e-4
"""Largest difference relative to a gradient's largest entry: float32, summed in two orders."""


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=3)
    parser.add_argument("--smallest", action="store_true", help="only the shortest prompts and the small vocabulary")
    options = parser.parse_args()
    print(environment())
    print(f"pairs in a step: {PAIRS}; chains of {CHAIN} tokens, width 256; 'ref' is the reference scheme")
    names = ("vocab", "prompt", "ours", "ref", "ratio", "peak", "ref", "ratio", "held", "ref", "ratio", "apart")
    print_row(names, width=8)
    for vocabulary in VOCABULARIES[:1] if options.smallest else VOCABULARIES:
        ours = small_learner(vocabulary)
        reference = as_reference(ours)
        for frames in FRAMES[:1] if options.smallest else FRAMES:
            a, b, both = lay_out(ours, frames=frames)
            schemes = {"ours": Scheme(ours, [both]), "reference": Scheme(reference, [a, b], copies_back=True)}
            row = (f"{vocabulary:,}", f"{a['input_ids'].shape[1] - CHAIN - 1:,}", *measured(schemes, options.repeats))
            print_row(row, width=8)


@dataclass(frozen=True, slots=True)
class Scheme:
    """A model with its trained weights, and the inputs of the forwards of a step."""

    model: DescoreModel
    forwards: list[Inputs]
    copies_back: bool = False

    @property
    def embedding(self) -> nn.Parameter:
        """The table of all tokens."""
        return self.model.backbone.get_input_embeddings().weight

    @property
    def query_gradient(self) -> Tensor:
        """Gradient of the query, which is a row of the table or a parameter of its own."""
        return self.embedding.grad[self.model.chat.query_id] if self.copies_back else self.model.query.grad

    def loss(self) -> Tensor:
        """Bradley-Terry, with a preferred in every pair."""
        reward_R1 = torch.cat([self.model(inputs) for inputs in self.forwards])
        chosen_B1, rejected_B1 = reward_R1.tensor_split(2)
        return bradley_terry(chosen_B1 - rejected_B1, torch.ones_like(chosen_B1, dtype=torch.bool))


class Training:
    """Steps of a scheme, with optimizer state. At a learning rate of 0 both schemes keep the same weights."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.optimizer = torch.optim.AdamW(trainable_weights(scheme.model).values(), lr=0.0)
        self.kept = scheme.embedding.detach().clone() if scheme.copies_back else None

    def step(self) -> None:
        """One update."""
        self.optimizer.zero_grad()
        self.scheme.loss().backward()
        self.optimizer.step()
        if self.kept is not None:
            others_V = torch.arange(len(self.kept)) != self.scheme.model.chat.query_id
            with torch.no_grad():
                self.scheme.embedding[others_V] = self.kept[others_V]

    def held(self) -> float:
        """MiB between steps."""
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        state = [value for weight in weights for value in self.optimizer.state[weight].values()]
        tensors = [*state, *(weight.grad for weight in weights), *([] if self.kept is None else [self.kept])]
        return sum(tensor.nbytes for tensor in tensors) / MIB


def as_reference(ours: DescoreModel) -> DescoreModel:
    """The same weights, with the query in the embedding's row, and the whole table trained."""
    model = copy.deepcopy(ours)
    table = model.backbone.get_input_embeddings().weight
    table.data[model.query_id] = model.query.data
    model.query_id = -1  # no token's id, so that the table's row is read instead of our own
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


def measured(schemes: dict[str, Scheme], repeats: int) -> Iterator[str]:
    """The cells of a row: seconds, peak and held with their ratios, and the difference of both schemes."""
    apart = disagreement(*schemes.values())
    assert apart < TOLERANCE, f"loss or gradients differ by {apart:.1e} of their size"
    peak = {name: added_peak(two_steps(variant)) for name, variant in schemes.items()}
    training = {name: Training(variant) for name, variant in schemes.items()}
    seconds = interleaved({name: each.step for name, each in training.items()}, repeats=repeats)
    held = {name: each.held() for name, each in training.items()}
    for values, form in ((seconds, "{:.2f}s"), (peak, "{:,.0f}"), (held, "{:,.0f}")):
        yield from (form.format(value) for value in values.values())
        yield f"{values['reference'] / values['ours']:.2f}"
    for variant in schemes.values():
        variant.model.zero_grad()
    yield f"{apart:.0e}"


def two_steps(scheme: Scheme) -> Callable[[], None]:
    """Two steps from the start: the second is the first with optimizer state beside its activations."""

    def work() -> None:
        training = Training(scheme)
        training.step()
        training.step()
        scheme.model.zero_grad()

    return work


def disagreement(ours: Scheme, reference: Scheme) -> float:
    """The largest difference of loss, query gradient and head gradient, each relative to its largest entry."""
    results = []
    for variant in (ours, reference):
        loss = variant.loss()
        loss.backward()
        results.append((loss.detach(), variant.query_gradient.clone(), variant.model.head.weight.grad.clone()))
        variant.model.zero_grad()
    return max(float((one - other).abs().max() / one.abs().max()) for one, other in zip(*results, strict=True))


if __name__ == "__main__":
    main()
