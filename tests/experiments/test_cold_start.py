"""The cold-start study on judgements that a reader can count."""

import json
from pathlib import Path

import numpy as np
from experiments.cold_start import findings
from experiments.cold_start.findings import Cell
from experiments.harness import BENCHMARKS, Items, Judgement


def judgement(name, right, unreadable):
    hits = Items(
        value_N=np.array([1.0] * right + [0.0] * (4 - right)),
        group_N=np.array([f"{name}:{number}" for number in range(4)]),
    )
    return Judgement(right={"pairs": hits}, reward=hits, unreadable=unreadable, unseen=0, clips=8)


def judged(*, right_by_drop, seeds=(0, 1)):
    """Four pairs a split, of which the first `right` are in order, by p and seed; thinking changes nothing."""
    return {
        (Cell(pairs=8, drop=drop, seed=seed).condition(think), seed, name): judgement(name, right[seed], seed)
        for drop, right in right_by_drop.items()
        for seed in seeds
        for name in BENCHMARKS
        for think in ("on", "off")
    }


def only(rows, **values):
    (match,) = [row for row in rows if all(row[key] == value for key, value in values.items())]
    return match


def test_a_value_is_the_mean_over_seeds():
    found = findings.findings(judged(right_by_drop={0.5: {0: 1, 1: 4}}))
    row = only(found["accuracy"], drop=0.5, think="on", domain="out-of-domain")
    assert row["accuracy"]["value"] == (1 / 4 + 4 / 4) / 2
    assert (row["accuracy"]["n"], row["accuracy"]["groups"]) == (24, 12)  # 2 seeds of 3 splits of 4; prompts are shared
    assert row["by_seed"] == {"0": 0.25, "1": 1.0}
    assert (row["unreadable"], row["clips"]) == (3, 48)


def test_differences_are_taken_pair_by_pair():
    found = findings.findings(judged(right_by_drop={0.5: {0: 3, 1: 3}, 1.0: {0: 2, 1: 2}}))
    row = only(found["differences"], one=[0.5, "off"], other=[1.0, "off"], domain="in-domain")
    assert row["difference"]["value"] == 1 / 4  # one pair of four is right under p = 0.5 alone
    assert row["difference"]["low"] == 0  # never below: no pair is right under p = 1 alone


def test_a_p_that_was_not_trained_is_not_compared():
    found = findings.findings(judged(right_by_drop={1.0: {0: 2, 1: 2}}))
    assert not found["differences"]


def test_the_record_is_json_and_its_tables_are_rectangular():
    found = findings.findings(judged(right_by_drop={0.0: {0: 4, 1: 4}, 0.5: {0: 3, 1: 2}}))
    json.dumps(found, allow_nan=False)
    accuracy, differences = findings.tables(found).split("\n\n")
    assert {line.count("|") for line in accuracy.split("\n")} == {9}
    assert {line.count("|") for line in differences.split("\n")} == {9}
    assert "| 8 | p = 0.5, thinking | p = 0, thinking | -0.375 [" in differences


def test_the_committed_record_gives_its_tables():
    record = json.loads((Path(findings.__file__).parent / "record.json").read_text(encoding="utf-8"))
    text = findings.tables(record)
    assert "| 768 | p = 0.5, thinking | 0.901 [0.821, 0.963] | 0.856 [0.807, 0.898] |" in text
    assert "| 768 | p = 0.5, thinking | p = 1, without thinking | +0.358 [+0.228, +0.481] |" in text
