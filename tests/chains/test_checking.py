import random

import numpy as np
import pytest

from descore.chains.checking import check_chains
from descore.chains.filtering import FilterConfig
from descore.chains.output import filter_run
from descore.chains.wording import check_lines
from descore.chains.words import fit_logistic, judge_by_features, judge_by_words
from descore.errors import ConfigError, DataError
from descore.report.cards import render_chain_check
from tests.chains.made import chain_of_marks, made_candidate, pair_source, source_of, write_run

RUBRIC = "Judge whether the video shows: {prompt}"
PAIRS = 60
MARKS = ((2, 2, 2, 2, 2), (2, 1, None, 1, 2), (1, 1, 0, 1, 1), (0, 1, None, 0, 0))


def prose_of_marks(marks, number):
    words = {2: "whole", 1: "odd", 0: "broken", None: "absent"}
    return f"A red ball, number {number}, rolls over a table. It looks " + " ".join(words[m] for m in marks) + " to me."


def nothing(prefers, side):  # noqa: ARG001
    return ""


def made_run(folder, *, label, extra=nothing, pairs=PAIRS):
    """Pairs of unlike marks; `label` says from the marks of both, or by chance, whom people prefer. `extra`: words of a
    chain from the preferred clip and its own."""
    rng = random.Random(0)
    both = [rng.sample(MARKS, 2) for _ in range(pairs)]
    labels = [label(*marks, rng) for marks in both]
    rows = [
        {"prompt": f"A red ball rolls, {n}", "video_a": f"{n}a.mp4", "video_b": f"{n}b.mp4", "preference": preferred}
        for n, preferred in enumerate(labels)
    ]
    source = source_of(folder / "data", rows)
    candidates = [
        made_candidate(
            chain_of_marks(marks, prose=prose_of_marks(marks, f"{n}{side}") + extra(prefers, side)),
            row=n,
            side=side,
            prompt=rows[n]["prompt"],
        )
        for n, (pair, prefers) in enumerate(zip(both, labels, strict=True))
        for side, marks in zip("ab", pair, strict=True)
    ]
    run = write_run(folder / "run", candidates)
    run.config.write_text(
        f"data: {{table: {source.path}}}\nteacher: {{model: stub}}\nrun: {{out: {run.folder}}}\n", encoding="utf-8"
    )
    return run, source


def better(a, b, rng):  # noqa: ARG001
    """People prefer the clip with more right."""
    return "a" if MARKS.index(a) < MARKS.index(b) else "b"


def by_chance(a, b, rng):  # noqa: ARG001
    return rng.choice("ab")


def test_a_run_is_counted_by_step_and_label(tmp_path):
    run, _ = made_run(tmp_path, label=better)
    record = check_chains(run.folder).record
    assert (record["rows"], record["rows_kept"], record["chains"], record["kept"]) == (PAIRS, PAIRS, 120, 120)
    assert record["agreement"]["overall"]["value"] == 1.0
    assert sum(record["marks"]["camera"].values()) == 120
    assert record["agreement_by_dimension"]["subject"].get("wrong", 0) == 0
    assert sum(record["agreement_by_dimension"]["camera"].values()) == PAIRS
    assert record["duplicates"] == {"chains": 0, "words": 0}
    assert record["words"]["kept"]["count"] == 120


def test_agreement_is_measured_on_the_rejected_too(tmp_path):
    run, source = made_run(tmp_path, label=by_chance)
    filter_run(run, source, FilterConfig(), rubric=RUBRIC)
    record = check_chains(run.folder).record
    share = record["agreement"]["overall"]
    assert share["n"] == PAIRS
    assert 0.3 < share["value"] < 0.7
    assert record["rejected"]["agreement"] == 2 * PAIRS - record["kept"]


def test_an_honest_teacher_shows_no_leak(tmp_path):
    leak = check_chains(made_run(tmp_path, label=better)[0].folder).record["leak"]
    assert leak["own"]["value"] == 1.0
    assert abs(leak["shuffled"]["value"] - 0.5) < 0.1
    assert leak["exchanged"]["value"] < 0.95
    assert leak["findings"] == []


def test_words_that_know_more_than_the_verdict_are_a_leak(tmp_path):
    def extra(prefers, side):
        return " The winner." if prefers == side else " The loser."

    leak = check_chains(made_run(tmp_path, label=by_chance, extra=extra)[0].folder).record["leak"]
    assert leak["words"]["value"] == 1.0
    assert leak["verdict"]["value"] < 0.7
    assert leak["words_over_verdict"]["low"] > 0
    assert {"winner", "loser"} <= set(leak["telling"])
    assert "one chain alone tells for 100% of pairs" in leak["findings"][0]
    assert "more of cases than its marks and overall do" in leak["findings"][1]


def test_what_a_teacher_saw_is_a_finding(tmp_path):
    run, _ = made_run(tmp_path, label=better)
    text = run.candidates.read_text().replace('"sees": "nothing"', '"sees": "label"')
    run.candidates.write_text(text)
    finding = check_chains(run.folder).record["leak"]["findings"][0]
    assert finding.startswith("120 chains are of a teacher that was shown people's label")


def test_few_pairs_are_not_tested(tmp_path):
    source = pair_source(tmp_path, "a", chain_a=[chain_of_marks(MARKS[0])], chain_b=[chain_of_marks(MARKS[2])])
    leak = check_chains(source.path).record["leak"]
    assert leak == {"tested": 1, "left_out": "", "findings": []}


def rated_run(folder, ratings):
    """A run of rated clips, whose chains say of each what its rating is."""
    rows = [{"prompt": f"A red ball, {n}", "video": f"{n}.mp4", "rating": rating} for n, rating in enumerate(ratings)]
    source = source_of(folder / "data", rows)
    marks = {5: MARKS[0], 1: MARKS[3]}
    chains = [chain_of_marks(marks[rating], prose=prose_of_marks(marks[rating], n)) for n, rating in enumerate(ratings)]
    run = write_run(
        folder / "run",
        [made_candidate(text, row=n, side=None, prompt=rows[n]["prompt"]) for n, text in enumerate(chains)],
    )
    run.config.write_text(f"data: {{table: {source.path}}}\nteacher: {{model: stub}}\nrun: {{out: {run.folder}}}\n")
    return run.folder


def test_ratings_that_are_mostly_the_highest_are_tested(tmp_path):
    """The middle rating is the highest too. That one chain tells a rated clip's rating is no sign of a leak."""
    leak = check_chains(rated_run(tmp_path, [5, 5, 1] * 20)).record["leak"]
    assert (leak["verdict"]["value"], leak["left_out"], leak["findings"]) == (1, "", [])


def test_labels_that_are_all_the_same_are_named(tmp_path):
    checked = check_chains(rated_run(tmp_path, [5] * 60), shown=1)
    assert "leak: not tested, all 60 labels are the same" in list(check_lines(checked.record))
    assert "Not tested: all 60 labels are the same." in render_chain_check(checked)


def test_tests_that_lack_pairs_are_named(tmp_path):
    """30 pairs have 60 chains, enough for the tests of one chain alone."""
    checked = check_chains(made_run(tmp_path, label=better, pairs=30)[0].folder, shown=1)
    leak = checked.record["leak"]
    assert ("words" in leak, "own" in leak) == (True, False)
    assert leak["left_out"] == "30 decided pairs are too few for the tests of pairs, which need 50"
    assert {f"leak: {leak['left_out']}", "leak: none of these tests shows one"} <= set(check_lines(checked.record))
    assert "None of these tests shows a leak; 30 decided pairs are too few" in render_chain_check(checked)


def test_a_table_is_checked_as_a_run_is(tmp_path):
    run, source = made_run(tmp_path, label=better)
    filter_run(run, source, FilterConfig(), rubric=RUBRIC)
    by_run, by_table = check_chains(run.folder).record, check_chains(run.table).record
    for name in ("kept", "marks", "agreement", "agreement_by_dimension", "duplicates", "teachers"):
        assert by_table[name] == by_run[name], name


def test_copies_are_counted_between_clips_only(tmp_path):
    same, other = chain_of_marks(MARKS[0]), chain_of_marks(MARKS[2])
    source = pair_source(tmp_path, "a", "a", chain_a=[same, same], chain_b=[other, other + "\n"])
    duplicates = check_chains(source.path).record["duplicates"]
    assert duplicates == {"chains": 2, "words": 3}  # the words of a and b are the same in all four


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda folder: folder, ConfigError, "has no config.yaml; expected a folder of descore chains collect"),
        (lambda folder: pair_source(folder, "a").path, DataError, "no row has a chain; collect some"),
    ],
)
def test_what_has_no_chains_is_refused(tmp_path, make, error, reason):
    with pytest.raises(error, match=reason):
        check_chains(make(tmp_path))


def test_the_page_shows_kept_and_rejected_side_by_side(tmp_path):
    run, source = made_run(tmp_path, label=better)
    cut = made_candidate("I see <b>a red ball</b>", row=0, side="a", number=1, prompt=source.rows[0].record.prompt)
    write_run(run.folder, [cut])
    page = render_chain_check(check_chains(run.folder, shown=2))
    assert "✓ kept" in page
    assert "✗ format" in page
    assert "I see &lt;b&gt;a red ball" in page
    assert page.count("The video cannot be read.") == 4  # two rows of two clips without files
    assert "No test shows a leak." in page
    assert f"<h1>Chains in <bdi>{run.folder}</bdi></h1>" in page


def test_a_word_that_parts_the_classes_is_learned():
    texts = [f"text {n} says {'yes' if n % 2 else 'no'} today" for n in range(40)]
    class_N, group_N = np.arange(40) % 2 == 1, np.array([str(n // 2) for n in range(40)])
    words = judge_by_words(texts, class_N, group_N)
    assert words.right_N.mean() == 1.0
    assert {"yes", "no"} <= set(words.telling)


def test_groups_are_never_on_both_sides():
    """Each group has a word of its own that names its class: without the group in training it tells nothing."""
    class_N = np.arange(200) % 20 < 10
    group_N = np.array([f"g{n // 10}" for n in range(200)])
    words = judge_by_words([f"word{n // 10} here" for n in range(200)], class_N, group_N)
    assert words.right_N.mean() <= 0.6


def test_the_regression_is_at_the_minimum_of_its_loss():
    rng = np.random.default_rng(0)
    feature_NF, class_N = rng.normal(size=(50, 3)), rng.random(50) < 0.5
    weight_F, bias = fit_logistic(feature_NF, class_N)
    sign_N = np.where(class_N, 1, -1)
    slope_N = -sign_N / (1 + np.exp(sign_N * (feature_NF @ weight_F + bias)))
    assert np.abs(feature_NF.T @ slope_N + weight_F).max() < 1e-3  # the gradient, with its penalty of 1
    assert abs(slope_N.sum()) < 1e-3


def test_one_class_alone_is_not_predicted():
    right_N = judge_by_features(np.zeros((10, 1)), np.ones(10, bool), np.arange(10).astype(str))
    assert np.isnan(right_N).all()
