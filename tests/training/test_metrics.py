"""What a run writes beside its weights reads back, also where a kill cut off its last line."""

import json

import pytest

from descore.errors import DescoreWarning
from descore.io import append_records
from descore.training.collate import Unreadable
from descore.training.metrics import UnreadableVideos, last_metrics, unreadable_in


def halve_last_line(path):
    """As a kill in the middle of a write leaves it."""
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(content[: last + (len(content) - last) // 2])


def test_the_last_whole_line_counts(tmp_path):
    records = [{"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 3.0}, {"step": 2, "loss": 1.0}]
    append_records(tmp_path / "metrics.jsonl", records)
    halve_last_line(tmp_path / "metrics.jsonl")
    assert last_metrics(tmp_path) == {"step": 1, "loss": 2.0, "eval_loss": 3.0}
    append_records(tmp_path / "metrics.jsonl", [{"step": 2, "loss": 0.5}])
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 1, 2]


def test_a_run_without_any_metrics_has_none(tmp_path):
    assert last_metrics(tmp_path) == {}


def test_unreadable_videos_are_remembered_but_for_half_a_line(tmp_path):
    on_unreadable = [Unreadable(table="t.csv", line=n, video=f"{n}.mp4", reason="no such file") for n in (2, 3)]
    with pytest.warns(DescoreWarning, match="left out"):
        UnreadableVideos(tmp_path, share=1.0, examples={"t.csv": 9})(on_unreadable)
    halve_last_line(tmp_path / "unreadable.jsonl")
    assert unreadable_in(tmp_path) == 1
    again = UnreadableVideos(tmp_path, share=1.0, examples={"t.csv": 9})
    assert again.recorded == {("t.csv", "2.mp4")}
    with pytest.warns(DescoreWarning, match=r"t.csv:3: 3.mp4"):
        again(on_unreadable)
    assert unreadable_in(tmp_path) == 2
