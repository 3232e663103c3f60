"""What 8 and 4 bits take of the bundled model, and how far they move its weights and rewards.

"moved" is the size of the rounding beside that of the weights (Frobenius norms), over all weights that are quantized.
The bundled model scores drawn clips of unlike lengths and the bundled real ones, without a chain and behind the chain
that it writes in float32; a reward's distance from that in float32 is in standard deviations of the clips' rewards.

    python -m benchmarks.quantization [--clips 16]"""

import warnings
from collections.abc import Iterator, Sequence
from statistics import median, pstdev
from typing import Any

import torch
from torch import Tensor

from benchmarks.bfloat16 import BATCH, clips_of, laid_out_by
from benchmarks.measure import MIB, environment, option_parser, print_row
from descore.cli.scoring import quiet_transformers
from descore.model.chat import Inputs, Tokens
from descore.model.generation import score_chains, think_and_score
from descore.model.modeling import DescoreModel

WAYS = ("float32", "bfloat16", "8bit", "4bit")
Chains = Sequence[Sequence[Tokens]]
"""By batch."""


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--clips", type=int, default=16, help="drawn and real clips (default 16)")
    options = parser.parse_args()
    quiet_transformers()
    warnings.simplefilter("ignore")
    print(environment())
    exact = opened("float32")
    batches = laid_out_by(exact, clips_of(exact, options.clips), BATCH)
    chains = [
        [c.token_ids for [c] in think_and_score(exact, b, limit=exact.settings.max_chain_tokens)] for b in batches
    ]
    without = [[exact.chat.no_thinking] * len(of_batch) for of_batch in chains]
    print(f"tiny, {options.clips} clips")
    print_row(("", "MiB", "moved", "reward moved", "largest", "behind chains", "largest"), width=14)
    true: list[list[float]] = []
    for name in WAYS:
        model = opened(name)
        rewards = [rewards_of(model, batches, each) for each in (without, chains)]
        true = true or rewards
        distances = [text for each in zip(rewards, true, strict=True) for text in distance_texts(*each)]
        held = sum(weight.nbytes for weight in model.parameters()) / MIB
        moved = f"{moved_share(opened(name), exact):.2%}"  # on a CPU bitsandbytes lays out anew what has been used
        print_row((name, f"{held:.1f}", moved, *distances), width=14)


def opened(name: str) -> DescoreModel:
    """The bundled model in this precision, on the CPU."""
    if name.endswith("bit"):
        return DescoreModel.from_pretrained("tiny", device="cpu", quantization_config=name)
    return DescoreModel.from_pretrained("tiny", device="cpu", dtype=getattr(torch, name))


def rewards_of(model: DescoreModel, batches: Sequence[Inputs], chains: Chains) -> list[float]:
    """The reward of each clip behind its chain."""
    pairs = zip(batches, chains, strict=True)
    return [reward for prompts, each in pairs for reward in score_chains(model, prompts, each)[:, 0].tolist()]


def distance_texts(rewards: Sequence[float], true: Sequence[float]) -> tuple[str, str]:
    """Median and largest distance, in standard deviations of the true rewards."""
    apart = [abs(a - b) / pstdev(true) for a, b in zip(rewards, true, strict=True)]
    return f"{median(apart):.3f}", f"{max(apart):.3f}"


def moved_share(model: DescoreModel, exact: DescoreModel) -> float:
    """Of the weights of the language model's layers but for norms, which are what 8 and 4 bits hold."""
    if getattr(model.backbone, "is_quantized", False):
        model.backbone.dequantize()
    return share(
        (weight.float(), true) for weight, true in zip(matrices(model.backbone), matrices(exact.backbone), strict=True)
    )


def matrices(backbone: Any) -> list[Tensor]:  # noqa: ANN401
    """Of the language model's layers."""
    return [weight.detach() for weight in backbone.get_decoder().layers.parameters() if weight.ndim == 2]


def share(pairs: Iterator[tuple[Tensor, Tensor]]) -> float:
    """The size of the differences beside that of the second ones."""
    squares = [((a - b).square().sum().item(), b.square().sum().item()) for a, b in pairs]
    return (sum(d for d, _ in squares) / sum(s for _, s in squares)) ** 0.5


if __name__ == "__main__":
    main()
