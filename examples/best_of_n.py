"""Best of N: make N clips of a prompt, and keep the one that the reward model prefers.

    python -m examples.best_of_n --generator runs/generator/model --prompt "a red star moving left on the sand" --n 16

Prints the clips in order, and writes the best one. `make_clips` is the only place that knows the generator: put yours
there. The reward is a mean over several chains of thought, so that a clip does not win by what one chain misread."""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from experiments.generator.flow import generate
from experiments.generator.model import Generator
from experiments.generator.rewards import enlarged_frames
from experiments.generator.world import FPS
from experiments.harness import one_line_errors, positive

from descore.rewards import RewardFunction, RewardMonitor
from descore.video.encoder import write_mp4


def make_clips(generator: Generator, prompt: str, seeds: list[int]) -> list[np.ndarray]:
    """A clip (T, H, W, 3), uint8, for each seed. With diffusers: pipe(prompt, generator=...).frames. The study's are 64
    pixels wide, and enlarged to the 128 that the bundled model has learned from."""
    return [enlarged_frames(frames) for frames in generate(generator, [prompt] * len(seeds), seeds)]


@one_line_errors()
def main() -> None:
    """Make clips, score them, keep the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--n", type=positive, default=16, help="clips (default 16)")
    parser.add_argument("--model", default="tiny", help="reward model: a checkpoint, or tiny")
    parser.add_argument("--samples", type=positive, default=4, help="chains of thought for each clip (default 4)")
    parser.add_argument("--out", type=Path, default=Path("best.mp4"))
    options = parser.parse_args()

    clips = make_clips(Generator.load(options.generator), options.prompt, list(range(options.n)))

    reward = RewardFunction(options.model, fps=FPS, samples=options.samples, monitor=RewardMonitor())
    videos = torch.stack([torch.from_numpy(frames) for frames in clips])  # (B, T, H, W, C), uint8
    result = reward(videos=videos, prompts=[options.prompt] * len(clips), layout="BTHWC")

    deviation = result.standard_errors * math.sqrt(options.samples)
    order = result.raw.nan_to_num(nan=-math.inf).argsort(descending=True).tolist()  # a failed clip is never chosen
    for place, index in enumerate(order, start=1):
        print(f"{place:3}  {result.raw[index]:+.2f} ± {deviation[index]:.2f}  clip {index}")
    for index, error in result.errors.items():
        print(f"clip {index} has no reward: {error}")
    if len(result.errors) == len(clips):
        raise SystemExit("error: no clip has a reward")

    best = result.scores[order[0]]
    if best.thinking:
        print(f"\n{best.thinking}\n")
    write_mp4(options.out, clips[order[0]], fps=int(FPS))
    print(f"{options.out}: clip {order[0]} of {len(clips)}")


if __name__ == "__main__":
    main()
