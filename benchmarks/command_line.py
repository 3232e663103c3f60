"""`descore score` on a five-second 720p file, with start-up, and where the time goes: seconds on the clock and of CPU
(user and system). The aim is at most 10 seconds on the clock.

The whole command is timed as a user runs it, in processes of its own. So is its start-up: the same command with a
clip that is not there, which ends where reading begins. The stages are timed in one more process, one after another.
--against times another commit too, in turn with this one.

    python -m benchmarks.command_line [--repeats 3] [--against REV]"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import environment, option_parser
from benchmarks.read_clip import CASES, write_file
from descore.errors import VideoError

PROMPT = "a yellow star moving to the left in the night sky"
ROOT = Path(__file__).resolve().parents[1]

STAGES = """
import json, sys, time
start = time.perf_counter(), time.process_time()
laps = []
def lap(name):
    global start
    now = time.perf_counter(), time.process_time()
    laps.append((name, now[0] - start[0], now[1] - start[1]))
    start = now
import torch; lap("import torch")
import descore.model; from descore import Scorer; Scorer; lap("import torchvision, transformers and descore")
scorer = Scorer.from_pretrained("tiny"); lap("open the model")
from descore.scorer import Request
clip = scorer.read(Request(video=sys.argv[1], prompt=sys.argv[2])); lap("read the clip")
scorer.score(clip, prompt=sys.argv[2], think="off"); lap("score without thinking, the first forward")
scorer.score(clip, prompt=sys.argv[2]); lap("think and score")
print(json.dumps(laps))
"""

Spent = tuple[float, float]
"""Seconds on the clock, and of CPU."""


def run(arguments: Sequence[str], source: Path) -> tuple[Spent, bytes]:
    """Run Python on the package in `source`: what it took, and what it printed."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, env=env)
    if done.returncode not in (0, VideoError.exit_code):
        raise SystemExit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (time.perf_counter() - start, cpu), done.stdout


@contextmanager
def sources(against: str | None) -> Iterator[Mapping[str, Path]]:
    """By name, the packages to time; that of another commit in a git worktree for as long as it is needed."""
    if against is None:
        yield {"this tree": ROOT / "src"}
        return
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", other, against], check=True)
        try:
            yield {against: other / "src", "this tree": ROOT / "src"}
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", other], check=True)


def in_turn(arguments: Sequence[str], packages: Mapping[str, Path], repeats: int) -> Iterator[tuple[str, Spent]]:
    """Median seconds for each package, after one run to warm up; they take turns, so that a disturbance hits all."""
    spent: dict[str, list[Spent]] = {name: [] for name in packages}
    for _ in range(repeats + 1):
        for name, source in packages.items():
            spent[name].append(run(arguments, source)[0])
    for name, runs in spent.items():
        clock, cpu = zip(*runs[1:], strict=True)
        yield name, (statistics.median(clock), statistics.median(cpu))


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__, repeats=3)
    parser.add_argument("--against", metavar="REV", help="another commit to time")
    options = parser.parse_args()
    print(environment())
    with tempfile.TemporaryDirectory() as folder, sources(options.against) as packages:
        video = Path(folder) / "five-seconds.mp4"
        write_file(video, CASES[0])
        for part, clip in (("start-up of descore score", Path(folder) / "absent.mp4"), ("descore score", video)):
            command = ["-m", "descore", "score", str(clip), "--prompt", PROMPT]
            for name, (clock, cpu) in in_turn(command, packages, options.repeats):
                print(f"{part}, {name}: {clock:.2f} s, {cpu:.2f} s of CPU")
        for name, source in packages.items():
            print(f"stages, {name}: seconds, and of CPU")
            for stage, clock, cpu in json.loads(run(["-c", STAGES, str(video), PROMPT], source)[1].splitlines()[-1]):
                print(f"  {clock:6.2f} {cpu:6.2f}  {stage}")


if __name__ == "__main__":
    main()
