"""A whole evaluation run against Scorer.score_each alone on the same clips: records, fsync, statistics, strips and
reading the run back come on top. The aim is at most 5 %.

Without thinking, scoring is fastest, so that the rest weighs most. `beside` is the share of the run's own time that is
not spent in the scorer; other work on the machine disturbs it less than the ratio.

    python -m benchmarks.evaluation_run [--repeats 2] [--pairs 64]"""

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.measure import environment, interleaved, option_parser
from descore.evaluation.benchmarks import find_benchmark, load
from descore.evaluation.judges import ModelJudge, request_of
from descore.evaluation.runs import run_evaluation
from descore.scorer import SamplingParams, Scorer


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=2)
    parser.add_argument("--pairs", type=int, default=64)
    options = parser.parse_args()
    print(environment())
    judgements = load(find_benchmark("drawn"), limit=options.pairs)
    scorer = Scorer.from_pretrained("tiny")
    print(f"{'thinking':>8} {'clips':>6} {'score_each':>11} {'the run':>8} {'ratio':>6} {'beside':>7}")
    for think in ("off", "on"):
        sampling_params = SamplingParams(think=think, max_chain_tokens=32)

        def alone(sampling_params: SamplingParams = sampling_params) -> None:
            requests = (request_of(judgements.open(clip.video), clip.prompt) for clip in judgements.clips)
            for _ in scorer.score_each(
                requests, think=sampling_params.think, max_chain_tokens=sampling_params.max_chain_tokens
            ):
                pass

        beside: list[float] = []

        def run(sampling_params: SamplingParams = sampling_params, beside: list[float] = beside) -> None:
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                judge = ModelJudge(scorer=scorer, sampling_params=sampling_params)
                result = run_evaluation(judge, judgements, folder=Path(folder), benchmark="drawn", title="Drawn scenes")
            assert not result.results["failures"], result.results["failures"][0]
            beside.append(1 - result.results["seconds"] / (time.perf_counter() - start))

        seconds = interleaved({"alone": alone, "run": run}, repeats=options.repeats)
        own, other, share = seconds["run"], seconds["alone"], statistics.median(beside[1:])
        counted = f"{think:>8} {len(judgements.clips):>6} {other:>10.2f}s {own:>7.2f}s"
        print(f"{counted} {own / other:>6.3f} {share:>7.1%}", flush=True)


if __name__ == "__main__":
    main()
