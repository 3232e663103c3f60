"""A run survives being killed, is never mixed with another, and reads back as it was."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image
from tests.conftest import noise_clip
from tests.evaluation.cases import GOOD, FixedJudge, clip, four_clips

from descore.errors import ConfigError, DataError, VideoError
from descore.evaluation.runs import read_run, run_evaluation, thumbnail
from descore.io import lock_directory
from descore.types import SideAnnotations


class Killed(BaseException):
    """Stands in for the end of the process: nothing of ours catches it."""


def run(judge, folder, *, judged=None, **options):
    options = {"benchmark": "four", "title": "Four clips", **options}
    return run_evaluation(judge, judged or four_clips(), folder=folder, **options)


def lines(folder):
    return (folder / "clips.jsonl").read_text().splitlines()


def test_a_run_reads_back_as_it_was(tmp_path):
    published = [{"model": "m", "label": "overall", "figure": "accuracy", "value": 0.7, "source": "s"}]
    result = run(FixedJudge(GOOD), tmp_path / "run", published=published)
    judged = four_clips()
    assert (result.clips, result.pairs) == (judged.clips, judged.pairs)
    assert (result.folder_name, result.title, result.published) == ("run", "Four clips", published)
    assert result.records["v3", "q"]["rewards"] == {"overall": 1.0}
    assert result.results["labels"]["overall"]["accuracy"]["value"] == 1.0
    assert result.config["benchmark"] == "four"
    assert result == read_run(tmp_path / "run")


def test_annotations_of_pairs_change_no_run(tmp_path):
    """Runs that began before pairs had annotations can be resumed."""
    run(FixedJudge(GOOD), tmp_path / "plain")
    judged = four_clips()
    judged.pairs = tuple(replace(pair, a=SideAnnotations(chain="I see."), line=2) for pair in judged.pairs)
    run(FixedJudge(GOOD), tmp_path / "annotated", judged=judged)
    plain, annotated = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("plain", "annotated"))
    assert plain["labels"] == annotated["labels"]
    assert (tmp_path / "plain" / "labels.json").read_text() == (tmp_path / "annotated" / "labels.json").read_text()


def test_each_clip_is_scored_once_however_many_pairs_hold_it(tmp_path):
    judged, judge = four_clips(), FixedJudge(GOOD)
    judged.pairs *= 5
    run(judge, tmp_path, judged=judged)
    assert judge.judged_videos == ["v0", "v1", "v2", "v3"]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    def die(count):
        if count > 2:
            raise Killed

    with pytest.raises(Killed):
        run(FixedJudge(GOOD, after=die), tmp_path)
    before = lines(tmp_path)
    with pytest.raises(DataError, match=r"not finished; give its command again"):
        read_run(tmp_path)
    progress = []
    judge = FixedJudge(GOOD)
    run(judge, tmp_path, on_progress=lambda done, total: progress.append((done, total)))
    assert judge.judged_videos == ["v2", "v3"]
    assert lines(tmp_path)[:2] == before
    assert progress == [(2, 4), (4, 4)]


def test_a_finished_run_scores_no_clip_again(tmp_path):
    first = run(FixedJudge(GOOD), tmp_path)
    judge = FixedJudge(GOOD)
    assert run(judge, tmp_path) == first
    assert judge.judged_videos == []


def test_failed_clips_are_retried_and_the_last_record_counts(tmp_path):
    run(FixedJudge({**GOOD, "v1": None}), tmp_path)
    judge = FixedJudge(GOOD)
    result = run(judge, tmp_path)
    assert judge.judged_videos == ["v1"]
    assert result.results["failures"] == []
    assert len(lines(tmp_path)) == 5


def test_a_torn_last_line_is_dropped_and_scored_again(tmp_path):
    run(FixedJudge(GOOD), tmp_path)
    path = tmp_path / "clips.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    (tmp_path / "results.json").unlink()
    judge = FixedJudge(GOOD)
    run(judge, tmp_path)
    assert judge.judged_videos == ["v3"]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("judge", "options", "message"),
    [
        (FixedJudge(GOOD, model="other"), {}, r"model is 'fixed' there, 'other' here"),
        (FixedJudge(GOOD), {"limit": 2}, r"limit is None there, 2 here"),
        (FixedJudge(GOOD), {"benchmark": "five"}, r"benchmark is 'four' there, 'five' here"),
    ],
)
def test_a_run_of_another_config_is_refused(tmp_path, judge, options, message):
    run(FixedJudge(GOOD), tmp_path)
    before = lines(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(judge, tmp_path, **options)
    assert lines(tmp_path) == before


def test_another_version_is_named_alone(tmp_path):
    run(FixedJudge(GOOD, versions={"torch": "1", "av": "1"}), tmp_path)
    with pytest.raises(ConfigError, match=r"holds another run \(versions\.torch is '1' there, '2' here\)"):
        run(FixedJudge(GOOD, versions={"torch": "2", "av": "1"}), tmp_path)


def test_changed_judgements_are_another_run(tmp_path):
    run(FixedJudge(GOOD), tmp_path)
    judged = four_clips()
    judged.clips = (*judged.clips, clip("v4"))
    with pytest.raises(ConfigError, match="labels is"):
        run(FixedJudge(GOOD), tmp_path, judged=judged)


def test_records_without_a_config_are_left_alone(tmp_path):
    (tmp_path / "clips.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"no run\.json"):
        run(FixedJudge(GOOD), tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        run(FixedJudge(GOOD), tmp_path / "file")


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from descore.io import lock_directory\n"
        "with lock_directory(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another process"):
            run(FixedJudge(GOOD), tmp_path)
        holder.kill()
    with lock_directory(tmp_path):
        pass


def test_frames_of_the_worst_mistakes_are_kept(tmp_path):
    result = run(FixedJudge({**GOOD, "v0": -1.0}), tmp_path)
    assert sorted(result.frames) == [0, 1]
    with Image.open(tmp_path / "frames" / "1.jpg") as strip:
        assert strip.size == (4 * 192 + 3 * 4, 96)
    assert sorted(run(FixedJudge({**GOOD, "v0": -1.0}), tmp_path).frames) == [0, 1]


def test_a_video_that_cannot_be_opened_has_no_frames(tmp_path):
    def refuse(name):
        raise VideoError(name, "gone")

    judged = four_clips()
    judged.open = refuse
    assert run(FixedJudge({**GOOD, "v0": -1.0}), tmp_path, judged=judged).frames == {}


def test_thumbnails_of_short_clips_show_each_frame_once():
    assert thumbnail(noise_clip(0, frames=2, width=30, height=60)).size == (2 * 48 + 4, 96)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, r"run\.json:1: is not there"),
        ("labels.json", "{", r"labels\.json:1: is not JSON"),
        ("labels.json", "[]", r"labels\.json:1: found list"),
        ("labels.json", '{"title": "t", "licence": ""}', r"labels\.json:1: has no published"),
        (
            "labels.json",
            '{"title": "", "licence": "", "published": [], "clips": [{"x": 1}], "pairs": []}',
            r"labels\.json:1: has no 0\.prompt, 0\.video, 0\.group",
        ),
        ("results.json", '{\n "scored": }', r"results\.json:2: is not JSON"),
        ("clips.jsonl", '{"video": "v0"}\n', r"clips\.jsonl:1: has no prompt, reward, error"),
        ("clips.jsonl", "\x00\x00\n{}\n", r"clips\.jsonl:1: is not JSON"),
        ("clips.jsonl", "3\n", r"clips\.jsonl:1: found int"),
    ],
)
def test_broken_files_are_one_line_with_their_place(tmp_path, name, content, message):
    run(FixedJudge(GOOD), tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_run(tmp_path)
