"""The study of chains: its erring teachers, its tables, and the whole of it at the smallest size."""

import random

import pytest
from experiments import harness
from experiments.chains import findings, run, teachers
from tests.experiments.test_cold_start import judgement

from descore.rubric import overall_of, read_answer
from descore.synthetic.splits import Split, plan_pair

CHAINS = [plan_pair(Split.TRAIN, number).a.chain for number in range(100)]


def test_a_teacher_has_its_share_of_marks_right():
    rng = random.Random(0)
    hits = []
    for chain in CHAINS:
        true, written = read_answer(chain), read_answer(teachers.erring_chain(chain, right=0.6, rng=rng))
        asked = [name for name, mark in true.marks.items() if mark is not None]
        hits += [written.marks[name] == true.marks[name] for name in asked]
        assert all(written.marks[name] is None for name in set(true.marks) - set(asked))
        assert written.overall == overall_of(dict(written.marks))
    assert abs(sum(hits) / len(hits) - 0.6) < 0.07  # 400 marks have a standard error of .025


def test_lines_and_answer_of_an_erring_chain_agree():
    for chain in CHAINS[:20]:
        erring = teachers.erring_chain(chain, right=0.0, rng=random.Random(1))
        for name, mark in read_answer(erring).marks.items():
            (line,) = [line for line in erring.splitlines() if line.startswith(f"{name.capitalize()}: ")]
            assert line.endswith("N/A." if mark is None else f" {mark}.")
    assert teachers.erring_chain(CHAINS[0], right=1.0, rng=random.Random(1)) == CHAINS[0]


def test_a_tenth_of_chains_is_no_use():
    rng = random.Random(0)
    given = [teachers.with_faults(CHAINS[0], rng) for _ in range(10_000)]
    cut = sum("<answer>" not in chain for chain in given)
    vague = sum(chain.startswith("The video is quite good") for chain in given)
    assert 430 < cut < 570
    assert 430 < vague < 570
    assert given.count(CHAINS[0]) == 10_000 - cut - vague


def judged(right_by_condition):
    return {
        (condition, seed, name): with_marks(judgement(name, right, 0), condition)
        for condition, right in right_by_condition.items()
        for seed in (0, 1)
        for name in harness.BENCHMARKS
    }


def with_marks(one, condition):
    marks = {} if condition == findings.PAIRS_ONLY else {"asked": one.right["pairs"]}
    unreadable = 2 if condition == findings.START else 0
    right = {**one.right, **marks}
    return harness.Judgement(right=right, reward=one.reward, unreadable=unreadable, unseen=0, clips=one.clips)


def test_differences_are_between_runs_of_the_same_pairs():
    rights = {"start": 1, "true": 4, "teacher60-filtered": 3, "pairs-only": 2}
    found = findings.chain_findings(judged(rights), {"x": {"kept": 1}})
    differences = {
        (row["one"], row["other"], row["measure"], row["domain"]): row["value"] for row in found["differences"]
    }
    assert differences["teacher60-filtered", "true", "asked", "in-domain"]["value"] == -0.25
    assert differences["true", "pairs-only", "pairs", "out-of-domain"]["value"] == 0.5
    assert differences["true", "start", "asked", "in-domain"]["value"] == 0.75
    assert ("true", "start", "pairs", "in-domain") not in differences
    assert ("true", "pairs-only", "asked", "in-domain") not in differences
    assert found["kept"] == {"x": {"kept": 1}}


def test_tables_show_clips_without_an_answer():
    results, table = findings.chain_tables(findings.chain_findings(judged({"start": 1, "true": 4}), {})).split("\n\n")
    lines = dict(line.strip("| ").split(" | ", 1) for line in results.split("\n"))
    assert lines["start"].endswith(" | 16 of 64")  # 2 of 8 clips, two seeds, four benchmarks
    assert lines["true"].endswith(" | 0 of 64")
    assert {line.count("|") for line in results.split("\n")} == {7}
    assert {line.count("|") for line in table.split("\n")} == {7}


def test_all_runs_of_a_seed_are_planned():
    names = [name for name, seed in run.ChainPlan().runs if seed == 2]
    assert len(names) == len(findings.CONDITIONS) - findings.ROUNDS + 1
    assert len(run.planned_runs(run.ChainPlan())) == 3 * (len(names) - 1) + 1  # the start has no seed


@pytest.mark.slow
def test_the_study_runs_and_resumes_at_the_smallest_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "BENCHMARKS", ("drawn",))
    monkeypatch.setattr(run, "ROUNDS", 1)
    only = ["start", "teacher60-filtered-seed0", "self-seed0", "pairs-only-seed0"]
    for _ in range(2):
        run.study(run.DRY, start=None, out=tmp_path, only=only, record_folder=tmp_path)
    assert capsys.readouterr().out.count(" min") == len(only)  # each run was done once
    judged_models = {path.name for path in (tmp_path / "judged").glob("*/*-drawn")}
    assert judged_models == {"start-drawn", "teacher60-filtered-drawn", "self-1-drawn", "pairs-only-drawn"}
    assert not (tmp_path / "record.json").exists()
