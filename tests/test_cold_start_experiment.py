"""What the cold start's experiment makes of its runs, on margins that a reader can count."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
BENCHMARKS = ("drawn", "drawn-combinations", "drawn-wordings", "drawn-generators")


@pytest.fixture(scope="module")
def findings():
    spec = importlib.util.spec_from_file_location("cold_start_findings", EXPERIMENTS / "cold_start" / "findings.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its own module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def judged(findings, *, right_by_drop, seeds=(0, 1)):
    """Four pairs a split, of which the first `right` are in order, by p and seed; thinking changes nothing."""
    return {
        (findings.Cell(pairs=8, drop=drop, seed=seed), name, think): findings.Judgement(
            hit_B=np.array([1.0] * right[seed] + [0.0] * (4 - right[seed])),
            group_B=np.array([f"{name}:{number}" for number in range(4)]),
            unreadable=seed,
            clips=8,
        )
        for drop, right in right_by_drop.items()
        for seed in seeds
        for name in BENCHMARKS
        for think in ("on", "off")
    }


def only(rows, **told):
    (found,) = [row for row in rows if all(row[key] == value for key, value in told.items())]
    return found


def test_a_value_is_the_mean_over_seeds_and_prompts_are_drawn_with_all_their_seeds(findings):
    found = findings.findings(judged(findings, right_by_drop={0.5: {0: 1, 1: 4}}))
    row = only(found["accuracy"], drop=0.5, think="on", domain="out-of-domain")
    assert row["accuracy"]["value"] == (1 / 4 + 4 / 4) / 2
    assert (row["accuracy"]["n"], row["accuracy"]["groups"]) == (24, 12)  # 2 seeds of 3 splits of 4; prompts are shared
    assert row["by_seed"] == {"0": 0.25, "1": 1.0}
    assert (row["unreadable"], row["clips"]) == (3, 48)


def test_differences_are_taken_pair_by_pair(findings):
    found = findings.findings(judged(findings, right_by_drop={0.5: {0: 3, 1: 3}, 1.0: {0: 2, 1: 2}}))
    row = only(found["differences"], one=[0.5, "off"], other=[1.0, "off"], domain="in-domain")
    assert row["difference"]["value"] == 1 / 4  # one pair of four is right under p = 0.5 alone
    assert row["difference"]["low"] == 0  # never below: no pair is right under p = 1 alone


def test_a_p_that_was_not_trained_is_compared_with_nothing(findings):
    found = findings.findings(judged(findings, right_by_drop={1.0: {0: 2, 1: 2}}))
    assert not found["differences"]


def test_the_record_is_json_and_a_row_of_its_tables_has_a_cell_for_each_column(findings):
    found = findings.findings(judged(findings, right_by_drop={0.0: {0: 4, 1: 4}, 0.5: {0: 3, 1: 2}}))
    json.dumps(found, allow_nan=False)
    accuracy, differences = findings.tables(found).split("\n\n")
    assert {line.count("|") for line in accuracy.split("\n")} == {9}
    assert {line.count("|") for line in differences.split("\n")} == {9}
    assert "| 8 | p = 0.5, thinking | p = 0, thinking | -0.375 [" in differences
