"""`--tie-margin`: accuracy with ties by a fixed rule, as VideoScore counts, beside the fitted thresholds."""

import json
import math

import numpy as np
import pytest

from descore.errors import ConfigError
from descore.evaluation.judges import config_without_chains
from descore.evaluation.runs import run_evaluation
from descore.report.page import render
from descore.stats.agreement import accuracy_with_tie_margin
from tests.cli.conftest import descore, terminal  # noqa: F401  # fixtures
from tests.evaluation.cases import FakeJudgements, FixedJudge, clip, pair

# Margins, and what people prefer: .4 is under .5, a tie as they say; .5 is not, and they say tie; -.6 is b as they say;
# .1 is a as they say, though under .5; -.49 is b, but they say a; nan has no score. Three of five are right.
MARGIN = np.array([0.4, 0.5, -0.6, 0.1, -0.49, math.nan])
PREFERENCE = np.array([0, 0, -1, 1, 1, 0])
GROUP = np.array(list("pqrstu"))


def by_margin(tie_margin):
    return accuracy_with_tie_margin(MARGIN, PREFERENCE, GROUP, tie_margin=tie_margin)


def test_a_difference_under_the_margin_is_a_tie():
    counted = by_margin(0.5)
    assert (counted.figure.value, counted.figure.n, counted.figure.failed) == (pytest.approx(3 / 5), 5, 1)
    assert (counted.tie_rate, counted.predicted_tie_rate) == (pytest.approx(2 / 5), pytest.approx(3 / 5))
    assert (counted.threshold, counted.fitted_on) == (0.5, "nothing")


@pytest.mark.parametrize(
    ("tie_margin", "right"),
    [
        (0.05, 2),  # neither tie is right
        (0.4, 2),  # .4 is not under .4
        (0.51, 4),  # both ties are
        (9.0, 4),  # and the decided pairs as before
    ],
)
def test_other_margins_by_hand(tie_margin, right):
    assert by_margin(tie_margin).figure.value == pytest.approx(right / 5)


def test_without_a_score_there_is_no_figure():
    counted = accuracy_with_tie_margin(np.array([math.nan]), np.array([1]), np.array(["p"]), tie_margin=0.5)
    assert math.isnan(counted.figure.value)
    assert math.isnan(counted.tie_rate)


@pytest.mark.parametrize("tie_margin", [0.0, -1.0, math.inf, math.nan])
def test_a_margin_that_is_no_positive_number_is_refused(tie_margin):
    with pytest.raises(ConfigError, match="expected a positive number"):
        by_margin(tie_margin)


class PlainJudge(FixedJudge):
    """Has the config of a judge that writes no chains, which a page needs."""

    @property
    def config(self):
        return config_without_chains(model=self.model, digest="d", versions={})


@pytest.fixture
def counted(tmp_path):
    """A run of two pairs, counted with a margin: rewards 1 and .7 of a tie, 2 and 0 of a."""
    clips = tuple(clip(f"v{n}", prompt="pq"[n // 2]) for n in range(4))
    judged = FakeJudgements(clips=clips, pairs=(pair("v0", "v1", "tie"), pair("v2", "v3", "a", prompt="q")))
    judge = PlainJudge({"v0": 1.0, "v1": 0.7, "v2": 2.0, "v3": 0.0})

    def count(tie_margin):
        return run_evaluation(
            judge, judged, folder=tmp_path / "run", benchmark="own", title="Own", tie_margin=tie_margin
        )

    return count, judge


def test_a_run_is_counted_again_without_scoring(counted):
    count, judge = counted
    figures = count(0.5).results["labels"]["overall"]
    assert figures["with_tie_margin"]["figure"]["value"] == 1.0
    assert len(judge.judged_videos) == 4
    assert count(0.2).results["labels"]["overall"]["with_tie_margin"]["figure"]["value"] == 0.5
    again = count(None).results["labels"]["overall"]
    assert again["with_tie_margin"] is None
    assert again["with_ties"] == figures["with_ties"]
    assert len(judge.judged_videos) == 4


def test_the_page_shows_it_where_it_was_asked_for(counted):
    count, _ = counted
    assert ">Margin<" not in render([count(None)])
    page = render([count(0.5)])
    assert ">Margin<" in page
    assert '1.000 <span class="range">&lt; 0.5</span>' in page


def test_the_command_line(descore, tmp_path):  # noqa: F811
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_text("")
    (tmp_path / "own.csv").write_text("prompt,video_a,video_b,preference\np,a.mp4,b.mp4,tie\nq,a.mp4,b.mp4,a\n")
    (tmp_path / "scores.csv").write_text("video,prompt,reward\na.mp4,p,1\nb.mp4,p,.7\na.mp4,q,2\nb.mp4,q,0\n")
    command = ("evaluate", "--scores", tmp_path / "scores.csv", "-b", tmp_path / "own.csv", "-o", tmp_path / "run")
    shown = descore(*command, "--tie-margin", 0.5)
    assert shown.exit_code == 0
    assert "margin 0.5" in shown.stdout
    assert "ties are right where rewards differ by less than 0.5" in " ".join(shown.stdout.split())
    results = json.loads(descore(*command, "--tie-margin", 0.2, "--json").stdout)
    assert results["labels"]["overall"]["with_tie_margin"]["figure"]["value"] == 0.5
    refused = descore(*command, "--tie-margin", 0)
    assert (refused.exit_code, refused.stderr.count("\n")) == (3, 1)
    assert "--tie-margin is 0; expected a positive number" in refused.stderr
