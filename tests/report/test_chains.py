"""The page of sampled chains says what the records say, counts the last writing of each, and takes any text."""

import pytest
from tests.report.made_runs import HOSTILE
from tests.report.test_page import Page

from descore.report.page import MAX_CHAIN_PAIRS, pairs_of_chains, render_chains

MARKS = {"subject": 2, "dynamics": 1, "camera": None, "environment": 2, "style": 0}


def record(step=1, side="a", sample=0, **more):
    return {
        "step": step,
        "pair": 7,
        "prompt": "a red ball",
        "preference": "a",
        "side": side,
        "video": f"/films/{side}.mp4",
        "reference_marks": MARKS,
        "sample": sample,
        "chain": f"I see a ball, {sample}.",
        "tokens": 9,
        "truncated": False,
        "marks": MARKS,
        "overall": 3.5,
        "rewards": [0.25],
        "parts": {"quality": 0.8, "format": 1.0},
        "rollout_reward": 0.1 * sample,
        "advantage": -0.5,
        **more,
    }


@pytest.fixture(scope="module")
def records():
    return [record(side=side, sample=sample) for side in "ab" for sample in range(3)]


def test_the_page_shows_the_records(records):
    page = Page(render_chains(records, title="trial"))
    for expected in (
        "a red ball",
        "films/a.mp4",
        "✓ people prefer this clip",
        "not asked",
        "quality",
        ".80",
        "−.50",
        "+.25",
    ):
        assert expected in page.text
    assert page.text.count("✓ people prefer this clip") == 1


def test_only_marks_that_differ_from_the_reference_are_flagged(records):
    """One of five: style is partly here, and wrong in the reference. What is not asked may be the one that differs."""
    page = Page(render_chains([record(marks={**MARKS, "style": 1})], title="trial"))
    off = [attributes for tag, attributes in page.elements if tag == "td" and "off" in attributes.get("class", "")]
    assert [(one["class"], one["title"]) for one in off] == [("m1 off", "the reference mark is: wrong")]
    assert "≠ partly" in page.text
    page = Page(render_chains([record(marks={**MARKS, "subject": None})], title="trial"))
    assert "≠ not asked" in page.text
    for same in (records, [record(reference_marks=None, marks={**MARKS, "style": 1})]):
        assert '"m1 off"' not in render_chains(same, title="trial")


def test_known_weights_stand_beside_their_parts(records):
    text = Page(render_chains(records, title="trial", weights={"quality": 0.7, "length": 0.2})).text
    assert "quality × 0.7format" in text  # two cells, one behind the other
    assert "×" not in Page(render_chains(records, title="trial")).text


def test_the_best_chain_is_first_and_the_last_record_counts(records):
    rewritten = [
        *records,
        record(side="a", sample=0, rollout_reward=0.9),
        record(side="b", sample=1, rollout_reward=None),
    ]
    [view] = pairs_of_chains(rewritten)
    assert [[chain["sample"] for chain in side.chains] for side in view.sides] == [[0, 2, 1], [2, 0, 1]]


def test_the_newest_pairs_come_first_up_to_a_limit():
    many = [record(step=step) for step in range(1, MAX_CHAIN_PAIRS + 6)]
    text = Page(render_chains(many, title="trial")).text
    assert "Older pairs are in chains.jsonl." in text
    assert text.index(f"step {MAX_CHAIN_PAIRS + 5}") < text.index(f"step {MAX_CHAIN_PAIRS + 4}")
    assert "step 5\n" not in text


def test_a_chain_without_marks_or_reward_is_flagged():
    bare = record(
        marks=None, overall=None, rewards=[None], parts={}, rollout_reward=None, truncated=True, preference=None
    )
    text = Page(render_chains([{**bare, "reference_marks": None}], title="trial")).text
    assert "Its answer cannot be read." in text
    assert "It was cut off at the limit." in text
    assert "people prefer" not in text


def test_no_text_becomes_markup(records):
    hostile = [{**r, "chain": HOSTILE, "prompt": HOSTILE, "video": HOSTILE} for r in records]
    html = render_chains(hostile, title=HOSTILE)
    plain = Page(render_chains(records, title="trial"))
    assert [tag for tag, _ in Page(html).elements] == [tag for tag, _ in plain.elements]
    assert html == render_chains(hostile, title=HOSTILE)


def test_a_page_without_chains_says_so():
    assert "No chain was kept" in Page(render_chains([], title="trial")).text
