"""Memory of a cold-start step on one GPU, for Qwen3-VL 2B, 4B and 8B: one pair, gradient checkpointing, bfloat16, the
next-token loss on chains beside the rewards' loss.

It is computed without weights: a model of each size is built by the project's own code on torch's meta device, so that
frozen and trained weights are counted, not estimated; one layer's forward and backward runs on tensors that have sizes
and no data, so that its saved tensors are counted, too. The rest is

    held    frozen weights in bfloat16; of what learns, weights, gradients and AdamW's two moments in float32
    kept    the input of each layer, for each token; pixels and what the vision tower made of them
    at once the largest of: a layer again; a piece of logits; the copies in bfloat16 that mixed precision makes of what
            learns; and, when nothing is kept any more, the gradient of the embedding's table, or what AdamW needs to
            step over all weights together, as it does on a GPU

`--measure 2B` builds that model with random weights and takes a real step, on a GPU if there is one. Its gradients and
moments are there before, as in the last forward of an update that has several. `--layers` cuts the model down, where
the whole does not fit.

    python -m benchmarks.training_memory [--tokens 6144] [--chain 1024]
    python -m benchmarks.training_memory --measure 2B --tokens 512 --chain 128 [--learns full] [--layers 4]"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import MIB, added_peak, environment, option_parser, print_row, resident
from benchmarks.models import SIZES, Learns, Size, noise_clip, true_size, true_size_filled
from descore.memory.need import GIB, Need, step_need
from descore.model.modeling import DescoreModel
from descore.training.cold_start import pair_batch_loss
from descore.training.collate import PairCollator, TrainingExample, TrainingPair
from descore.training.config import LossConfig
from descore.training.models import trainable_weights

EDGE, PER_FRAMES = 256, 64
"""Pixels along each side of a frame, and the tokens of two such frames."""
ROWS = 2
"""Sequences in a step: the two of a pair."""
M_MMAP_THRESHOLD = -3
"""glibc's option: the size from which a block is mapped separately."""


def main() -> None:
    """Compute for all sizes, or measure one."""
    parser = option_parser(__doc__)
    parser.add_argument("--tokens", type=int, default=6144, help="of each sequence, a multiple of 128")
    parser.add_argument("--chain", type=int, default=1024, help="of these, tokens of the chain")
    parser.add_argument("--measure", choices=SIZES)
    parser.add_argument("--learns", choices=("lora", "full"), default="lora", help="the language model, with --measure")
    parser.add_argument("--layers", type=int, help="of the language model, with --measure")
    options = parser.parse_args()
    print(environment())
    print(f"a pair of {options.tokens:,} tokens each, {options.chain:,} of them chain, half of them video; GiB")
    names = ("size", "learns", *Need.__slots__, "peak")
    print_row(names, width=8)
    if options.measure:
        size = SIZES[options.measure]
        size = replace(size, layers=options.layers or size.layers)
        compare(options.measure, size, learns=options.learns, tokens=options.tokens, chain=options.chain)
        return
    for name, size in SIZES.items():
        for learns in ("lora", "full"):
            need = computed(size, learns=learns, tokens=options.tokens, chain=options.chain, gpu=True)
            print(row(name, learns, need), flush=True)


def compare(name: str, size: Size, *, learns: Learns, tokens: int, chain: int) -> None:
    """Print the computed and the measured memory of a step on this machine."""
    gpu = torch.cuda.is_available()
    need = computed(size, learns=learns, tokens=tokens, chain=chain, gpu=gpu)
    print(row(name, learns, need), flush=True)
    peak, seconds = measured(size, learns=learns, tokens=tokens, chain=chain, device="cuda" if gpu else "cpu")
    where = torch.cuda.get_device_name() if gpu else "the CPU"
    print(f"measured on {where}, {size.layers} layers: {peak / GIB:.2f}, {peak / need.peak:.2f} of it; {seconds:.0f} s")


def row(name: str, learns: Learns, need: Need) -> str:
    """A line of the table."""
    values = (*(getattr(need, part) for part in Need.__slots__), need.peak)
    return " ".join(f"{cell:>8}" for cell in (name, learns, *(f"{value / GIB:.2f}" for value in values)))


def computed(size: Size, *, learns: Learns, tokens: int, chain: int, gpu: bool) -> Need:
    """The computed memory of a step."""
    with torch.device("meta"):
        model = true_size(size, learns=learns)
    return step_need(model, rows=ROWS, tokens=tokens, chain=chain, gpu=gpu)


class Step:
    """A forward, its backward and an AdamW step. Gradients and moments exist before."""

    def __init__(self, model: DescoreModel, *, tokens: int, chain: int) -> None:
        self.model = model.train()
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        batch = lay_out(model, tokens=tokens, chain=chain)
        self.batch = {name: value.to(model.device) for name, value in batch.items()}
        weights = list(trainable_weights(model).values())
        self.optimizer = torch.optim.AdamW(weights, lr=1e-6)
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        self.optimizer.step()

    @property
    def held(self) -> list[Tensor]:
        """Weights, gradients and moments."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        gradients = [weight.grad for weight in self.optimizer.state]
        return [*self.model.parameters(), *gradients, *moments]

    def __call__(self) -> None:
        """Take the step."""
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16):
            terms, _ = pair_batch_loss(self.model, self.batch, loss=LossConfig(chain_weight=0.1))
        terms.sum().backward()
        self.optimizer.step()


def measured(size: Size, *, learns: Learns, tokens: int, chain: int, device: str) -> tuple[float, float]:
    """Bytes at the peak of a real step, with all that existed before it, and its seconds."""
    # Small blocks, too, are returned to the system once they are free, so that glibc's reserve does not count.
    ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 16)
    before = resident("VmRSS")
    step = Step(true_size_filled(size, learns=learns).to(device), tokens=tokens, chain=chain)
    start = time.perf_counter()
    peak = peak_on_gpu(step) if device == "cuda" else peak_on_cpu(step, before=before)
    return peak, time.perf_counter() - start


def peak_on_gpu(work: Callable[[], None]) -> float:
    """Peak bytes of tensors."""
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated()


def peak_on_cpu(work: Callable[[], None], *, before: float) -> float:
    """Peak bytes of this process, less the MiB that it had `before`."""
    added_peak(work)
    return (resident("VmHWM") - before) * MIB


def lay_out(model: DescoreModel, *, tokens: int, chain: int) -> dict[str, Tensor]:
    """A pair whose sequences have that many tokens, the query included, half of them video."""
    clips = [noise_clip(seed, frames=tokens // PER_FRAMES, edge=EDGE) for seed in range(ROWS)]
    without = model.chat.lay_out_prompts(clips[:1], [""])["input_ids"].shape[1]
    prompt, written = "q" * (tokens - chain - 1 - without), "q" * (chain - 1)  # the end of turn is the chain's last
    a, b = (TrainingExample(clip=clip, prompt=prompt, chain=written) for clip in clips)
    pair = TrainingPair(a=a, b=b, preference_K=np.array([1], dtype=np.int8), number=0)
    batch = PairCollator(chat=model.chat, chain_drop=0.0, seed=0)([pair])
    assert batch["input_ids"].shape == (ROWS, tokens), f"laid out {tuple(batch['input_ids'].shape)}"
    return batch


if __name__ == "__main__":
    main()
