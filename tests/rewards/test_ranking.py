"""Best of N from a scored table: order, margins, doubt, and what is left out."""

import math

import pytest
from scipy import stats

from descore.errors import ConfigError, DataError
from descore.rewards.ranking import rank, require_scored, together
from descore.rewards.scored import read_scored
from tests.rewards.made_scores import scored, write


@pytest.fixture(params=[".csv", ".jsonl", ".parquet"])
def suffix(request):
    return request.param


def ranked(tmp_path, rows, suffix=".jsonl", **options):
    return rank(read_scored(write(tmp_path / f"scores{suffix}", rows)), **options)


def names(ranking):
    return [clip.name for clip in ranking.places]


TWO_PROMPTS = [
    scored("a cat", "c1", 0.5),
    scored("a dog", "d1", -1.0),
    scored("a cat", "c2", 2.0),
    scored("a dog", "d2", None),
    scored("a cat", "c3", 1.0),
    scored("a fox", "f1", None),
]


def test_the_best_of_each_prompt(tmp_path, suffix):
    found = ranked(tmp_path, TWO_PROMPTS, suffix, keep=2)
    assert [(r.prompt, r.clips, names(r)) for r in found.rankings] == [
        ("a cat", 3, ["c2", "c3"]),
        ("a dog", 1, ["d1"]),
    ]
    assert [(out.video, out.reason, out.failed) for out in found.left_out] == [
        ("d2", "no frames", True),
        ("f1", "no frames", True),
    ]
    assert (found.by, found.model) == ("reward", "tiny")


def test_the_margin_is_over_the_next_place(tmp_path):
    """2.0 over 1.0 over 0.5: sigmoid(1) and sigmoid(.5); the last clip of all leads nobody."""
    cat, dog = ranked(tmp_path, TWO_PROMPTS, keep=3).rankings
    assert [lead.margin for lead in cat.leads] == [1.0, 0.5]
    assert [lead.probability for lead in cat.leads] == pytest.approx([0.7311, 0.6225], abs=1e-4)
    assert (dog.lead, dog.leads) == (None, ())


def test_paths_can_be_opened_and_names_are_the_tables(tmp_path):
    [clip] = ranked(tmp_path, [scored("p", "clips/a.mp4", 1.0)]).rankings[0].places
    assert (clip.video, clip.name) == (str(tmp_path / "clips" / "a.mp4"), "clips/a.mp4")


def test_margins_are_in_deviations_of_the_checkpoint(tmp_path):
    found = ranked(tmp_path, [scored("p", "a", 3.0, score=1.5), scored("p", "b", 1.0, score=0.5)])
    assert (found.deviation, found.rankings[0].lead.deviations) == ("checkpoint", 1.0)


@pytest.mark.parametrize("more", [{}, {"reward_VQ": 1.0, "reward_MQ": 1.0, "score": 7.0}])
def test_or_of_the_table_where_none_fits(tmp_path, more):
    """The values 3 and 1 deviate by 1 from their mean. A score of several dimensions is no multiple of their mean."""
    found = ranked(tmp_path, [scored("p", "a", 3.0, **more), scored("p", "b", 1.0, **more)])
    assert (found.deviation, found.rankings[0].lead.deviations) == ("table", 2.0)


def test_chains_that_disagree_leave_no_clear_winner(tmp_path):
    rows = [scored("p", "a", 1.0, std=1.0, samples=4), scored("p", "b", 0.0, std=1.0, samples=4)]
    lead = ranked(tmp_path, rows).rankings[0].lead
    half = stats.t.ppf(0.975, 6) * math.sqrt(0.5)  # Welch: equal deviations have 4 + 4 - 2 degrees of freedom
    assert (lead.low, lead.high) == pytest.approx((1 - half, 1 + half))
    assert not lead.clear
    assert lead.probability == pytest.approx(1 / (1 + math.exp(-1 / math.sqrt(1 + math.pi * 0.5 / 8))))


def test_chains_that_agree_name_a_winner(tmp_path):
    rows = [scored("p", "a", 1.0, std=0.1, samples=4), scored("p", "b", 0.0, std=0.1, samples=4)]
    assert ranked(tmp_path, rows).rankings[0].lead.clear


@pytest.mark.parametrize(("rewards", "clear"), [((1.0, 1.0), False), ((1.01, 1.0), True)])
def test_with_single_chains_only_equal_rewards_tie(tmp_path, rewards, clear):
    found = ranked(tmp_path, [scored("p", "a", rewards[0]), scored("p", "b", rewards[1])]).rankings[0]
    assert (found.lead.clear, found.lead.low, names(found)) == (clear, None, ["a"])


def test_by_a_dimension(tmp_path):
    rows = [
        scored("p", "a", 2.0, reward_VQ=1.0, reward_MQ=3.0, std=5.0, samples=4),
        scored("p", "b", 1.0, reward_VQ=2.0, reward_MQ=0.0, std=5.0, samples=4),
    ]
    found = ranked(tmp_path, rows, by="VQ").rankings[0]
    assert (names(found), found.lead.margin) == (["b"], 1.0)
    assert found.lead.low is None  # the table's deviation is that of the reward, not of VQ
    assert names(ranked(tmp_path, rows).rankings[0]) == ["a"]


def test_by_a_mark_equal_ones_by_reward(tmp_path, suffix):
    marks = [("a", 1.0, 1), ("b", 0.0, 2), ("c", 0.5, 2), ("d", 9.0, None)]
    rows = [scored("p", video, reward, mark_dynamics=mark, mark_subject=1) for video, reward, mark in marks]
    rows.append(scored("p", "e", 9.0))
    found = ranked(tmp_path, rows, suffix, by="dynamics", keep=3)
    assert names(found.rankings[0]) == ["c", "b", "a"]
    assert [(lead.margin, lead.clear, lead.probability) for lead in found.rankings[0].leads] == [
        (0, False, None),
        (1, True, None),
    ]
    assert [(out.video, out.reason, out.failed) for out in found.left_out] == [
        ("d", "dynamics is N/A: the prompt does not ask for it", False),
        ("e", "its chain has no marks", False),
    ]


def test_an_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing is named 'dynamic' \(is it 'dynamics'\?\); it has reward, subj"):
        ranked(tmp_path, [scored("p", "a", 1.0, mark_dynamics=1)], by="dynamic")


def test_groups_divide_a_prompt(tmp_path):
    rows = [scored("p", "a", 1.0, group="x"), scored("p", "b", 2.0, group="y"), scored("p", "c", 0.0, group="x")]
    assert [names(r) for r in ranked(tmp_path, rows, keep=5).rankings] == [["a", "c"], ["b"]]


def test_a_clip_that_is_there_twice_does_not_beat_itself(tmp_path):
    found = ranked(tmp_path, [scored("p", "a", 1.0), scored("p", "a", 1.0), scored("q", "a", 1.0)])
    assert [r.clips for r in found.rankings] == [1, 1]
    assert (found.left_out[0].reason, found.left_out[0].failed) == ("is there twice", False)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"model": "large"}, "scores:3: model is 'large', on line 1 'tiny'; rewards of two models"),
        ({"reward_VQ": 1.0}, "dimensions are VQ, on line 1 one; rewards of two heads"),
    ],
)
def test_mixed_rewards_are_refused(tmp_path, second, message):
    rows = [scored("p", "a", 1.0), scored("p", "z", None, model="other"), scored("p", "b", 2.0, **second)]
    with pytest.raises(DataError, match=message) as error:
        ranked(tmp_path, rows, file="scores")
    assert error.value.line == 3


def test_a_deviation_below_zero_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"scores\.jsonl:1: std is -2; expected a deviation of 0 or more"):
        ranked(tmp_path, [scored("p", "a", 1.0, std=-2.0, samples=3)])


def test_nothing_is_kept_of_zero():
    with pytest.raises(ConfigError, match="keep is 0; expected 1 or more"):
        rank([], keep=0)


def test_an_unscored_table_names_the_command(tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text("prompt,video\np,a.mp4\n")
    with pytest.raises(ConfigError, match=r"no column 'reward'; score it first: descore score .*clips.csv --out"):
        require_scored(table)


def test_rows_are_held_until_their_set_is_full():
    taken = []
    rows = (taken.append(n) or f"row {n}" for n in range(100))
    sets = together(rows, {"x": (3, 1), "y": (1, 40)})
    assert next(sets) == ("x", ["row 3", "row 1"])
    assert len(taken) == 4  # no further than needed
    assert next(sets) == ("y", ["row 1", "row 40"])


def test_rows_are_taken_one_at_a_time(tmp_path):
    """Of a row its numbers are kept: a thousand chains of 10 kB leave less than 2 MB behind."""
    import tracemalloc

    rows = (scored("p", f"{n}.mp4", float(n)) | {"chain": "x" * 10_000} for n in range(1000))
    table = write(tmp_path / "scores.jsonl", list(rows))
    tracemalloc.start()
    found = rank(read_scored(table))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.rankings[0].clips == 1000
    assert peak < 2e6
