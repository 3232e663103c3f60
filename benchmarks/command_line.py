"""`descore score` on a five-second 720p file, start-up included, and where the time goes. At most 10 seconds is asked.

The whole command is timed as a user runs it, in processes of its own; the stages in one more process, one after
another.

    python benchmarks/command_line.py [--repeats 3]"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _bench import environment
from read_clip import CASES, write_file

PROMPT = "a yellow star moving to the left in the night sky"

STAGES = """
import json, sys, time
start = time.perf_counter()
def lap(name):
    global start
    now = time.perf_counter(); found.append((name, now - start)); start = now
found = []
import torch; lap("import torch")
import descore.model; lap("import torchvision")
from descore import Scorer; lap("import transformers and descore")
scorer = Scorer.from_pretrained("tiny"); lap("open the model")
from descore.scorer import Request
clip = scorer.read(Request(video=sys.argv[1], prompt=sys.argv[2])); lap("read the clip")
off = scorer.score(clip, prompt=sys.argv[2], think="off"); lap("look and score without thinking, the first forward")
on = scorer.score(clip, prompt=sys.argv[2]); lap(f"think and score, {on.typical.num_tokens} tokens")
print(json.dumps(found))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(environment())
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "five-seconds.mp4"
        write_file(film, CASES[0])
        command = [sys.executable, "-m", "descore", "score", str(film), "--prompt", PROMPT]
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        print(f"descore score: {statistics.median(seconds[1:]):.2f} s (the first time {seconds[0]:.2f} s)")
        stages = subprocess.run([sys.executable, "-c", STAGES, str(film), PROMPT], check=True, capture_output=True)
        for name, spent in json.loads(stages.stdout.splitlines()[-1]):
            print(f"  {spent:6.2f} s  {name}")


if __name__ == "__main__":
    main()
