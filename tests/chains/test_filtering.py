import re

import pytest

from descore.chains.filtering import FilterConfig, filter_candidates, filter_row
from descore.chains.records import RequestFault
from descore.config_model import SettingsError
from descore.errors import ConfigError
from tests.chains.made import PROSE, made_candidate, made_chain, pair_source, source_of

RUBRIC = "Judge whether the video shows: {prompt}"
PREFIX = '<answer>{"dimensional_scores": {"subject": 2, "dynamics": 1, "camera": 1, "environment": 0'


def couples(*overalls, row=0):
    """A candidate for a and b of each pair of overalls."""
    return [
        made_candidate(made_chain(overall), row=row, side=side, number=number)
        for number, both in enumerate(overalls)
        for side, overall in zip("ab", both, strict=True)
    ]


def filtered(source, candidates, **settings):
    ordered = sorted(candidates, key=lambda c: (c.side or "", c.number))
    return filter_row(source.rows[0], ordered, FilterConfig(**settings), rubric=RUBRIC)


def steps(result):
    return {(c.candidate.side, c.candidate.number): c.step for c in result.chains}


def kept_numbers(result):
    return [couple[0].candidate.number for couple in result.couples]


@pytest.mark.parametrize(
    ("candidate", "step", "reason"),
    [
        (made_candidate(None, error=RequestFault(kind="server", message="500")), "answer", "server: 500"),
        (made_candidate("A red ball."), "format", "no <answer>"),
        (made_candidate("A red ball. <answer>{", finish="length"), "format", r"was cut off"),
        (made_candidate(made_chain() + " And more."), "format", "9 characters behind the answer"),
        (made_candidate(made_chain(prose="A red ball.")), "length", "3 words; expected 10 to 700"),
        (
            made_candidate(made_chain(prose=""), thinking="long"),
            "length",
            "0 words; expected .* its reasoning came apart from the answer",
        ),
        (made_candidate(f'{PROSE}\n{PREFIX}}}, "overall_score": 3}}</answer>'), "marks", "no mark for 'style'"),
        (made_candidate(f'{PROSE}\n{PREFIX}, "style": 4}}, "overall_score": 3}}</answer>'), "marks", "'style' is 4"),
        (made_candidate(made_chain(marks=(None,) * 5)), "marks", "all five marks are N/A"),
        (made_candidate(made_chain(prose="nice and sharp " * 9)), "grounding", "names no thing"),
    ],
)
def test_each_step_rejects_with_its_reason(tmp_path, candidate, step, reason):
    (chain,) = filtered(pair_source(tmp_path, "a"), [candidate]).chains
    assert chain.step == step
    assert re.search(reason, chain.reason)


def test_a_rejected_chain_is_kept_as_it_came(tmp_path):
    text = "  A red ball. \n"
    (chain,) = filtered(pair_source(tmp_path, "a"), [made_candidate(text)]).rejected
    assert chain.candidate.text == text


@pytest.mark.parametrize(
    ("preference", "overalls", "settings", "kept"),
    [
        ("a", (4.0, 3.0), {}, True),
        ("b", (4.0, 3.0), {}, False),
        ("a", (3.0, 3.0), {}, False),  # higher, not equal
        ("a", (3.3, 3.0), {"margin": 0.3}, True),  # 3.3 - 3.0 is 0.2999... in binary
        ("a", (3.2, 3.0), {"margin": 0.3}, False),
        ("tie", (3.5, 3.0), {}, True),
        ("tie", (3.6, 3.0), {}, False),
        ("b", (4.0, 3.0), {"agreement": False}, True),
        (None, (4.0, 3.0), {}, True),  # nobody said anything
    ],
)
def test_a_pair_agrees_with_its_label(tmp_path, preference, overalls, settings, kept):
    result = filtered(pair_source(tmp_path, preference), couples(overalls), **settings)
    assert bool(result.couples) is kept
    assert set(steps(result).values()) == {None if kept else "agreement"}
    assert result.labelled is (preference is not None and settings.get("agreement", True))


@pytest.mark.parametrize(
    ("rating", "overall", "settings", "kept"),
    [
        (4.0, 3.0, {}, True),
        (4.1, 3.0, {}, False),
        (4.1, 3.0, {"tolerance": 1.2}, True),
        (100, 5.0, {"rating_range": [0, 100]}, True),
        (25, 2.0, {"rating_range": [0, 100], "tolerance": 0}, True),  # a quarter of 0 to 100 is a quarter of 1 to 5
        (25, 2.1, {"rating_range": [0, 100], "tolerance": 0}, False),
    ],
)
def test_a_rated_clip_agrees_within_d(tmp_path, rating, overall, settings, kept):
    source = source_of(tmp_path, [{"prompt": "p", "video": "v.mp4", "rating": rating}])
    result = filtered(source, [made_candidate(made_chain(overall), side=None)], **settings)
    assert bool(result.couples) is kept


def test_a_rating_outside_of_its_range_is_refused(tmp_path):
    source = source_of(tmp_path, [{"prompt": "p", "video": "v.mp4", "rating": 80}])
    with pytest.raises(ConfigError, match=r"row 1 of the table is rated 80, outside of filters.rating_range \[1, 5\]"):
        filtered(source, [made_candidate(made_chain(), side=None)])


def test_the_label_is_the_overall_a_named_one_or_the_mean_of_all(tmp_path):
    row = {"prompt": "p", "video_a": "a", "video_b": "b", "preference.VQ": "a", "preference.MQ": "b"}
    for columns, settings, kept in (
        ({"preference.TA": "a"}, {}, True),
        ({"preference.TA": "b"}, {}, False),
        ({"preference.TA": "b"}, {"label": "VQ"}, True),
        ({"preference.TA": "b", "preference": "a"}, {}, True),
        ({}, {}, False),  # one for a, one for b: a tie
    ):
        source = source_of(tmp_path, [row | columns])
        assert bool(filtered(source, couples((4.0, 3.0)), **settings).couples) is kept, (columns, settings)
    with pytest.raises(ConfigError, match=r"filters.label is 'speed', of which the table has no column"):
        filtered(source, couples((4.0, 3.0)), label="speed")


def test_survivors_are_coupled_in_their_order(tmp_path):
    source = pair_source(tmp_path, "a")
    candidates = [*couples((4.0, 3.0), (2.0, 3.0), (5.0, 1.0))]
    candidates[0] = made_candidate("no answer", side="a", number=0)  # a's second meets b's first
    result = filtered(source, candidates, choice="all")
    assert [[chain.candidate.number for chain in couple] for couple in result.compared] == [[1, 0], [2, 1]]
    assert steps(result) == {
        ("a", 0): "format",
        ("a", 1): "agreement",  # 2 against 3
        ("b", 0): "agreement",
        ("a", 2): None,  # 5 against 3
        ("b", 1): None,
        ("b", 2): "agreement",  # no chain of a is left
    }
    assert "no chain of the other clip" in result.chains[-1].reason


def long(words):
    return PROSE + " It goes on" + " so" * (words - len(PROSE.split()) - 3)


@pytest.mark.parametrize(
    ("choice", "kept"),
    [("shortest", [1]), ("median", [2]), ("nearest", [3]), ("all", [0, 1, 2, 3])],
)
def test_the_choice_among_those_that_agree(tmp_path, choice, kept):
    given = [(60, 3.5), (30, 3.2), (40, 3.4), (50, 4.9)]  # words, and the overall of a beside 3.0 of b
    candidates = [
        made_candidate(made_chain(overall if side == "a" else 3.0, prose=long(words)), side=side, number=number)
        for number, (words, overall) in enumerate(given)
        for side in "ab"
    ]
    result = filtered(pair_source(tmp_path, "a"), candidates, choice=choice, most_repeated=1.0)
    assert kept_numbers(result) == kept
    others = set(range(4)) - set(kept)
    assert {(chain.candidate.number, chain.step) for chain in result.rejected} == {(n, "choice") for n in others}


def test_the_nearest_of_rated_pairs_is_nearest_to_the_ratings(tmp_path):
    source = pair_source(tmp_path, "a", rating_a=[3.4], rating_b=[3.0])
    result = filtered(source, couples((5.0, 1.0), (3.5, 3.0), (4.0, 3.0)), choice="nearest")
    assert kept_numbers(result) == [1]


def test_rows_come_one_at_a_time(tmp_path):
    source = pair_source(tmp_path, "a", "b")
    asked = []

    def candidates_of(row):
        asked.append(row)
        return couples((4.0, 3.0), row=row)

    outcomes = filter_candidates(source.rows, candidates_of, FilterConfig(), rubric=RUBRIC)
    assert next(outcomes).couples
    assert asked == [0]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"min_words": 20, "max_words": 10}, "min_words is above max_words"),
        ({"rating_range": [5, 1]}, "rating_range is .*expected the lowest"),
        ({"weak_marks": {"VQ": "style", "IQ": "style"}}, "gives style twice"),
        ({"weak_marks": {"VQ": "looks"}}, "weak_marks"),
        ({"choice": "best"}, "one of shortest, median, nearest, all"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, fault):
    with pytest.raises(SettingsError, match=fault):
        FilterConfig(**settings)
