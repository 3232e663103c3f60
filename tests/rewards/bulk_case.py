"""Films of unlike lengths, tables of them, and scorers that count what they are asked."""

import csv
import json
import warnings

import numpy as np

from descore.errors import DescoreWarning
from descore.scorer import Scorer
from descore.video.encoder import write_mp4
from tests.conftest import build_micro

SAMPLED = {"max_chain_tokens": 6}


def make_films(folder, count=6):
    """Moving noise of 1 to 3 seconds and several sizes: prompts and clips of unlike lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        random = np.random.default_rng(seed)
        size = 6 * (1 + seed % 2)
        noise = random.integers(0, 256, (size, 6, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        frames = np.stack([np.roll(noise, 6 * step, axis=1) for step in range(6 * (1 + seed % 3))])
        write_mp4(folder / f"{seed}.mp4", frames, fps=6)


def prompt_of(number):
    return "a red ball rolls to the left" + " slowly" * (number % 4)


def make_table(folder, count=6, *, films=6, name="clips.csv"):
    """A table of `count` rows on the films in folder/clips, and one more column."""
    rows = [
        {"prompt": prompt_of(number), "video": f"clips/{number % films}.mp4", "take": str(number)}
        for number in range(count)
    ]
    write_rows(folder / name, rows)
    return folder / name


def write_rows(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class CountingScorer(Scorer):
    """Remembers the prompts and clips of each batch; fails when `stop_after` batches are done."""

    def __init__(self, *, dimensions=("overall",), batch_size=2, stop_after=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DescoreWarning)  # it was never trained
            super().__init__(build_micro(dimensions=dimensions), name="micro", batch_size=batch_size)
        self.batches = []
        self.stop_after = stop_after

    def score_each(self, requests, **params):
        requests = list(requests)
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append([(getattr(request.video, "source", request.video), request.prompt) for request in requests])
        return super().score_each(requests, **params)

    @property
    def asked(self):
        return [one for batch in self.batches for one in batch]
