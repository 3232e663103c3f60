"""Every verb that opens a model takes one that was trained without chains as it is: at once, and no other way."""

import json

import pytest
from tests.conftest import build_micro

from descore.evaluation.runs import read_run

PROMPT = ("--prompt", "a red ball rolls to the left")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made = build_micro()
    made.settings = made.settings.model_copy(update={"paradigm": "discriminative", "trained_on": "a test"})
    folder = tmp_path_factory.mktemp("cli-discriminative") / "judge"
    made.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("verb", ["score", "rank", "compare"])
def test_it_scores_at_once(descore, lines, films, model, verb):
    command = (verb, *films[0][:2], *PROMPT, "--model", model, "--json")
    result = descore(*command)
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines(descore(*command, "--think", "off")) == lines(result)
    refused = descore(*command, "--think", "on")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert "trained without chains: it cannot score with think on" in refused.stderr


def test_asked_for_by_name_it_is_refused_before_anything_is_opened(descore, films):
    asked = ("--model", "nowhere", "--paradigm", "discriminative", "--think", "on")
    result = descore("score", films[0][0], *PROMPT, *asked)
    assert result.exit_code == 3
    assert "cannot score with think on" in result.stderr


def test_runs_and_stress_say_what_it_is(descore, films, model, tmp_path):
    out = ("--out", tmp_path / "run")
    evaluated = descore("evaluate", "--benchmark", "drawn", "--limit", 2, "--model", model, *out)
    assert evaluated.exit_code == 0, evaluated.stderr
    assert "judge, discriminative, on Drawn scenes" in " ".join(evaluated.stdout.split())
    run = read_run(tmp_path / "run")
    assert (run.config["paradigm"], run.config["think"]) == ("discriminative", "off")
    assert descore("evaluate", "--benchmark", "drawn", "--limit", 2, "--model", model, "--think", "on").exit_code == 3
    stressed = descore("stress", *films[0][:2], *PROMPT, "--model", model, *out)
    assert stressed.exit_code == 0, stressed.stderr
    assert json.loads((tmp_path / "run" / "stress.json").read_text())["think"] == "off"
    page = descore("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert page.exit_code == 0
    assert "judge, discriminative" in (tmp_path / "page.html").read_text()


def test_doctor_and_demo_open_it(descore, lines, model, tmp_path):
    [found] = lines(descore("doctor", "--model", model, "--json"))
    assert found["ok"]
    shown = descore("demo", "--model", model, "--out", tmp_path / "demo")
    assert shown.exit_code == 0, shown.stderr
    assert (tmp_path / "demo" / "descore-demo.html").is_file()
