"""The page of a scored table: failures first, one axis for all sources, bounded, and any text."""

import re

import numpy as np
import pytest
from tests.conftest import noise_clip
from tests.report.made_runs import HOSTILE
from tests.report.test_page import Page, words

from descore.report.cards import MAX_FAILED, MAX_SOURCES, render_scored
from descore.rewards.overview import ScoredOverview, ShownClip, ShownPrompt
from descore.rewards.ranking import Lead, LeftOut
from descore.rewards.scored import ScoredRow
from descore.rubric import write_answer
from descore.types import DIMENSIONS, Verdict

VERDICT = Verdict(marks=dict.fromkeys(DIMENSIONS, 2), overall=5.0)
CHAIN = f"It rolls.\n{write_answer(VERDICT)}"
LEAD = Lead(margin=2.0, deviations=0.5, probability=0.88, low=-1.0, high=5.0)


def shown(name, reward, *, chain=CHAIN, error="", **more):
    row = ScoredRow(prompt="p", video=name, reward=reward, chain=chain, model="tiny", samples=1, **more)
    return ShownClip(row=row, name=name, clip=None if error else noise_clip(1), error=error)


def overview(**more):
    prompt = ShownPrompt(
        prompt="a ball rolls",
        group="",
        clips=3,
        best=shown("x/clips/a.mp4", 3.0, std=0.5, score=1.25),
        worst=shown("b.mp4", 1.0, error="no such file", truncated=True, chain="It ro"),
        lead=LEAD,
    )
    known = {"table": "scores.csv", "model": "tiny", "rows": 4, "left_out": (), "prompts": (prompt,), "of_prompts": 1}
    known |= {"column": "source", "rewards": {"wan": np.array([1.0, 3.0]), "svd": np.array([2.0])}, "failed": {}}
    return ScoredOverview(**known | more)


def test_best_and_worst_with_frames_chains_and_doubt():
    html = render_scored(overview())
    text = words(html)
    for expected in (
        "3 clips; the best is ahead of the worst by 2.000 (0.50 deviations), and preferred with probability 0.88. No",
        "reward +3.00 ± 0.50",
        "score +1.25",
        "clips/a.mp4",
        "It rolls.",
        "not shown: no such file",
        "the thinking was cut off",
        "no marks could be read",
        "All 4 clips have a reward.",
    ):
        assert expected in text
    assert "<answer>" not in text
    assert html.count("<img ") == 4  # of the best one's frames
    assert render_scored(overview()) == html


def test_failures_come_first_and_are_bounded():
    left_out = [
        LeftOut(number=k, video=f"{k}.mp4", prompt="p", reason="damaged", failed=k > 0) for k in range(MAX_FAILED + 4)
    ]
    html = render_scored(overview(left_out=tuple(left_out), failed={"wan": MAX_FAILED + 3}, rows=20))
    text = words(html)
    assert text.index("5 of 20 clips have a reward, 15 have none.") < text.index("Rewards by source")
    assert "and 3 more" in text
    assert f"{MAX_FAILED}.mp4" in text
    assert f"{MAX_FAILED + 1}.mp4" not in text
    assert "1 rows are left out of the rankings, such as 0.mp4" in text
    assert "15 without a reward" in text


def test_sources_share_one_axis_and_are_bounded():
    rewards = {f"source {k}": np.array([float(k), k + 0.5]) for k in range(MAX_SOURCES + 2)}
    html = render_scored(overview(rewards=rewards))
    page = Page(html)
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == MAX_SOURCES
    assert "and 2 more values of source" in words(html)
    assert len(set(re.findall(r'<g class="axes">.*?clips</text>', html))) <= 2  # by the height alone


def test_the_number_of_prompts_is_stated():
    assert "The best and worst clips of the first 1 of 40 prompts are shown." in words(
        render_scored(overview(of_prompts=40))
    )
    assert "are shown" not in words(render_scored(overview()))


def test_a_single_clip_and_a_table_without_rewards():
    alone = ShownPrompt(prompt="p", group="g", clips=1, best=shown("a.mp4", 1.0, chain=None), worst=None, lead=None)
    text = words(render_scored(overview(prompts=(alone,))))
    assert "Group g. A single clip, and nothing to rank it against." in text
    assert "(scored without thinking)" in text
    Page(render_scored(overview(prompts=(), of_prompts=0, rewards={}, failed={"wan": 4})))


@pytest.mark.parametrize("place", ["prompt", "chain", "name", "source", "reason"])
def test_hostile_text_stays_text(place):
    text = {name: HOSTILE if name == place else name for name in ("prompt", "chain", "name", "source", "reason")}
    prompt = ShownPrompt(
        prompt=text["prompt"],
        group=text["prompt"] + "g",
        clips=1,
        worst=None,
        lead=None,
        best=shown(text["name"], 1.0, chain=text["chain"]),
    )
    left_out = LeftOut(number=0, video=text["name"], prompt="p", reason=text["reason"], failed=True)
    html = render_scored(
        overview(
            prompts=(prompt,),
            left_out=(left_out,),
            failed={"wan": 1},
            rewards={text["source"]: np.array([1.0])},
        )
    )
    Page(html)
    assert "<script" not in html
    assert "onerror=" not in html.replace("onerror=alarmed=true&gt;", "")
