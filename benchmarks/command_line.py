"""`descore score` on a five-second 720p file, with start-up, and where the time goes. The aim is at most 10 seconds.

The whole command is timed as a user runs it, in processes of its own; the stages in one more process, one after
another.

    python -m benchmarks.command_line [--repeats 3]"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import environment, option_parser
from benchmarks.read_clip import CASES, write_file

PROMPT = "a yellow star moving to the left in the night sky"

STAGES = """
import json, sys, time
start = time.perf_counter()
def lap(name):
    global start
    now = time.perf_counter(); laps.append((name, now - start)); start = now
laps = []
import torch; lap("import torch")
import descore.model; lap("import torchvision")
from descore import Scorer; lap("import transformers and descore")
scorer = Scorer.from_pretrained("tiny"); lap("open the model")
from descore.scorer import Request
clip = scorer.read(Request(video=sys.argv[1], prompt=sys.argv[2])); lap("read the clip")
off = scorer.score(clip, prompt=sys.argv[2], think="off"); lap("look and score without thinking, the first forward")
on = scorer.score(clip, prompt=sys.argv[2]); lap(f"think and score, {on.typical.num_tokens} tokens")
print(json.dumps(laps))
"""


def main() -> None:
    """Measure and print."""
    repeats = option_parser(__doc__, repeats=3).parse_args().repeats
    print(environment())
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "five-seconds.mp4"
        write_file(video, CASES[0])
        command = [sys.executable, "-m", "descore", "score", str(video), "--prompt", PROMPT]
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        print(f"descore score: {statistics.median(seconds[1:]):.2f} s (the first time {seconds[0]:.2f} s)")
        stages = subprocess.run([sys.executable, "-c", STAGES, str(video), PROMPT], check=True, capture_output=True)
        for name, spent in json.loads(stages.stdout.splitlines()[-1]):
            print(f"  {spent:6.2f} s  {name}")


if __name__ == "__main__":
    main()
