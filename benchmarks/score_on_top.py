"""What the reward costs on top of thinking: (think + score) / think, at a batch of 8. At most 1.03 is asked.

python benchmarks/score_on_top.py [--repeats 7]"""

import argparse

import numpy as np
import torch
from _bench import bench_model, environment, interleaved, noise_clip

from descore.model import thinker


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(environment())
    model = bench_model()
    prompts = model.chat.lay_out_prompts([noise_clip(i, frames=8) for i in range(8)], ["a red ball"] * 8)
    print(f"batch 8, prompts of {prompts['input_ids'].shape[1]} tokens")
    print(f"{'chain':>6} {'think':>9} {'think + score':>14} {'ratio':>7}")
    for limit in (64, 256):

        def think(limit: int = limit) -> None:
            with torch.inference_mode():
                rows = thinker._Rows.behind(model, prompts, samples=1)
                uniform = np.zeros((8, limit + 1))
                thinker._write_chains(model, rows, limit=limit, temperature=0.0, uniform_RN=uniform)

        def think_and_score(limit: int = limit) -> None:
            thinker.think_and_score(model, prompts, limit=limit)

        seconds = interleaved({"think": think, "both": think_and_score}, repeats=repeats)
        ratio = seconds["both"] / seconds["think"]
        print(f"{limit:>6} {seconds['think']:>8.3f}s {seconds['both']:>13.3f}s {ratio:>7.3f}")


if __name__ == "__main__":
    main()
