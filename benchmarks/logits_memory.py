"""The next-token loss of a chain at Qwen3-VL's vocabulary: logits for the chain's tokens alone, a piece at a time,
against logits for the whole sequence at once, as transformers' own loss has them.

Forward and backward, float32, a frozen output layer of small width, so that logits are nearly all of the memory.
`chain` is the step between: the chain's tokens alone, in one piece. Pieces are made again in the backward pass, which
costs time. Losses and gradients must agree.

    python -m benchmarks.logits_memory [--repeats 3]"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.measure import added_peak, environment, interleaved, option_parser, print_row
from descore.training.losses import MAX_LOGITS, chunked_next_token_sum

VOCABULARY, WIDTH = 151_936, 256
TOKENS = ((1024, 512), (3072, 1024))
"""Tokens of the sequence, and of the chain at its end."""


def main() -> None:
    """Measure and print."""
    repeats = option_parser(__doc__, repeats=3).parse_args().repeats
    print(environment())
    torch.manual_seed(0)
    output = nn.Linear(WIDTH, VOCABULARY, bias=False).requires_grad_(False)
    print(f"vocabulary {VOCABULARY:,}, width {WIDTH}, pieces of {MAX_LOGITS // VOCABULARY} tokens; MiB at the peak")
    names = ("sequence", "chain of", "whole", "chain", "pieces", "ratio", "whole", "pieces", "ratio", "apart")
    print_row(names, width=9)
    for sequence, chain in TOKENS:
        variants = ways_of(output, sequence=sequence, chain=chain)
        (loss, gradient), (other_loss, other_gradient) = variants["whole"](), variants["pieces"]()
        apart = max(((loss - other_loss) / loss).abs().item(), (gradient - other_gradient).abs().max().item())
        del loss, gradient, other_loss, other_gradient
        mebibytes = {name: added_peak(variant) for name, variant in variants.items()}
        seconds = interleaved({name: variants[name] for name in ("whole", "pieces")}, repeats=repeats)
        row = (
            f"{sequence:,}",
            f"{chain:,}",
            *(f"{mebibytes[name]:,.0f}" for name in variants),
            f"{mebibytes['whole'] / mebibytes['pieces']:.1f}",
            *(f"{seconds[name]:.1f}s" for name in seconds),
            f"{seconds['whole'] / seconds['pieces']:.2f}",
            f"{apart:.0e}",
        )
        print_row(row, width=9)


def ways_of(output: nn.Linear, *, sequence: int, chain: int) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """Each way's loss, and its gradient at the chain's hidden states."""
    hidden_TD = torch.randn(sequence, WIDTH)
    target_N = torch.randint(VOCABULARY, (chain,))
    label_T = torch.cat([torch.full((sequence - chain,), -100), target_N])

    def whole() -> tuple[Tensor, Tensor]:
        given_TD = hidden_TD.clone().requires_grad_()
        logits_TV = output(given_TD)
        loss = F.cross_entropy(logits_TV, label_T, ignore_index=-100, reduction="sum")
        loss.backward()
        return loss.detach(), given_TD.grad[-chain:]

    def by(piece: int) -> tuple[Tensor, Tensor]:
        given_ND = hidden_TD[-chain:].clone().requires_grad_()
        loss, _ = chunked_next_token_sum(given_ND, target_N, output=output, chunk_size=piece)
        loss.backward()
        return loss.detach(), given_ND.grad

    return {"whole": whole, "chain": lambda: by(chain), "pieces": lambda: by(MAX_LOGITS // VOCABULARY)}


if __name__ == "__main__":
    main()
