"""What a gradient to the pixels costs: memory and time of `DifferentiableReward`, forward and backward, against
`RewardFunction` on the same frames.

The former tiny's layers with random weights, whose chains all run to the limit, read random clips of the model's own
size. Each way takes turns with the others, in one process:

    plain           `RewardFunction`: no gradient
    kept            forward and backward, every activation kept
    checkpointed    the same with gradient checkpointing: each layer's input is kept, the layer is computed again

Prints for each the seconds, the MiB by which it raises the process's memory at its peak, and both as multiples of
plain; "apart" is the largest difference of a checkpointed gradient from the kept one, relative to the largest entry.
"off" reads the reward at once, "on" writes chains first.

Then what a gradient can do that no one sees: drawn clips, the bundled model, and steps along the gradient's sign that
leave each pixel within 2 grey levels. Printed is the mean reward in deviations before and after, as `RewardFunction`
gives it on frames that are rounded to bytes, with the same `think` and with the other.

    python -m benchmarks.differentiable [--repeats 3] [--clips 4] [--frames 16] [--chain 64] [--drawn 8]
                                       [--quick]"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import added_peak, environment, interleaved, option_parser
from benchmarks.models import small_model
from descore.rewards.differentiable import DifferentiableReward
from descore.rewards.function import RewardFunction
from descore.scorer import Scorer
from descore.synthetic.splits import Split, draw_plan, plan_example
from descore.types import Think

FPS, EDGE = 2, 128
BOUND = 2
"""Grey levels, of 255, that nobody sees."""
THINKS: tuple[Think, ...] = ("off", "on")
COLUMNS = "{:>8} {:>13} {:>9} {:>6} {:>9} {:>6} {:>8}"


def gradient_of(reward: DifferentiableReward, videos_BTCHW: Tensor) -> Tensor:
    """The gradient of the rewards' sum."""
    leaf = videos_BTCHW.clone().requires_grad_()
    reward(videos=leaf, prompts=prompts_of(leaf)).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def prompts_of(videos: Tensor) -> list[str]:
    """One for each."""
    return ["a red ball rolls to the left"] * len(videos)


def measure(scorer: Scorer, videos: Tensor, *, think: Think, chain: int, repeats: int) -> None:
    """Print the rows of one way to think."""
    options = {"fps": FPS, "range": (0, 1), "normalize": "none", "think": think, "max_chain_tokens": chain}
    plain = RewardFunction(scorer, **options)
    kept, checkpointed = (
        DifferentiableReward(scorer, gradient_checkpointing=flag, **options) for flag in (False, True)
    )
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(videos=videos, prompts=prompts_of(videos)),
        "kept": lambda: gradient_of(kept, videos),
        "checkpointed": lambda: gradient_of(checkpointed, videos),
    }
    seconds = interleaved(ways, repeats=repeats)
    peaks = {way: added_peak(work) for way, work in ways.items()}
    expected = gradient_of(kept, videos)
    apart = float((gradient_of(checkpointed, videos) - expected).abs().max() / expected.abs().max())
    for way in ways:
        times, memory = (f"{of[way] / of['plain']:.2f}" for of in (seconds, peaks))
        last = f"{apart:.0e}" if way == "checkpointed" else ""
        row = (think, way, f"{seconds[way]:.2f}", times, f"{peaks[way]:,.0f}", memory, last)
        print(COLUMNS.format(*row), flush=True)


def hack(scorer: Scorer, *, think: Think, clips: int, steps: int) -> None:
    """Print the rows of what unseen steps along one gradient gain."""
    examples = [draw_plan(plan_example(Split.IN_DOMAIN, index), frames=8) for index in range(clips)]
    prompts, fps = [example.prompt for example in examples], examples[0].clip.source_fps
    frames_BTHWC = torch.stack([torch.from_numpy(example.clip.frames.copy()) for example in examples])
    before = frames_BTHWC.permute(0, 1, 4, 2, 3) / 255
    reward, after = DifferentiableReward(scorer, fps=fps, range=(0, 1), think=think), before
    for _ in range(steps):
        leaf = after.clone().requires_grad_()
        reward(videos=leaf, prompts=prompts).sum().backward()
        assert leaf.grad is not None
        step = BOUND / steps / 255 * leaf.grad.sign()
        after = (after + step).clamp(0, 1)
    for reader in THINKS:
        read = RewardFunction(scorer, fps=fps, range=(0, 1), think=reader)
        means = (float(read(videos=v, prompts=prompts).rewards.mean()) for v in (before, after))
        first, last = (f"{mean:.2f}" for mean in means)
        print(COLUMNS.format(think, reader, first, "", last, "", ""), flush=True)


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=3)
    parser.add_argument("--clips", type=int, default=4, help="clips in a batch (default 4)")
    parser.add_argument("--frames", type=int, default=16, help=f"frames of a clip, at {FPS} a second (default 16)")
    parser.add_argument("--chain", type=int, default=64, help="tokens of a chain (default 64)")
    parser.add_argument("--drawn", type=int, default=8, help="drawn clips whose pixels are moved (default 8)")
    parser.add_argument("--quick", action="store_true", help="2 short clips once, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.clips, options.frames, options.chain, options.repeats, options.drawn = 2, 4, 8, 1, 2
    print(environment())
    shape = (options.clips, options.frames, 3, EDGE, EDGE)
    videos = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    scorer = Scorer(small_model(), name="random", batch_size=options.clips)
    print(f"{options.clips} clips of {options.frames} frames of {EDGE} pixels, chains of {options.chain} tokens")
    print(COLUMNS.format("thinking", "way", "seconds", "ratio", "peak MiB", "ratio", "apart"))
    for think in THINKS:
        measure(scorer, videos, think=think, chain=options.chain, repeats=options.repeats)
    print(f"\n{options.drawn} drawn clips, pixels moved by at most {BOUND} grey levels")
    print(COLUMNS.format("gradient", "read with", "before", "", "after", "", ""))
    tiny = Scorer.from_pretrained("tiny", device="cpu")
    for think in THINKS:
        hack(tiny, think=think, clips=options.drawn, steps=2 if options.quick else 8)


if __name__ == "__main__":
    main()
