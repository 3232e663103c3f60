"""Whether what a model concludes follows from what it says: the subject lines of its chains, held against themselves.

    python -m experiments.comparing [--model tiny] [--clips 160]

`asked one red cross, shown one blue cross, ...: partly right, 1` says itself which words are the same, so which mark is
due. A line may also name each part ("red wrong"), which must be so. Clips are of the calibration split; what they
really show does not count here."""

import argparse
import re
from collections import Counter

from descore import Scorer
from descore.synthetic.splits import Split, draw_example
from descore.types import Score

LINE = re.compile(
    r"Subject: asked (?P<asked>.*?), shown (?P<shown>.*?)(?:, (?P<parts>.*))?: .*?(?P<mark>[012])\.$", re.M
)


def main() -> None:
    """Count, and say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=160)
    options = parser.parse_args()
    scorer = Scorer.from_pretrained(options.model, batch_size=32)
    made = (draw_example(Split.CALIBRATION, number, size=(128, 128)) for number in range(options.clips))
    found = Counter[str]()
    for score in scorer.score_batch((one.clip, one.prompt) for one in made):
        found += counted(score)
    print(f"{options.model}: of {options.clips} chains, {found['lines']} compare several words of the subject")
    print(f"{found['marks']} of {found['lines']} marks follow from the words")
    print(f"{found['parts right']} of {found['parts']} parts are called what their words say")


def counted(score: Score) -> Counter[str]:
    """Of one chain."""
    line = LINE.search(score.thinking or "")
    asked, shown = (line[side].split() if line else [] for side in ("asked", "shown"))
    if line is None or len(asked) < 2 or len(asked) != len(shown):
        return Counter()
    same = [singular(one) == singular(other) for one, other in zip(asked, shown, strict=True)]
    due = 2 if all(same) else 1 if any(same) else 0
    told = [part.endswith(" right") for part in line["parts"].split(", ")] if line["parts"] else []
    agree = sum(one == other for one, other in zip(told, same, strict=False))
    return Counter({"lines": 1, "marks": due == int(line["mark"]), "parts": len(told), "parts right": agree})


def singular(word: str) -> str:
    """'cross' of 'crosses', 'star' of 'stars'."""
    return re.sub(r"(?<=ss)es$|(?<!s)s$", "", word)


if __name__ == "__main__":
    main()
