"""Every verb that opens a model works with discriminative and generative models, and refuses what they cannot do."""

import json

import pytest
from tests.conftest import build_micro
from tests.scripted_backbone import save_told

from descore.evaluation.records import KEYS
from descore.evaluation.runs import read_run
from descore.model.modeling import DescoreModel

PROMPT = ("--prompt", "a red ball rolls to the left")
GENERATIVE = ("--paradigm", "generative")
HEAD = (
    'I see noise. <answer>{"dimensional_scores": {"subject": 2, "dynamics": 2, "camera": "N/A", "environment": 1, '
    '"style": 2}, "overall_score": '
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """It says 4.00, or less often 2.00, or nothing."""
    end = "}</answer>"
    chains = {(HEAD, "4.00", end): 0.5, (HEAD, "2.00", end): 0.25, ("I cannot say",): 0.25}
    return str(save_told(tmp_path_factory.mktemp("cli-plain") / "qwen", chains))


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    return str(save_told(tmp_path_factory.mktemp("cli-silent") / "qwen", {("I cannot say",): 1.0}))


@pytest.fixture(scope="module")
def saved(plain, tmp_path_factory):
    """The same judge as a checkpoint of ours, which says itself that it is generative."""
    folder = tmp_path_factory.mktemp("cli-saved") / "judge"
    DescoreModel.from_pretrained(plain, paradigm="generative", device="cpu").save_pretrained(folder)
    return str(folder)


def test_a_plain_backbone_scores(descore, lines, films, plain):
    good, _, _ = films
    result = descore("score", *good[:2], *PROMPT, "--model", plain, *GENERATIVE, "--json")
    records = lines(result)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [record["video"] for record in records] == good[:2]
    for record in records:
        assert tuple(record) == KEYS
        assert record["reward"] == record["overall"] == 4.0
        assert record["marks"]["environment"] == 1
        assert record["left_out"] == 0
        assert record["score"] is record["std"] is record["error"] is None


def test_without_the_option_one_line_says_what_to_do(descore, films, plain):
    result = descore("score", films[0][0], *PROMPT, "--model", plain)
    assert (result.exit_code, result.stdout) == (3, "")
    [line] = result.stderr.splitlines()
    assert f"{plain}: has no descore.json; a plain backbone judges as it is with --paradigm generative" in line


def test_a_saved_one_needs_no_option(descore, films, saved):
    result = descore("score", films[0][0], *PROMPT, "--model", saved)
    assert result.exit_code == 0
    assert "overall 4.00 of 5   reward +4.000" in result.stdout
    assert "I see noise." in result.stdout


def test_generative_without_thinking_is_refused_first(descore, films):
    result = descore("score", films[0][0], *PROMPT, "--model", "nowhere", *GENERATIVE, "--think", "off")
    assert result.exit_code == 3
    assert "it cannot score with think off" in result.stderr


def test_what_cannot_be_read_is_an_error_record(descore, lines, films, silent):
    (a, b, _), text, _ = films
    result = descore("score", a, text, *PROMPT, "--model", silent, *GENERATIVE, "--json")
    records = lines(result)
    assert result.exit_code == 4
    assert "the chain gives no reward: no <answer>...</answer> block in the chain" in records[0]["error"]
    assert records[0]["reward"] is records[0]["overall"] is records[0]["thinking"] is None
    assert "scored 0 of 2" in result.stderr
    [compared] = lines(descore("compare", a, b, *PROMPT, "--model", silent, *GENERATIVE, "--json"))
    assert compared["probability"] is None
    ranked = descore("rank", a, b, *PROMPT, "--model", silent, *GENERATIVE)
    assert ranked.exit_code == 4
    assert "not scored: the chain gives no reward" in " ".join(ranked.stdout.split())


def test_samples_give_a_deviation_and_say_what_was_left_out(descore, lines, films, plain):
    command = ("score", films[0][0], *PROMPT, "--model", plain, *GENERATIVE, "--samples", 16, "--seed", 3)
    [record] = lines(descore(*command, "--json"))
    assert 2.0 < record["reward"] < 4.0
    assert record["std"] > 0
    assert record["left_out"] > 0
    shown = " ".join(descore(*command).stdout.split())
    assert f"({16 - record['left_out']} samples)" in shown
    assert f"! {record['left_out']} of 16 chains left out: no <answer>...</answer> block" in shown


def test_equal_rewards_prefer_neither(descore, lines, films, plain):
    (a, b, _), _, _ = films
    command = ("compare", a, b, *PROMPT, "--model", plain, *GENERATIVE)
    [record] = lines(descore(*command, "--json"))
    assert record["probability"] == 0.5
    assert "have the same reward: neither is preferred" in " ".join(descore(*command).stdout.split())


def test_a_head_can_be_passed_over(descore, lines, films, model):
    """The micro model babbles: with its head it has a reward, as a generative one it has none."""
    [record] = lines(descore("score", films[0][0], *PROMPT, "--model", model, *GENERATIVE, "--json"))
    assert record["reward"] is None
    assert "cut off at the limit of 12: raise max_chain_tokens" in record["error"]


def test_a_run_says_its_paradigm_and_is_mixed_with_no_other(descore, plain, model, tmp_path):
    command = ("evaluate", "--benchmark", "drawn", "--limit", 2, "--out", tmp_path / "run")
    result = descore(*command, "--model", plain, *GENERATIVE)
    run = read_run(tmp_path / "run")
    assert result.exit_code == 0
    assert "qwen, generative, on Drawn scenes" in " ".join(result.stdout.split())
    assert run.config["paradigm"] == "generative"
    assert {record["reward"] for record in run.records.values()} == {4.0}
    other = descore(*command, "--model", model)
    assert other.exit_code == 3
    assert "paradigm is 'generative' there, None here" in other.stderr
    page = descore("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert page.exit_code == 0
    assert "qwen, generative" in (tmp_path / "page.html").read_text()


def test_a_run_without_thinking_is_refused_and_records_nothing(descore, saved, tmp_path):
    command = ("evaluate", "--benchmark", "drawn", "--limit", 2, "--out", tmp_path / "run", "--model", saved)
    result = descore(*command, "--think", "off")
    assert result.exit_code == 3
    assert "it cannot score with think off" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_stress_and_doctor_open_it_too(descore, lines, films, plain, tmp_path):
    stressed = descore("stress", *films[0][:2], *PROMPT, "--model", plain, *GENERATIVE, "--out", tmp_path / "run")
    assert stressed.exit_code == 0
    assert "qwen, generative" in " ".join(stressed.stdout.split())
    assert json.loads((tmp_path / "run" / "stress.json").read_text())["paradigm"] == "generative"
    [diagnoses] = lines(descore("doctor", "--model", plain, *GENERATIVE, "--json"))
    assert diagnoses["ok"]
    assert "reward +4.0000" in diagnoses["scoring"]


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    made = build_micro()
    made.settings = made.settings.model_copy(update={"paradigm": "discriminative", "trained_on": "a test"})
    folder = tmp_path_factory.mktemp("cli-discriminative") / "judge"
    made.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("verb", ["score", "rank", "compare"])
def test_a_discriminative_model_scores_at_once(descore, lines, films, at_once, verb):
    command = (verb, *films[0][:2], *PROMPT, "--model", at_once, "--json")
    result = descore(*command)
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines(descore(*command, "--think", "off")) == lines(result)
    refused = descore(*command, "--think", "on")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert "trained without chains: it cannot score with think on" in refused.stderr


def test_discriminative_thinking_is_refused_before_opening(descore, films):
    asked = ("--model", "nowhere", "--paradigm", "discriminative", "--think", "on")
    result = descore("score", films[0][0], *PROMPT, *asked)
    assert result.exit_code == 3
    assert "cannot score with think on" in result.stderr


@pytest.mark.slow
def test_runs_and_stress_name_the_discriminative_paradigm(descore, films, at_once, tmp_path):
    out = ("--out", tmp_path / "run")
    evaluated = descore("evaluate", "--benchmark", "drawn", "--limit", 2, "--model", at_once, *out)
    assert evaluated.exit_code == 0, evaluated.stderr
    assert "judge, discriminative, on Drawn scenes" in " ".join(evaluated.stdout.split())
    run = read_run(tmp_path / "run")
    assert (run.config["paradigm"], run.config["think"]) == ("discriminative", "off")
    assert descore("evaluate", "--benchmark", "drawn", "--limit", 2, "--model", at_once, "--think", "on").exit_code == 3
    stressed = descore("stress", *films[0][:2], *PROMPT, "--model", at_once, *out)
    assert stressed.exit_code == 0, stressed.stderr
    assert json.loads((tmp_path / "run" / "stress.json").read_text())["think"] == "off"
    page = descore("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert page.exit_code == 0
    assert "judge, discriminative" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_doctor_and_demo_open_a_discriminative_model(descore, lines, at_once, tmp_path):
    [diagnoses] = lines(descore("doctor", "--model", at_once, "--json"))
    assert diagnoses["ok"]
    shown = descore("demo", "--model", at_once, "--out", tmp_path / "demo")
    assert shown.exit_code == 0, shown.stderr
    assert (tmp_path / "demo" / "descore-demo.html").is_file()


@pytest.mark.slow
def test_a_rubric_of_ones_own_is_an_option_of_each_verb(descore, lines, films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge = str(save_told(tmp_path / "judge", {("Score: ", "7"): 1.0}))
    (tmp_path / "mine.toml").write_text(
        "rubric = 'Rate {prompt}.'\n[answer]\nparser = 'labelled_scores'\nlowest = 0\nhighest = 10\n"
        "[answer.labels]\noverall = 'Score:'\n"
    )
    how, (a, b, _) = ("--model", judge, "--rubric", "mine.toml"), films[0]
    [record] = lines(descore("score", a, *PROMPT, *how, "--json"))
    assert (record["reward"], record["thinking"]) == (7.0, "Score: 7")
    assert descore("compare", a, b, *PROMPT, *how).exit_code == 0
    (tmp_path / "pairs.csv").write_text(f"prompt,video_a,video_b,preference\na ball,{a},{b},a\n")
    run = descore("evaluate", "--benchmark", "pairs.csv", *how)
    assert run.exit_code == 0, run.stderr
    [folder] = (tmp_path / "runs").iterdir()
    assert "mine" in folder.name
    assert set(read_run(folder).config) >= {"rubric", "paradigm"}
    refused = descore(
        "evaluate", "--benchmark", "pairs.csv", "--model", judge, "--rubric", "videoscore2", "--out", folder
    )
    assert refused.exit_code == 3
