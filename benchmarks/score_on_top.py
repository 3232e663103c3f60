"""What the reward costs on top of thinking: (think + score) / think, at a batch of 8. The aim is at most 1.03.

Both parts are timed within each run, since they differ by less than two runs do.

    python -m benchmarks.score_on_top [--repeats 9]"""

import statistics
import time
from typing import Any
from unittest.mock import patch

from torch import Tensor

from benchmarks.measure import environment, option_parser
from benchmarks.models import noise_clip, small_model
from descore.model.chat import Inputs
from descore.model.generation import ChainWriter, think_and_score
from descore.model.modeling import DescoreModel

BATCH = 8


def one_run(model: DescoreModel, prompts: Inputs, *, limit: int) -> tuple[float, float]:
    """Seconds of thinking, and of the steps that read rewards."""
    reading: list[float] = []
    read = ChainWriter._read_rewards

    def timed(self: ChainWriter, *args: Any) -> Tensor:  # noqa: ANN401
        start = time.perf_counter()
        rewards_RK = read(self, *args)
        reading.append(time.perf_counter() - start)
        return rewards_RK

    with patch.object(ChainWriter, "_read_rewards", timed):
        start = time.perf_counter()
        think_and_score(model, prompts, limit=limit)
        seconds = time.perf_counter() - start
    return seconds - sum(reading), sum(reading)


def main() -> None:
    """Measure and print."""
    repeats = option_parser(__doc__, repeats=9).parse_args().repeats
    print(environment())
    model = small_model()
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
