"""Whether a chain's mark of the subject follows from its own words.

    python -m experiments.chain_consistency [--model tiny] [--clips 160]

`Subject: asked one red cross, shown one blue cross, one right, red wrong, cross right: partly right, 1.` compares
words, so its mark and the verdict on each part follow from which words are equal. Clips are of the calibration split;
what they really show does not matter here."""

import argparse
import re
from collections import Counter

from descore import Scorer
from descore.synthetic.splits import Split, draw_example

SUBJECT = re.compile(
    r"Subject: asked (?P<asked>.*?), shown (?P<shown>.*?)(?:, (?P<parts>.*))?: .*?(?P<mark>[012])\.$", re.M
)


def main() -> None:
    """Score clips, and print how many marks and parts follow from the words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=160)
    options = parser.parse_args()
    scorer = Scorer.from_pretrained(options.model, batch_size=32)
    examples = (draw_example(Split.CALIBRATION, number, size=(128, 128)) for number in range(options.clips))
    counts = Counter[str]()
    for score in scorer.score_batch((example.clip, example.prompt) for example in examples):
        counts += consistency(score.thinking or "")
    print(f"{options.model}: of {options.clips} chains, {counts['lines']} compare several words of the subject")
    print(f"{counts['marks']} of {counts['lines']} marks follow from the words")
    print(f"{counts['right parts']} of {counts['parts']} parts are called what their words say")


def consistency(chain: str) -> Counter[str]:
    """Counts for one chain: `lines` that compare several words, `marks` that follow, `parts`, and `right parts`."""
    line = SUBJECT.search(chain)
    asked, shown = (line[side].split() if line else [] for side in ("asked", "shown"))
    if line is None or len(asked) < 2 or len(asked) != len(shown):
        return Counter()
    equal = [singular(word) == singular(other) for word, other in zip(asked, shown, strict=True)]
    mark = 2 if all(equal) else 1 if any(equal) else 0
    parts = [part.endswith(" right") for part in line["parts"].split(", ")] if line["parts"] else []
    right_parts = sum(part == same for part, same in zip(parts, equal, strict=False))
    return Counter({"lines": 1, "marks": mark == int(line["mark"]), "parts": len(parts), "right parts": right_parts})


def singular(word: str) -> str:
    """'cross' for 'crosses', 'star' for 'stars'."""
    return re.sub(r"(?<=ss)es$|(?<!s)s$", "", word)


if __name__ == "__main__":
    main()
