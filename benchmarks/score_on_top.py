"""What the reward costs on top of thinking: (think + score) / think, at a batch of 8. At most 1.03 is asked.

Both parts are timed within each run, since they differ by less than two runs do.

    python benchmarks/score_on_top.py [--repeats 9]"""

import argparse
import statistics
import time

import numpy as np
import torch
from _bench import bench_model, environment, noise_clip

from descore.data.chat import Inputs
from descore.model import generation as thinker
from descore.model.modeling import DescoreModel

BATCH = 8


@torch.inference_mode()
def one_run(model: DescoreModel, prompts: Inputs, *, limit: int) -> tuple[float, float]:
    """Seconds of thinking, and of scoring behind it."""
    start = time.perf_counter()
    rows = thinker.Prefill.encode(model, prompts, samples=1, limit=limit)
    chains, cache = thinker._write_chains(
        model, rows, limit=limit, temperature=0.0, uniform_RN=np.zeros((BATCH, limit + 1))
    )
    thought = time.perf_counter()
    thinker._read_rewards(model, rows, chains, cache).cpu()
    return thought - start, time.perf_counter() - thought


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    print(environment())
    model = bench_model()
    prompts = model.chat.lay_out_prompts([noise_clip(i, frames=8) for i in range(BATCH)], ["a red ball"] * BATCH)
    print(f"batch {BATCH}, prompts of {prompts['input_ids'].shape[1]} tokens")
    print(f"{'chain':>6} {'think':>9} {'score':>9} {'(think + score) / think':>24}")
    for limit in (64, 256):
        one_run(model, prompts, limit=limit)  # to warm up
        runs = [one_run(model, prompts, limit=limit) for _ in range(repeats)]
        think, score = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
        ratio = statistics.median((thinking + scoring) / thinking for thinking, scoring in runs)
        print(f"{limit:>6} {think:>8.3f}s {score:>8.4f}s {ratio:>24.3f}")


if __name__ == "__main__":
    main()
