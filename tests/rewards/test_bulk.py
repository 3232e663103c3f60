"""Bulk scoring: the rewards of `Scorer.score`, in order, with failures in their places, and resumed after a kill."""

import json
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch

from descore.errors import ConfigError
from descore.rewards import ScoredRow, read_scored, score_table, write_scores
from descore.rewards.journal import Journal, journal_of
from descore.types import DIMENSIONS
from descore.video.reader import read_clip
from descore.video.sampling import VideoSampling
from tests.rewards.bulk_case import SAMPLED, CountingScorer, make_films, make_table, prompt_of, write_rows
from tests.robustness.test_workers import wait_for


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bulk")
    make_films(folder / "clips")
    (folder / "clips" / "text.mp4").write_text("words")
    return folder


@pytest.fixture(scope="module")
def scorer():
    return CountingScorer(batch_size=3)


@pytest.fixture
def folder(films, tmp_path):
    (tmp_path / "clips").symlink_to(films / "clips")
    return tmp_path


def test_rewards_are_those_of_single_scores(folder, scorer):
    table = make_table(folder, count=14)
    rows = list(score_table(table, scorer=scorer, workers=0, **SAMPLED))
    assert [row.columns["take"] for row in rows] == [str(number) for number in range(14)]
    for number, row in enumerate(rows):
        one = scorer.score(folder / "clips" / f"{number % 6}.mp4", prompt=prompt_of(number), **SAMPLED)
        assert row.reward == pytest.approx(one.reward, abs=1e-5)
        assert row.chain == one.thinking
        assert (row.samples, row.std, row.truncated) == (1, None, one.truncated)


@pytest.mark.slow
def test_workers_change_no_reward(folder, scorer):
    table = make_table(folder, count=8)
    alone, ahead = (list(score_table(table, scorer=scorer, workers=n, **SAMPLED)) for n in (0, 2))
    assert alone == ahead


def test_batches_are_of_about_one_length(folder):
    """Films are of 1, 2 or 3 seconds: 4, 4 or 6 frames, of one or two squares; the window's are sorted by that."""
    counting = CountingScorer(batch_size=2)
    write_rows(folder / "t.jsonl", [{"prompt": "p", "video": f"clips/{n % 6}.mp4"} for n in range(14)])
    list(score_table(folder / "t.jsonl", scorer=counting, workers=0, **SAMPLED))
    names = [[Path(source).name for source, _ in batch] for batch in counting.batches]
    assert names[0] == ["0.mp4", "1.mp4"]  # the first window is one batch, the second two, the third four
    second, third = [*names[1], *names[2]], [name for batch in names[3:7] for name in batch]
    assert sorted(second) == ["2.mp4", "3.mp4", "4.mp4", "5.mp4"]
    assert sorted(third) == sorted(f"{n % 6}.mp4" for n in range(6, 14))
    lengths = [_size(folder / "clips" / name) for name in third]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 2


def _size(path):
    clip = read_clip(path, sampling=VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16))
    return (len(clip.times) + 1) // 2 * (clip.size[0] // 16 * (clip.size[1] // 16) + 8)


def test_rows_come_before_the_table_is_read_to_its_end(folder):
    counting = CountingScorer(batch_size=1)
    rows = score_table(make_table(folder, count=40), scorer=counting, workers=0, **SAMPLED)
    first = next(rows)
    assert first.columns["take"] == "0"
    assert len(counting.asked) == 1


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_scored_table_is_read_back_as_it_was_scored(folder, scorer, suffix):
    table, out = make_table(folder, count=5), folder / f"scores{suffix}"
    summary = write_scores(table, out, scorer=scorer, workers=0, **SAMPLED)
    rows = list(read_scored(out, resolve=False))
    lazily = list(score_table(table, scorer=scorer, workers=0, **SAMPLED))
    assert [_plain(row) for row in rows] == [_plain(row) for row in lazily]
    assert (summary.total, summary.scored, summary.failed, summary.computed) == (5, 5, 0, 5)
    assert summary.mean_reward == pytest.approx(sum(row.reward for row in rows) / 5)


def _plain(row: ScoredRow):
    return (row.results(), dict(row.columns), row.prompt, row.video)


def test_columns_stand_in_the_documented_order(folder):
    out = folder / "scores.jsonl"
    counting = CountingScorer(dimensions=("VQ", "TA"))
    write_scores(make_table(folder, count=2), out, scorer=counting, workers=0, **SAMPLED)
    first = json.loads(out.read_text().splitlines()[0])
    named = ("reward_VQ", "reward_TA")
    marks = tuple(f"mark_{name}" for name in DIMENSIONS)
    last = ("chain", "truncated", "error", "model")
    assert tuple(first) == ("prompt", "video", "take", "reward", "score", "std", "samples", *named, *marks, *last)
    assert first["reward"] == pytest.approx((first["reward_VQ"] + first["reward_TA"]) / 2)


def test_failures_are_rows_with_an_error(folder, scorer):
    rows = [
        {"prompt": "p", "video": "clips/0.mp4"},
        {"prompt": "p", "video": "clips/absent.mp4"},
        {"prompt": "", "video": "clips/1.mp4"},
        {"prompt": "p", "video": "clips/text.mp4"},
        {"prompt": "p", "video": "clips/gone.mp4"},
        {"prompt": "p", "video": ""},
    ]
    write_rows(folder / "t.csv", rows)
    summary = write_scores(folder / "t.csv", scorer=scorer, workers=1, **SAMPLED)
    scored = list(read_scored(folder / "t.scores.csv"))
    assert [row.reward is None for row in scored] == [False, True, True, True, True, True]
    assert scored[1].error == "no such file"
    assert scored[2].error == "no prompt: the cell in line 4 is empty"
    assert scored[5].error == "no video: the cell in line 7 is empty"
    assert (scored[1].samples, scored[1].truncated, scored[1].chain) == (0, False, None)
    assert (summary.scored, summary.failed) == (1, 5)
    assert summary.kinds["no such file"] == 2
    assert summary.failures[0] == ("clips/absent.mp4", "no such file")


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_scores_nothing_twice(folder):
    table, out = make_table(folder, count=12), folder / "scores.csv"
    stopped = CountingScorer(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        write_scores(table, out, scorer=stopped, workers=1, **SAMPLED)
    assert not out.exists()
    with journal_of(out).open("ab") as file:
        file.write(b'{"key": "12')  # a kill in the middle of a line
    going_on = CountingScorer()
    summary = write_scores(table, out, scorer=going_on, workers=1, **SAMPLED)
    assert len(stopped.asked) == 6
    assert sorted(stopped.asked + going_on.asked) == sorted(
        (str(folder / "clips" / f"{n % 6}.mp4"), prompt_of(n)) for n in range(12)
    )
    assert summary.computed == 6
    write_scores(table, folder / "whole.csv", scorer=CountingScorer(), workers=0, **SAMPLED)
    assert [row.columns for row in read_scored(out)] == [row.columns for row in read_scored(folder / "whole.csv")]
    again = CountingScorer()
    assert write_scores(table, out, scorer=again, workers=1, **SAMPLED).computed == 0
    assert again.asked == []


def test_a_row_that_failed_is_tried_again(folder):
    table = folder / "t.csv"
    write_rows(table, [{"prompt": "p", "video": "clips/0.mp4"}, {"prompt": "p", "video": "later.mp4"}])
    assert write_scores(table, scorer=CountingScorer(), workers=0, **SAMPLED).failed == 1
    (folder / "later.mp4").write_bytes((folder / "clips" / "1.mp4").read_bytes())
    again = CountingScorer()
    assert write_scores(table, scorer=again, workers=0, **SAMPLED).failed == 0
    assert [source for source, _ in again.asked] == [str(folder / "later.mp4")]


def test_a_clip_that_changed_is_scored_again(folder):
    table = folder / "t.csv"
    write_rows(table, [{"prompt": "p", "video": "own.mp4"}])
    for source in ("0.mp4", "1.mp4"):
        (folder / "own.mp4").write_bytes((folder / "clips" / source).read_bytes())
        assert write_scores(table, scorer=CountingScorer(), workers=0, **SAMPLED).computed == 1


def test_a_clip_of_several_pairs_is_scored_once(folder):
    names = [("0", "1"), ("0", "2"), ("1", "2")]
    rows = [{"prompt": "p", "video_a": f"clips/{a}.mp4", "video_b": f"clips/{b}.mp4", "note": a + b} for a, b in names]
    write_rows(folder / "pairs.csv", rows)
    counting = CountingScorer()
    write_scores(folder / "pairs.csv", folder / "s.jsonl", scorer=counting, workers=0, **SAMPLED)
    scored = list(read_scored(folder / "s.jsonl", resolve=False))
    assert len(counting.asked) == 3
    assert [(row.columns["pair"], row.columns["side"], row.video) for row in scored] == [
        (pair, side, f"clips/{name}.mp4")
        for pair, both in enumerate(names, start=1)
        for side, name in zip("ab", both, strict=True)
    ]
    assert list(scored[0].columns) == ["prompt", "video", "pair", "side", "note"]
    assert scored[0].reward == scored[2].reward


def test_another_run_is_refused_by_what_differs(folder, scorer):
    table = make_table(folder, count=2)
    write_scores(table, scorer=scorer, workers=0, **SAMPLED)
    with pytest.raises(ConfigError, match=r"holds another run \(max_chain_tokens is 6 there, 5 here\); choose another"):
        write_scores(table, scorer=scorer, workers=0, max_chain_tokens=5)
    changed = CountingScorer()
    changed.model.head.weight.data.mul_(1.5)
    with pytest.raises(ConfigError, match=r"digest is '.*' there, '.*' here"):
        write_scores(table, scorer=changed, workers=0, **SAMPLED)
    summary = write_scores(table, scorer=scorer, workers=0, max_chain_tokens=5, overwrite=True)
    assert summary.computed == 2


def test_a_table_that_is_there_is_not_written_over(folder, scorer):
    (folder / "mine.csv").write_text("of the user\n")
    with pytest.raises(ConfigError, match="exists already; choose another --out, or write over it with --overwrite"):
        write_scores(make_table(folder, count=1), folder / "mine.csv", scorer=scorer, workers=0, **SAMPLED)
    assert (folder / "mine.csv").read_text() == "of the user\n"
    assert not journal_of(folder / "mine.csv").exists()


def test_a_limit_can_be_raised(folder):
    table = make_table(folder, count=6)
    counting = CountingScorer()
    write_scores(table, scorer=counting, workers=0, limit=2, **SAMPLED)
    assert len(list(read_scored(folder / "clips.scores.csv"))) == 2
    assert write_scores(table, scorer=counting, workers=0, **SAMPLED).computed == 4
    assert len(list(read_scored(folder / "clips.scores.csv"))) == 6


def test_several_chains_give_a_deviation(folder, scorer):
    [row] = score_table(make_table(folder, count=1), scorer=scorer, workers=0, samples=3, seed=1, **SAMPLED)
    one = scorer.score(folder / "clips" / "0.mp4", prompt=prompt_of(0), samples=3, seed=1, **SAMPLED)
    assert row.reward == pytest.approx(one.reward, abs=1e-5)
    assert row.std == pytest.approx(one.std, abs=1e-5)
    assert row.samples == 3
    assert row.chain == one.completions[0].text


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(folder):
    """Rows without a video need no model; what grows with them is a key of 8 bytes, and 16 bytes in the index."""
    scorer = CountingScorer(batch_size=64)
    peaks = {}
    for count in (2_000, 20_000):
        table = folder / f"{count}.csv"
        with table.open("w") as file:
            file.write("prompt,video,note\n")
            file.writelines(f"prompt {number},absent.mp4,{'x' * 100}\n" for number in range(count))
        tracemalloc.start()
        summary = write_scores(table, scorer=scorer, workers=0)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (summary.total, summary.failed, summary.kinds) == (count, count, {"no such file": count})
    assert peaks[20_000] - peaks[2_000] < 18_000 * 100  # bytes; a row alone has 400


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "micro"
    CountingScorer().model.save_pretrained(path)
    return path


def run_score(table, checkpoint, *options):
    command = [sys.executable, "-m", "descore", "score", str(table), "--model", str(checkpoint), "--batch-size", "2"]
    return [*command, "--max-chain-tokens", "6", "--workers", "1", *map(str, options)]


def results_in(journal):
    return [json.loads(line) for line in journal.read_text().splitlines()[1:]] if journal.is_file() else []


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_command_goes_on(folder, checkpoint, sent):
    rows = 240  # seconds of scoring, however late a busy machine lets this process see the first results
    table = make_table(folder, count=rows, films=6)
    write_rows(table, [{"prompt": f"ball {n}", "video": f"clips/{n % 6}.mp4"} for n in range(rows)])
    out = folder / "clips.scores.csv"
    with subprocess.Popen(run_score(table, checkpoint), stderr=subprocess.PIPE, text=True) as process:
        assert wait_for(lambda: len(results_in(journal_of(out))) >= 8)
        process.send_signal(sent)
        _, errors = process.communicate()
    assert not out.exists()
    kept = results_in(journal_of(out))
    assert 8 <= len(kept) < rows
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert f"of {rows} rows are kept: the same command goes on from there" in errors
    done = subprocess.run(run_score(table, checkpoint), capture_output=True, text=True, check=True)
    assert f"{rows - len(kept)} now in" in done.stdout
    keys = [record["key"] for record in results_in(journal_of(out))]
    assert len(keys) == len(set(keys)) == rows
    subprocess.run(run_score(table, checkpoint, "--out", folder / "whole.csv"), capture_output=True, check=True)
    resumed, whole = (list(read_scored(path)) for path in (out, folder / "whole.csv"))
    assert [row.reward for row in resumed] == pytest.approx([row.reward for row in whole], abs=1e-5)
    assert [row.chain for row in resumed] == [row.chain for row in whole]


def test_a_full_device_says_how_to_go_on(folder):
    class FullScorer(CountingScorer):
        def score_each(self, *_, **__):
            raise torch.OutOfMemoryError

    refused = pytest.raises(ConfigError, match="2 clips at a time are too many for the memory of cpu; give the same")
    with refused:
        write_scores(make_table(folder, count=4), scorer=FullScorer(), workers=0, **SAMPLED)


def test_progress_counts_what_is_known_already(folder, scorer):
    table, seen = make_table(folder, count=6), []
    write_scores(table, scorer=scorer, workers=0, limit=4, **SAMPLED)
    write_rows(table, [*({"prompt": prompt_of(n), "video": f"clips/{n}.mp4", "take": str(n)} for n in range(6))])
    write_scores(table, scorer=scorer, workers=0, on_progress=seen.append, **SAMPLED)
    assert [(progress.done, progress.total, progress.failed) for progress in seen] == [(4, 6, 0), (4, 6, 0), (6, 6, 0)]


def test_two_runs_do_not_share_a_table(folder, scorer):
    table = make_table(folder, count=1)
    refused = pytest.raises(ConfigError, match=r"clips\.scores\.csv: another process is writing this run")
    with Journal.open(folder / "clips.scores.csv", settings={}), refused:
        write_scores(table, scorer=scorer, workers=0, **SAMPLED)


def test_a_source_that_changes_meanwhile_is_refused(folder, scorer):
    table = make_table(folder, count=4)

    def change(_):
        write_rows(table, [{"prompt": "other", "video": "clips/1.mp4", "take": "0"}] * 4)

    with pytest.raises(ConfigError, match="changed while it was scored; give the same command again"):
        write_scores(table, scorer=scorer, workers=0, on_progress=change, **SAMPLED)
    assert not (folder / "clips.scores.csv").exists()
