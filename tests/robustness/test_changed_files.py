"""A run keeps what its clips' files were: a file that was replaced is scored anew, one that is gone is refused."""

import json
import os
import warnings
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from descore.errors import ConfigError, DescoreWarning
from descore.evaluation.benchmarks import find_benchmark, load
from descore.evaluation.records import file_stamp, is_unchanged, plain_record
from descore.evaluation.runs import run_evaluation
from tests.evaluation.cases import FakeJudgements, FixedJudge, clip, pair

DAY = 86_400


@dataclass
class ReadingJudge(FixedJudge):
    """The reward is the number that is written in the file, or in all files of the folder."""

    def judge(self, clips, *, open_video):
        self.judged_videos += [clip.video for clip in clips]
        return [
            plain_record(clip, model=self.model, rewards={"overall": number_in(open_video(clip.video))}, seconds=0.5)
            for clip in clips
        ]


def number_in(path):
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return sum(float(file.read_text()) for file in files)


@pytest.fixture
def clips(tmp_path):
    """Three files with 1, 2 and 3 in them, and a folder of two frames with 4 and 5."""
    for number in (1, 2, 3):
        (tmp_path / f"{number}.mp4").write_text(str(number))
    (tmp_path / "frames").mkdir()
    for number in (4, 5):
        (tmp_path / "frames" / f"{number}.png").write_text(str(number))
    return tmp_path


def evaluate(folder, *, judge=None):
    """The videos that were judged, their rewards, and what was warned of."""
    judge = judge or ReadingJudge({})
    names = ("1.mp4", "2.mp4", "3.mp4", "frames")
    judged = FakeJudgements(
        clips=tuple(clip(name) for name in names),
        pairs=(pair("1.mp4", "2.mp4", "b"),),
        open=folder.joinpath,
        file=folder.joinpath,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DescoreWarning)
        run = run_evaluation(judge, judged, folder=folder / "run", benchmark="own", title="Own")
    rewards = [run.records[name, "p"]["reward"] for name in names]
    return judge.judged_videos, rewards, [str(warning.message) for warning in caught]


def replace(file, text, *, days=1):
    """Write other content with another time of change."""
    file.write_text(text)
    time = file.stat().st_mtime + days * DAY
    os.utime(file, (time, time))


def test_a_record_keeps_size_time_and_digest(clips):
    evaluate(clips)
    first = json.loads((clips / "run" / "clips.jsonl").read_text().splitlines()[0])
    content = sha256(b"1").hexdigest()
    digest = sha256(f".\n{content}\n".encode()).hexdigest()[:16]
    assert first["file"] == {"size": 1, "mtime_ns": (clips / "1.mp4").stat().st_mtime_ns, "digest": digest}


def test_files_that_did_not_change_are_not_scored_again(clips):
    assert evaluate(clips) == (["1.mp4", "2.mp4", "3.mp4", "frames"], [1, 2, 3, 9], [])
    assert evaluate(clips) == ([], [1, 2, 3, 9], [])


@pytest.mark.parametrize("text", ["7", "70"], ids=["of the same size", "of another size"])
def test_a_replaced_file_is_scored_anew(clips, text):
    evaluate(clips)
    replace(clips / "2.mp4", text)
    judged, rewards, [warning] = evaluate(clips)
    assert (judged, rewards) == (["2.mp4"], [1, float(text), 3, 9])
    assert (
        warning
        == f"{clips / 'run'}: files of its clips have changed since they were scored: 2.mp4; these are scored anew"
    )
    assert evaluate(clips) == ([], [1, float(text), 3, 9], [])


def test_results_of_a_replaced_file_are_counted_again(clips):
    """People prefer 2.mp4 to 1.mp4: right with rewards 2 and 1, wrong once the file says 0."""
    results = clips / "run" / "results.json"
    evaluate(clips)
    assert json.loads(results.read_text())["labels"]["overall"]["accuracy"]["value"] == 1
    replace(clips / "2.mp4", "0")
    evaluate(clips)
    assert json.loads(results.read_text())["labels"]["overall"]["accuracy"]["value"] == 0


def test_a_file_of_the_same_content_is_the_same(clips):
    """Copies and fresh downloads have another time of change."""
    evaluate(clips)
    replace(clips / "2.mp4", "2", days=3)
    assert evaluate(clips) == ([], [1, 2, 3, 9], [])


@pytest.mark.parametrize("change", ["replace", "add", "rename", "remove"])
def test_any_frame_of_a_folder_counts(clips, change):
    evaluate(clips)
    frame = clips / "frames" / "4.png"
    if change == "replace":
        replace(frame, "6")
    elif change == "add":
        replace(frame.with_name("6.png"), "6")
    elif change == "rename":  # the order of the frames
        replace(frame.rename(frame.with_name("9.png")), "4")
    else:
        frame.unlink()
    expected = {"replace": 11, "add": 15, "rename": 9, "remove": 5}
    judged, rewards, _ = evaluate(clips)
    assert (judged, rewards[-1]) == (["frames"], expected[change])


def test_a_file_that_is_gone_is_refused_by_name(clips):
    evaluate(clips)
    (clips / "2.mp4").unlink()
    with pytest.raises(ConfigError, match=rf"holds scores of files that are gone: {clips}/2\.mp4; bring"):
        evaluate(clips)
    assert (clips / "run" / "results.json").is_file()


def test_a_run_of_an_older_version_goes_on_and_says_so(clips):
    evaluate(clips)
    path = clips / "run" / "clips.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "file"}) + "\n" for r in records))
    replace(clips / "2.mp4", "7")
    judged, rewards, [warning] = evaluate(clips)
    assert (judged, rewards) == ([], [1, 2, 3, 9])
    assert "an older version, which kept no digests: 1.mp4, 2.mp4, 3.mp4, frames: whether they have changed" in warning


def test_a_judge_that_reads_no_file_leaves_no_stamp(clips):
    """Scores of a table need no clips on the disk."""
    rewards = {"1.mp4": 1.0, "2.mp4": 2.0, "3.mp4": 3.0, "frames": 4.0}
    evaluate(clips, judge=FixedJudge(rewards))
    (clips / "2.mp4").unlink()
    assert evaluate(clips, judge=FixedJudge(rewards)) == ([], [1, 2, 3, 4], [])


def test_a_file_that_is_replaced_meanwhile_counts_as_changed(clips):
    """The stamp is of what was there before."""

    @dataclass
    class Replacing(ReadingJudge):
        def judge(self, videos, *, open_video):
            records = super().judge(videos, open_video=open_video)
            if not (clips / "run" / "results.json").exists() and "2.mp4" in self.judged_videos:
                replace(clips / "2.mp4", "7")
            return records

    assert evaluate(clips, judge=Replacing({}, batch_size=4))[1] == [1, 2, 3, 9]
    assert evaluate(clips)[:2] == (["2.mp4"], [1, 7, 3, 9])


def test_a_stamp_of_nothing_is_none(tmp_path):
    assert file_stamp(tmp_path / "gone") is None
    assert file_stamp(tmp_path) is None  # a folder without files
    assert not is_unchanged(tmp_path / "gone", {"size": 0, "mtime_ns": 0, "digest": ""})


def test_a_table_of_ones_own_knows_its_files(tmp_path):
    (tmp_path / "own.csv").write_text(
        f"prompt,video,rating\np,a.mp4,1\np,{(tmp_path / 'b.mp4').as_uri()},2\np,https://x.org/c.mp4,3\n"
    )
    judged = load(find_benchmark(str(tmp_path / "own.csv")))
    files = [judged.file(clip.video) for clip in judged.clips]
    assert files == [tmp_path / "a.mp4", tmp_path / "b.mp4", None]
    assert load(find_benchmark("drawn"), limit=1).file("drawn:0/a") is None
    assert all(isinstance(file, Path) for file in files[:2])
