"""Krippendorff's alpha by hand, and the figures of raters."""

import pytest

from descore.serving.agreement import krippendorff_alpha, label_agreement, ordinal_alpha, rater_figures
from descore.serving.votes import latest_votes
from tests.serving.test_votes import PAIRS, vote_on


def units(*pairs):
    return [dict(zip(("Ann", "Bob"), pair, strict=True)) for pair in pairs]


def test_alpha_of_two_choices():
    """Values aaa bbb in three pairs, one of them split. Observed disagreement: 2 of 6. Expected: 2·3·3 of 6·5.
    1 - (2/6) / (18/30) = 4/9."""
    assert krippendorff_alpha(units(("a", "a"), ("b", "b"), ("a", "b"))) == pytest.approx(4 / 9)


def test_alpha_takes_a_tie_as_lying_between():
    """Values a 3, tie 3, b 2. Squared ordinal distances: a to tie (3/2 + 3/2)² = 9, tie to b (3/2 + 2/2)² = 6.25, a to
    b (3/2 + 3 + 2/2)² = 30.25. Observed: 2·9/8 = 2.25. Expected: 2·(3·3·9 + 3·2·6.25 + 3·2·30.25)/(8·7) = 600/56."""
    split_by_a_tie = units(("a", "tie"), ("a", "a"), ("b", "b"), ("tie", "tie"))
    assert krippendorff_alpha(split_by_a_tie) == pytest.approx(1 - 2.25 / (600 / 56))


def test_alpha_is_one_for_agreement_and_negative_for_opposites():
    assert krippendorff_alpha(units(("a", "a"), ("b", "b"))) == pytest.approx(1)
    assert krippendorff_alpha(units(("a", "b"), ("b", "a"))) < 0


def test_alpha_leaves_out_pairs_of_one_rater():
    shared = units(("a", "a"), ("b", "b"), ("a", "b"))
    assert krippendorff_alpha([*shared, {"Cid": "b"}]) == pytest.approx(4 / 9)
    assert krippendorff_alpha([{"Ann": "a"}, {"Bob": "b"}]) is None
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha(units(("a", "a"), ("a", "a"))) is None


def test_alpha_of_the_published_example():
    """Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section E: four observers, twelve units, of which
    the last has one value; ordinal alpha .815."""
    observers = (
        (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
        (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
        (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
        (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
    )
    by_unit = [[value for value in unit if value is not None] for unit in zip(*observers, strict=True)]
    assert ordinal_alpha(by_unit) == pytest.approx(0.815, abs=5e-4)
    assert ordinal_alpha([[10 * value for value in unit] for unit in by_unit]) == ordinal_alpha(by_unit)


def test_alpha_of_three_raters_weighs_a_unit_by_its_values():
    """Values aab and bb. Ordered pairs of values, each divided by the unit's values but one: of aab aa 2/2, ab 2/2, ba
    2/2; of bb bb 2/1. So a 2, b 3, and 1 - (5 - 1)·1/(2·3) = 1/3."""
    assert ordinal_alpha([[0, 0, 1], [1, 1]]) == pytest.approx(1 / 3)


def test_figures_of_labels_and_raters():
    votes = [
        vote_on(PAIRS[0], rater="Ann", choice="a", seconds=2.0),
        vote_on(PAIRS[0], rater="Bob", choice="a"),
        vote_on(PAIRS[1], rater="Ann", choice="b", seconds=4.0),
        vote_on(PAIRS[1], rater="Bob", choice="tie"),
        vote_on(PAIRS[2], rater="Ann", choice=None, skipped="unclear"),
        vote_on(PAIRS[2], rater="Cid", choice="b"),
    ]
    label = label_agreement(votes, label="overall")
    assert (label.votes, label.pairs, label.shared, label.same, label.decided) == (5, 3, 2, 0.5, 1)
    ann, bob, cid = rater_figures(votes, labels=["overall"])
    assert (ann.rater, ann.votes, ann.skipped, ann.ties, ann.left, ann.same, ann.seconds) == (
        "Ann",
        2,
        1,
        0,
        0.5,
        0.5,
        3,
    )
    assert (bob.ties, bob.left, bob.same, bob.seconds) == (0.5, 1, 0.5, None)
    assert (cid.votes, cid.same) == (1, None)


def test_a_second_vote_replaces_the_first():
    votes = [vote_on(choice="a"), vote_on(choice="b", rater="Bob"), vote_on(choice="b")]
    assert [(vote.rater, vote.choices["overall"]) for vote in latest_votes(votes)] == [("Ann", "b"), ("Bob", "b")]
