"""Preference pairs from a scored table: which are chosen, what is dropped, and that trainers read what is written."""

import csv
import json

import pytest

from descore.data.schema import read_pairs
from descore.data.tables import read_rows
from descore.data.validate import TableCheck
from descore.data.write import moved_path
from descore.errors import ConfigError, DataError
from descore.rewards.pairs import LEAD_COLUMNS, preference_pairs, write_best, write_pairs
from descore.rewards.ranking import rank
from descore.rewards.scored import read_scored
from descore.rubric import write_answer
from descore.types import DIMENSIONS, Verdict
from tests.rewards.made_scores import scored, write

FOUR = [scored("p", name, reward) for name, reward in (("b", 2.0), ("d", -1.0), ("a", 3.0), ("c", 1.0))]


def select(tmp_path, rows, **rules):
    return preference_pairs(read_scored(write(tmp_path / "scores.jsonl", rows)), **rules)


def names(selection):
    return [pair.chosen.name + pair.rejected.name for pair in selection.pairs]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, {"ad"}),
        ({"per_prompt": 2}, {"ad", "bc"}),
        ({"per_prompt": 9}, {"ad", "bc"}),
        ({"strategy": "neighbours"}, {"ab", "bc", "cd"}),
        ({"strategy": "neighbours", "per_prompt": 1}, {"cd"}),  # 2 apart, the others 1
        ({"strategy": "all"}, {"ab", "ac", "ad", "bc", "bd", "cd"}),
        ({"strategy": "all", "per_prompt": 2}, {"ad", "bd"}),
        ({"strategy": "all", "min_margin": 3}, {"ad", "bd"}),
        ({"strategy": "all", "min_probability": 0.96}, {"ad"}),  # sigmoid(3) is .953, sigmoid(4) .982
    ],
)
def test_strategies_and_rules(tmp_path, rules, expected):
    found = select(tmp_path, FOUR, **rules)
    assert set(names(found)) == expected
    assert len(found.pairs) == len(expected)
    assert found.prompts == 1


def test_what_was_dropped_is_counted_by_rule(tmp_path):
    rows = [*FOUR, scored("p", "e", 3.0), scored("q", "x", 0.0), scored("r", "y", None)]
    found = select(tmp_path, rows, strategy="all", min_margin=1.5, min_probability=0.9, per_prompt=2)
    # ae are equal; ab, eb, bc are 1 apart; ac, ec, cd are 2 (.88); of ad, ed, bd two are kept.
    assert found.dropped == {"equal": 1, "min_margin": 3, "min_probability": 3, "per_prompt": 1}
    assert (found.single, [out.video for out in found.left_out]) == (1, ["y"])


def test_doubtful_pairs_are_dropped_by_their_probability(tmp_path):
    """3 apart with an error of sqrt(2 * 9 / 2) = 3: sigmoid(3 / sqrt(1 + pi 9 / 8)) = .80, not .95."""
    rows = [scored("p", "a", 3.0, std=3.0, samples=2), scored("p", "b", 0.0, std=3.0, samples=2)]
    assert select(tmp_path, rows).pairs[0].lead.probability == pytest.approx(0.8036, abs=1e-4)
    assert select(tmp_path, rows, min_probability=0.9).dropped == {"min_probability": 1}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"per_prompt": 0}, "per_prompt is 0"),
        ({"min_margin": -1}, "min_margin is -1"),
        ({"min_margin": float("nan")}, "min_margin is nan"),
        ({"min_probability": 0.2}, "min_probability is 0.2; expected from .5 to below 1"),
        ({"by": "dynamics", "min_probability": 0.6}, "dynamics is a mark, which has no probability; use min_margin"),
    ],
)
def test_rules_that_cannot_be_met_are_refused(tmp_path, rules, message):
    rows = [scored("p", name, mark, mark_dynamics=mark) for name, mark in (("a", 1), ("b", 2))]
    with pytest.raises(ConfigError, match=message):
        select(tmp_path, rows, **rules)


def test_pairs_by_a_mark(tmp_path):
    rows = [scored("p", name, -mark, mark_dynamics=mark) for name, mark in (("a", 0), ("b", 2))]
    assert names(select(tmp_path, rows, by="dynamics")) == ["ba"]


def written(tmp_path, rows, *, form, suffix, **more):
    table, out = write(tmp_path / "scores.csv", rows), tmp_path / "pairs" / f"pairs{suffix}"
    write_pairs(preference_pairs(read_scored(table), strategy="all"), table, out=out, form=form, **more)
    return out


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_trl_has_prompt_chosen_and_rejected(tmp_path, suffix):
    out = written(tmp_path, FOUR[:2], form="trl", suffix=suffix)
    [(_, row)] = read_rows(out)
    assert list(row) == ["prompt", "chosen", "rejected", "margin", "probability"]
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("p", "../b", "../d")
    assert float(row["margin"]) == 3.0
    if suffix != ".csv":
        assert isinstance(row["margin"], float)


def test_diffusers_csv_has_three_columns(tmp_path):
    out = written(tmp_path, FOUR[:2], form="diffusers", suffix=".csv")
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [["prompt", "chosen_video", "rejected_video"], ["p", "../b", "../d"]]


VERDICT = Verdict(marks=dict.fromkeys(DIMENSIONS, 2) | {"camera": None}, overall=5.0)


def chained(video, reward, **more):
    row = scored("p", video, reward, source="wan")
    return row | {"chain": f"I see {video}.\n{write_answer(VERDICT)}"} | more


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_our_own_pairs_can_be_trained_on(tmp_path, suffix):
    out = written(tmp_path, [chained("a.mp4", 1.0), chained("b.mp4", 0.0)], form="descore", suffix=suffix)
    [pair] = read_pairs(out, resolve=False)
    better = pair.preference["overall"]
    assert getattr(pair, f"video_{better}") == "../a.mp4"
    assert getattr(pair, better).chain.startswith("I see a.mp4.")
    assert pair.a.marks == pair.b.marks == VERDICT.marks
    assert (pair.group, pair.source_a) == ("p", "wan")
    assert not list(TableCheck([out], probes={}).findings())


@pytest.mark.parametrize("more", [{"truncated": True}, {"chain": None}, {"chain": "no verdict"}])
def test_both_chains_are_there_or_neither(tmp_path, more):
    rows = [chained("a.mp4", 1.0), chained("b.mp4", 0.0) | more]
    out = written(tmp_path, rows, form="descore", suffix=".csv")
    [pair] = read_pairs(out)
    assert (pair.a.chain, pair.b.chain, pair.a.marks, pair.b.marks) == (None,) * 4
    assert not list(TableCheck([out], probes={}).findings())


def sides(folder, seed):
    """The preferred side of sixty pairs, whose better clip is always x."""
    folder.mkdir()
    rows = [scored(f"p{k}", f"{name}{k}", reward) for k in range(60) for name, reward in (("x", 1.0), ("y", 0.0))]
    pairs = list(read_pairs(written(folder, rows, form="descore", suffix=".jsonl", seed=seed)))
    assert all(p.preference["overall"] == ("a" if "/x" in p.video_a else "b") for p in pairs)
    return "".join(pair.preference["overall"] for pair in pairs)


def test_the_preferred_side_is_drawn_by_the_seed(tmp_path):
    one, same, other = (sides(tmp_path / name, seed) for name, seed in (("1", 0), ("2", 0), ("3", 1)))
    assert one == same != other
    assert 20 < one.count("a") < 40


def test_nothing_is_written_without_pairs(tmp_path):
    rows = [scored("p", "a", 1.0), scored("p", "b", 1.0), scored("q", "c", 0.0)]
    with pytest.raises(DataError, match="no pair is left: 1 dropped by equal, 1 prompts with one clip"):
        written(tmp_path, rows, form="trl", suffix=".csv")
    assert not (tmp_path / "pairs").exists()


def test_a_table_that_is_there_is_kept(tmp_path):
    out = written(tmp_path, FOUR, form="trl", suffix=".jsonl")
    before = out.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        written(tmp_path, FOUR, form="diffusers", suffix=".jsonl")
    assert out.read_bytes() == before
    assert json.loads(before.splitlines()[0])["prompt"] == "p"


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_best_rows_keep_all_columns(tmp_path, suffix):
    rows = [row | {"seed": 7, "mark_subject": 2} for row in (*FOUR, scored("q", "x", 0.0))]
    table, out = write(tmp_path / f"scores{suffix}", rows), tmp_path / "best" / f"best{suffix}"
    write_best(rank(read_scored(table), keep=2), table, out=out)
    best = [row for _, row in read_rows(out)]
    assert [(row["video"], int(float(row["place"])), int(float(row["clips"]))) for row in best] == [
        ("../a", 1, 4),
        ("../b", 2, 4),
        ("../x", 1, 1),
    ]
    assert set(LEAD_COLUMNS) | {"seed", "chain", "reward"} <= best[0].keys()
    assert (str(best[0]["seed"]), float(best[0]["margin"]), best[0]["chain"]) == ("7", 1.0, "about a")
    assert best[2]["probability"] in (None, "")
    assert [row.reward for row in read_scored(out)] == [3.0, 2.0, 0.0]  # it is a scored table itself


@pytest.mark.parametrize(
    ("video", "moved"), [("a/b.mp4", "../data/a/b.mp4"), ("/x/b.mp4", "/x/b.mp4"), ("https://h/b", "https://h/b")]
)
def test_paths_move_with_the_table(tmp_path, video, moved):
    assert moved_path(video, table=tmp_path / "data" / "s.csv", out=tmp_path / "out" / "p.csv") == moved
