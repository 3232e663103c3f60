"""A teacher in this process: the micro model."""

import itertools

import pytest

from descore.chains import native
from descore.chains.collect import collect_chains
from descore.chains.estimate import estimate_collection
from descore.errors import ConfigError
from descore.scorer import Scorer
from tests.chains.conftest import make_config
from tests.chains.made import read_candidates
from tests.conftest import RUBRIC, build_micro


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    folder = tmp_path_factory.mktemp("micro") / "model"
    build_micro().save_pretrained(folder)
    return str(folder)


def collect(folder, table, model, *overrides, **groups):
    teacher = {"kind": "native", "model": model, "batch_size": 2} | groups.pop("teacher", {})
    return collect_chains(make_config(folder, table, None, *overrides, teacher=teacher, **groups))


def test_a_checkpoint_writes_as_it_does_when_it_scores(tmp_path, pairs, micro, clips):
    summary = collect(tmp_path, pairs, micro, num_chains=2)
    assert (summary.answered, summary.totals.cost, len(read_candidates(summary.folder))) == (10, 0, 12)
    score = Scorer.from_pretrained(micro).score(str(clips / "2.mp4"), prompt="a cat", samples=2)
    written = [each for each in read_candidates(summary.folder) if each.video.endswith("2.mp4")]
    assert [each.text for each in written] == [each.text for each in score.completions]
    assert [each.tokens_out for each in written] == [each.num_tokens for each in score.completions]
    assert [each.finish for each in written] == ["length" if c.truncated else "stop" for c in score.completions]
    assert {each.teacher for each in written} == {micro}


@pytest.mark.slow
def test_what_is_missing_is_written_as_before(tmp_path, pairs, micro):
    all_at_once = collect(tmp_path, pairs, micro, num_chains=3)
    collect(tmp_path, pairs, micro, "data.limit=2", out="parts")
    parts = collect(tmp_path, pairs, micro, num_chains=3, out="parts")
    written, at_once = (read_candidates(each.folder) for each in (parts, all_at_once))
    assert [each.text for each in written] == [each.text for each in at_once]
    assert parts.asked == 15 - 4


@pytest.mark.slow
def test_another_teacher_in_the_same_folder_never_mixes(tmp_path, pairs, micro):
    collect(tmp_path, pairs, micro)
    other = tmp_path / "other"
    build_micro(seed=1).save_pretrained(other)
    with pytest.raises(ConfigError, match=r"teacher\.model is"):
        collect(tmp_path, pairs, str(other))
    build_micro(seed=1).save_pretrained(micro)
    with pytest.raises(ConfigError, match="engine was native"):
        collect(tmp_path, pairs, micro)
    build_micro().save_pretrained(micro)


def test_the_rubric_is_the_checkpoints_or_the_given_one(tmp_path, pairs, micro, monkeypatch):
    seen = []
    real = native._lay_out

    def lay_out(readable, scorer, asked_with):
        inputs = real(readable, scorer, asked_with)
        seen.append(scorer.model.chat.tokenizer.decode(inputs["input_ids"][-1]))
        return inputs

    monkeypatch.setattr(native, "_lay_out", lay_out)
    collect(tmp_path, pairs, micro, "data.limit=1")
    assert RUBRIC.replace("{prompt}", "a red ball") in seen[-1]
    (tmp_path / "rubric.txt").write_text("Look at {prompt}!")
    data = {"rubric": str(tmp_path / "rubric.txt")}
    collect(tmp_path, pairs, micro, "data.limit=1", data=data, out="given", sees="label")
    assert "Look at a red ball!" in seen[-1]
    assert "prefer" in seen[-1]


def test_a_clip_that_is_unreadable_or_too_long_is_a_fault(tmp_path, pairs, micro):
    text = pairs.read_text().replace("1.mp4", "none.mp4").replace("a cat", "a cat " * 4000)
    pairs.write_text(text)
    summary = collect(tmp_path, pairs, micro)
    assert (summary.answered, dict(summary.failed)) == (2, {"unreadable": 3})


def test_a_deadline_stops_between_batches(tmp_path, pairs, micro, monkeypatch):
    clock = itertools.count(0, 50)
    monkeypatch.setattr(native, "monotonic", lambda: next(clock))
    summary = collect(tmp_path, pairs, micro, "limits.deadline=2")
    assert summary.stopped == "the deadline of 2 minutes"
    assert summary.answered == 2


def test_an_estimate_of_a_native_teacher_has_no_cost(tmp_path, pairs, micro):
    config = make_config(tmp_path, pairs, teacher={"kind": "native", "model": micro})
    estimate = estimate_collection(config)
    assert (estimate.missing, estimate.cost, estimate.hours) == (5, None, None)
