"""A stress test concludes nothing from fewer than five clips: not on the terminal, not in JSON, not on the page."""

import json
import re

import pytest
from rich.console import Console

from descore.cli.evaluation_output import _show_stress, print_stress
from descore.evaluation.judges import config_without_chains
from descore.evaluation.records import plain_record, to_plain
from descore.evaluation.stress import run_stress
from descore.report.page import render
from descore.video.sampling import VideoSampling
from tests.evaluation.cases import FakeJudgements, FixedJudge, clip
from tests.report.made_runs import made_stress
from tests.report.test_page import section, words

SAMPLING = VideoSampling(fps=1.0, min_frames=1, max_frames=8, min_pixels=1, max_pixels=64 * 64, size_multiple=1)
CONFIG = {**config_without_chains(model="m", digest="d", versions={}), "benchmark": None}


class BrightnessJudge(FixedJudge):
    """The mean of all pixels: a shuffle of the frames changes nothing, so it is never as expected."""

    def judge(self, clips, *, open_video):
        return [
            plain_record(clip, model="m", rewards={"overall": float(open_video(clip.video).frames.mean())})
            for clip in clips
        ]


def results_of_clips(count):
    clips = tuple(clip(f"v{number}", group=str(number)) for number in range(count))
    return run_stress(BrightnessJudge({}), FakeJudgements(clips=clips, pairs=()), sampling=SAMPLING)


@pytest.fixture(scope="module")
def four():
    return results_of_clips(4)


@pytest.fixture(scope="module")
def five():
    return results_of_clips(5)


def terminal(results):
    screen = Console(width=80, force_terminal=False)
    with screen.capture() as capture:
        _show_stress(screen, results, CONFIG, None)
    return " ".join(capture.get().split())


def row(results, name):
    return next(row for row in results.rows if row.perturbation == name)


def test_four_clips_conclude_nothing(four):
    assert row(four, "frames shuffled").n == 4
    assert row(four, "frames shuffled").figure.value == 0
    assert {row.as_expected for row in four.rows} == {None}
    text = terminal(four)
    assert "Not as expected" not in text
    assert re.search(r"Too few clips to conclude from \(under 5\): .*frames shuffled", text)


def test_five_clips_conclude(five):
    assert row(five, "frames shuffled").as_expected is False
    assert row(five, "flattery in the prompt").as_expected is True  # the prompt changes no pixel
    text = terminal(five)
    assert re.search(r"Not as expected for most clips: .*frames shuffled", text)
    assert "Too few" not in text


def test_json_says_so(four, five, capsys):
    shown = {}
    for results in (four, five):
        print_stress(results, CONFIG, file=None, json=True)
        rows = map(json.loads, capsys.readouterr().out.splitlines())
        shown[results.clips] = {row["perturbation"]: row["as_expected"] for row in rows}
    assert set(shown[4].values()) == {None}
    assert shown[5]["frames shuffled"] is False


@pytest.mark.parametrize("old", [False, True], ids=["of now", "of an older version"])
def test_the_page_says_so(four, five, old):
    pages = []
    for results in (four, five):
        record = {**CONFIG, **to_plain(results)}
        if old:
            record["rows"] = [{k: v for k, v in row.items() if k != "as_expected"} for row in record["rows"]]
        pages.append(section(render([], stress=[record]), "stress"))
    few, enough = pages
    assert few.count('<td>4 <span class="tag">too few') == sum(row.n == 4 for row in four.rows)
    assert "<svg" not in few
    assert "Too few clips to conclude from: 5 or more" in words(few)
    assert "Not as expected" not in words(few)
    assert re.search(r"Not as expected for most clips: .*frames shuffled", words(enough))
    assert "<svg" in enough


def test_a_page_names_what_is_not_as_expected():
    text = words(section(render([], stress=[made_stress()]), "stress"))
    assert "Not as expected for most clips: flattering words in the prompt" in text
