"""`descore score`, `rank` and `compare`, end to end on a micro model."""

import math

import pytest

from descore.evaluation.records import KEYS

PROMPT = ("--prompt", "a red ball rolls to the left")


def test_json_has_one_object_a_line_with_the_promised_keys(descore, lines, films, model):
    good, _, _ = films
    result = descore("score", *good, *PROMPT, "--model", model, "--json")
    records = lines(result)
    assert result.exit_code == 0
    assert [record["video"] for record in records] == good
    for record in records:
        assert tuple(record) == KEYS
        assert record["prompt"] == PROMPT[1]
        assert record["model"] == model
        assert isinstance(record["reward"], float)
        assert record["truncated"] in (True, False)
        assert record["fps"] == 6
        assert record["times"] == sorted(record["times"])
        # the micro model babbles, is not calibrated, and drew one sample
        assert record["marks"] is record["overall"] is record["score"] is record["std"] is record["error"] is None


def test_a_bad_file_is_recorded_in_its_place(descore, lines, films, model):
    (first, second, _), text, absent = films
    result = descore("score", first, text, absent, second, *PROMPT, "--model", model, "--json", "--batch-size", 2)
    records = lines(result)
    assert result.exit_code == 4
    assert [record["video"] for record in records] == [first, text, absent, second]
    assert [record["reward"] is None for record in records] == [False, True, True, False]
    assert "no such file" in records[2]["error"]
    for record in records[1:3]:
        assert all(record[key] is None for key in set(KEYS) - {"video", "prompt", "model", "error"})
    [summary] = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "scored 2 of 4" in summary
    assert text in summary
    assert absent in summary


def test_people_see_bad_files_too(descore, in_films_folder, model):
    (first, *_), text, absent = in_films_folder
    result = descore("score", first, text, *PROMPT, "--model", model)
    assert "not scored: " in result.stdout
    assert "scored 1 of 2" in result.stderr
    alone = descore("score", absent, *PROMPT, "--model", model)
    assert alone.exit_code == 4
    assert alone.stdout == ""
    assert [line for line in alone.stderr.splitlines() if "error" in line] == [f"error: {absent}: no such file"]


def test_people_see_prompt_facts_reward_and_warnings(descore, in_films_folder, model):
    (first, *_), _, _ = in_films_folder
    result = descore("score", first, *PROMPT, "--model", model, "--max-chain-tokens", 3)
    for text in ("a red ball rolls", "48x48, 6 fps, 2.0 s", "reward ", "cut off after 3 tokens", "no marks"):
        assert text in result.words
    assert "\x1b" not in result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stderr.splitlines() == [f"warning: {model}: query and head were never trained; its rewards are noise"]


def test_without_thinking_there_is_a_reward_and_no_flag(descore, lines, films, model):
    (first, *_), _, _ = films
    [record] = lines(descore("score", first, *PROMPT, "--model", model, "--think", "off", "--json"))
    assert record["thinking"] is None
    assert record["truncated"] is False
    assert isinstance(record["reward"], float)
    assert "!" not in descore("score", first, *PROMPT, "--model", model, "--think", "off").stdout


def test_samples_give_a_deviation_and_the_seed_repeats_it(descore, lines, films, model):
    (first, *_), _, _ = films
    command = ("score", first, *PROMPT, "--model", model, "--samples", 3, "--json")
    [once], [again], [other] = (lines(descore(*command, "--seed", seed)) for seed in (1, 1, 2))
    assert once["std"] > 0
    assert once == again != other
    assert "(3 samples)" in descore(*command[:-1], "--seed", 1).words


def test_rank_puts_the_best_first_and_the_unreadable_last(descore, lines, films, model):
    good, text, _ = films
    result = descore("rank", text, *good, *PROMPT, "--model", model, "--json")
    ranked = lines(result)
    scored = {r["video"]: r["reward"] for r in lines(descore("score", *good, *PROMPT, "--model", model, "--json"))}
    assert result.exit_code == 4
    assert [r["video"] for r in ranked] == [*sorted(scored, key=scored.__getitem__, reverse=True), text]
    assert [r["reward"] for r in ranked[:-1]] == pytest.approx(sorted(scored.values(), reverse=True), abs=1e-5)


@pytest.mark.parametrize("columns", ["34", "80"])
def test_rank_for_people_numbers_the_clips(descore, in_films_folder, model, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    good, _, _ = in_films_folder
    rows = [line.split() for line in descore("rank", *good, *PROMPT, "--model", model).stdout.splitlines()]
    ranked = [(row[0], clip) for row in rows for clip in good if clip in row]
    assert [place for place, _ in ranked] == ["1", "2", "3"]
    assert sorted(clip for _, clip in ranked) == good


def test_compare_gives_the_logistic_of_the_difference(descore, lines, films, model):
    (a, b, _), _, _ = films
    [record] = lines(descore("compare", a, b, *PROMPT, "--model", model, "--json"))
    [mirror] = lines(descore("compare", b, a, *PROMPT, "--model", model, "--json"))
    margin = record["a"]["reward"] - record["b"]["reward"]
    assert record["probability"] == pytest.approx(1 / (1 + math.exp(-margin)))
    assert record["probability"] + mirror["probability"] == pytest.approx(1, abs=1e-5)
    assert tuple(record["a"]) == tuple(record["b"]) == KEYS
    assert "is preferred to" in descore("compare", a, b, *PROMPT, "--model", model).words


def test_compare_without_one_of_the_clips_has_no_probability(descore, lines, films, model):
    (a, *_), _, absent = films
    result = descore("compare", a, absent, *PROMPT, "--model", model, "--json")
    [record] = lines(result)
    assert result.exit_code == 4
    assert record["probability"] is None
    assert record["b"]["error"] == "no such file"
    assert isinstance(record["a"]["reward"], float)
