"""A subject line is consistent if its mark and parts follow from its words."""

import pytest
from experiments.chain_consistency import consistency, singular

from descore.synthetic.splits import Split, plan_example

ASKED = "Subject: asked one red cross, shown one blue cross"


@pytest.mark.parametrize(
    ("line", "marks", "right_parts"),
    [
        (f"{ASKED}, one right, red wrong, cross right: partly right, 1.", 1, 3),
        (f"{ASKED}, one right, red right, cross right: right, 2.", 0, 2),
        ("Subject: asked two stars, shown one star, two wrong, stars right: partly right, 1.", 1, 2),
    ],
)
def test_lines_by_hand(line, marks, right_parts):
    counts = consistency(f"I see something.\n{line}\nStyle: not asked.")
    assert (counts["lines"], counts["marks"], counts["right parts"]) == (1, marks, right_parts)


def test_lines_without_several_words_do_not_count():
    assert not consistency("Subject: asked circle, shown star: wrong, 0.")
    assert not consistency("no subject line")


def test_true_chains_are_consistent():
    chains = [plan_example(Split.TRAIN, index).chain for index in range(200)]
    counts = sum((consistency(chain) for chain in chains), start=consistency(""))
    assert counts["lines"] > 50
    assert counts["marks"] == counts["lines"]
    assert counts["right parts"] == counts["parts"]


def test_plurals():
    assert [singular(word) for word in ("crosses", "stars", "cross", "one")] == ["cross", "star", "cross", "one"]
