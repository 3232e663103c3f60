"""Scoring in bulk: how much faster than one call a clip, and how long the model waits for clips.

First, `write_scores` on a table of drawn clips against a loop of `Scorer.score`, with the bundled model: both read the
files and write their chains; the rewards' largest difference is printed. The aim is at least 1.5 times as fast on two
cores.

Then the same machinery with stubs in the proportions of a GPU: 0.2 s to decode a clip, in other processes, and 0.1 s a
clip for the model. The processes start while the model is opened, as on the command line. The aim is that at least 90 %
of a run is the model's.

    python -m benchmarks.bulk [--clips 200] [--repeats 2] [--workers N] [--stub-workers 4]"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.measure import environment, option_parser
from benchmarks.slow_reader import DECODE, read_stub
from descore.data.schema import read_pairs
from descore.data.write import table_writer
from descore.rewards import bulk, read_scored, write_scores
from descore.rewards.decoding import DecodingPool, default_workers
from descore.rewards.sources import open_source
from descore.scorer import Request, Scorer
from descore.types import Completion, Score

THINK = 0.1
"""Seconds a clip, of the model's stub."""


def draw_table(folder: Path, *, clips: int) -> Path:
    """A table of drawn clips, each with its prompt."""
    command = ("world", "sample", "--split", "in_domain", "--count", str((clips + 1) // 2), "--out", str(folder))
    subprocess.run([sys.executable, "-m", "descore", *command], check=True, stdout=subprocess.DEVNULL)
    pairs = read_pairs(folder / "pairs.csv", resolve=False)
    rows = [(pair.prompt, video) for pair in pairs for video in (pair.video_a, pair.video_b)]
    with table_writer(folder / "clips.csv", ("prompt", "video")) as write:
        for prompt, video in rows[:clips]:
            write({"prompt": prompt, "video": video})
    return folder / "clips.csv"


def measure_speed(folder: Path, *, clips: int, repeats: int, workers: int) -> None:
    """Time both ways in turn, and print each turn."""
    table = draw_table(folder / "drawn", clips=clips)
    scorer = Scorer.from_pretrained("tiny")
    rows = [(row.path, row.prompt) for row in open_source(table).rows()]
    scorer.score(rows[0][0], prompt=rows[0][1])  # warm
    print(f"{'loop':>8} {'bulk':>8} {'ratio':>6} {'model':>6} {'difference':>11}")
    for turn in range(repeats):
        start = time.perf_counter()
        alone = [scorer.score(video, prompt=prompt).reward for video, prompt in rows]
        loop = time.perf_counter() - start
        out = folder / f"{turn}.jsonl"
        summary = write_scores(table, out, scorer=scorer, workers=workers)
        rewards = [row.reward for row in read_scored(out)]
        assert summary.computed == len(rows), "the drawn clips are not all different"
        difference = max(abs(a - b) for a, b in zip(alone, rewards, strict=True) if b is not None)
        share = summary.model_seconds / summary.seconds
        times = f"{loop:>7.1f}s {summary.seconds:>7.1f}s"
        print(f"{times} {loop / summary.seconds:>6.2f} {share:>6.1%} {difference:>11.1e}", flush=True)


class StubScorer(Scorer):
    """Thinks for THINK seconds a clip, as a model on a GPU: this process's cores are free meanwhile."""

    def score_each(self, requests: Iterable[Request | tuple[Any, str]], **_: object) -> Iterator[Score]:
        """Scores that say nothing."""
        for request in requests:
            assert isinstance(request, Request)
            time.sleep(THINK)
            one = Completion(token_ids=[0], text="", truncated=False, verdict=None, flaw=None, rewards={"overall": 0.0})
            yield Score(
                clip=request.video,
                prompt=request.prompt,
                model=self.name,
                reward=0.0,
                score=None,
                std=None,
                completions=(one,),
            )


def measure_waiting(folder: Path, *, clips: int, workers: int) -> None:
    """Print the share of a run that is the model's."""
    table = folder / "stub.csv"
    table.write_text("prompt,video\n" + "".join(f"clip {number},{number}.mp4\n" for number in range(clips)))
    with patch.object(bulk, "read_clip", read_stub), DecodingPool(workers=workers) as pool:
        pool.start()
        scorer = StubScorer(Scorer.from_pretrained("tiny").model, name="stub")
        summary = write_scores(table, folder / "stub.jsonl", scorer=scorer, workers=pool)
    share = summary.model_seconds / summary.seconds
    least = clips * DECODE / workers
    print(f"{clips} clips, {workers} workers: {summary.seconds:.1f} s, {share:.1%} of it the model's", end=" ")
    print(f"(decoding alone takes {least:.1f} s)", flush=True)


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=2)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--stub-workers", type=int, default=4)
    options = parser.parse_args()
    print(environment())
    with tempfile.TemporaryDirectory() as name:
        measure_waiting(Path(name), clips=options.clips, workers=options.stub_workers)
        measure_speed(Path(name), clips=options.clips, repeats=options.repeats, workers=options.workers)


if __name__ == "__main__":
    main()
