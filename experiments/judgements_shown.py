"""Three right and three wrong judgements of the bundled model, as pictures: the first ones of the in-domain split.

    python -m experiments.judgements_shown [--model tiny]

Writes docs/right.png and docs/wrong.png. Nothing is chosen by eye."""

import argparse
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from descore import Scorer
from descore.report.card import Section, draw_page
from descore.rubric import mark_text
from descore.synthetic.splits import Example, PairExample, Split, pair
from descore.types import DIMENSIONS, Score

DOCS = Path(__file__).parent.parent / "docs"
SHOWN = 3
SIZE = (128, 128)


def main() -> None:
    """Judge pairs in their order until there are enough of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    scorer = Scorer.from_pretrained(parser.parse_args().model)
    found: dict[bool, list[Section]] = {True: [], False: []}
    for number in count():
        made = pair(Split.IN_DOMAIN, number, size=SIZE)
        if made.preference == "tie":
            continue
        scores = [scorer.score(side.clip, prompt=side.prompt) for side in (made.a, made.b)]
        right = (scores[0].reward > scores[1].reward) == (made.preference == "a")
        if len(found[right]) < SHOWN:
            found[right].append(section(number, made, scores))
        if min(map(len, found.values())) == SHOWN:
            break
    for right, name in ((True, "right"), (False, "wrong")):
        page = draw_page(found[right], title=f"Judged {name}: the first {SHOWN} such pairs of the in-domain split")
        page.save(DOCS / f"{name}.png")
        print(DOCS / f"{name}.png")


def section(number: int, made: PairExample, scores: Sequence[Score]) -> Section:
    """Both clips, the better rewarded first, and the truth about them."""
    both = sorted(zip(scores, (made.a, made.b), strict=True), key=lambda each: -each[0].reward)
    truths = "; ".join(f"clip {place}: {truth(example)}" for place, (_, example) in enumerate(both, start=1))
    return Section(title=f"Pair {number}", note=f"In truth, {truths}.", scores=[s for s, _ in both], ranked=True)


def truth(example: Example) -> str:
    """`overall 4.20, subject 1, dynamics 2, camera N/A, environment 2, style 2`."""
    marks = example.verdict.marks
    told = ", ".join(f"{name} {mark_text(marks[name])}" for name in DIMENSIONS)
    return f"overall {example.verdict.overall:.2f}, {told}"


if __name__ == "__main__":
    main()
