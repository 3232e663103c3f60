import json

import pytest
import yaml
from tests.chains.conftest import write_table
from tests.chains.stub_teacher import GOOD, StubTeacher, right, status

from descore.chains import asking

LONG = "A red ball rolls over the grass from the left to the right edge.\n" + GOOD
"""Long enough for the filters."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(asking, "_FIRST_WAIT", 0.01)


@pytest.fixture
def config(films, tmp_path):
    """Of a table of two films that can be read, and one that cannot."""
    good, _, absent = films
    rows = [{"prompt": "a ball", "video": name} for name in (*good[:2], absent)]
    values = {
        "data": {"table": str(write_table(tmp_path / "clips.csv", rows))},
        "teacher": {"model": "stub", "price_in": 1.0, "price_out": 2.0},
        "run": {"out": str(tmp_path / "run")},
    }
    file = tmp_path / "chains.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_a_dry_run_says_what_it_takes(descore, config, tmp_path):
    result = descore("chains", "collect", config, "num_chains=2", "--dry-run", "--budget", "0.5")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "3 clips, 6 requests"
    assert lines[1] == "of 3 clips that were read for this estimate, 1 cannot be read"
    assert lines[2].startswith("tokens: about ")
    assert lines[3].startswith("cost: about 0.0")
    assert lines[3].endswith("; the budget is 0.5")
    assert not (tmp_path / "run").exists()


def test_collect_says_what_came_and_what_it_cost(descore, config, tmp_path):
    with StubTeacher(lambda _: right(LONG)) as stub:
        result = descore("chains", "collect", config, f"teacher.base_url={stub.url}")
    assert result.exit_code == 4
    lines = result.stdout.splitlines()[-6:]
    assert lines[0] == f"{tmp_path / 'run'}: 2 of 3 requests answered"
    assert lines[1].startswith("failed: 1 unreadable; the first: ")
    assert lines[2] == "tokens: 200 in, 40 out; cost 0.0003"
    assert lines[3] == "filters: kept 2 of 3 chains; rejected 1 at answer"
    assert lines[4] == f"{tmp_path / 'run' / 'chains.jsonl'}: 2 of 3 rows with chains"
    assert lines[5].startswith(f"next: descore chains check {tmp_path / 'run'}")


def test_json_is_one_record(descore, config):
    with StubTeacher(lambda _: right(LONG)) as stub:
        result = descore("chains", "collect", config, f"teacher.base_url={stub.url}", "--json", "--budget", "9")
    record = json.loads(result.stdout)
    assert (record["answered"], record["failed"], record["left"]) == (2, {"unreadable": 1}, 0)
    assert record["totals"]["cost"] == pytest.approx(280e-6)


def test_what_is_left_is_said_and_its_cost(descore, config):
    with StubTeacher(lambda _: right(LONG)) as stub:
        budget = 280e-6 + 2048 * 2e-6
        result = descore(
            "chains", "collect", config, f"teacher.base_url={stub.url}", "num_chains=40", "--budget", budget
        )
    assert result.exit_code == 4
    assert f"stopped by the budget of {budget:g}, which has no room for another request" in result.stdout
    assert "the same command goes on" in result.stdout


def test_a_refused_key_is_one_line(descore, config):
    with StubTeacher(lambda _: status(401, message="no such key")) as stub:
        result = descore("chains", "collect", config, f"teacher.base_url={stub.url}")
    assert result.exit_code == 3
    expected = "error: the teacher gave no answer: the server refuses the key (401): no such key"
    assert result.stderr.splitlines()[-1] == expected


def test_a_teacher_that_sees_is_warned_of(descore, config, films):
    rows = [{"prompt": "a ball", "video": films[0][0], "rating": 3}]
    table = write_table(config.parent / "rated.csv", rows)
    with StubTeacher(lambda _: right(LONG)) as stub:
        options = (f"teacher.base_url={stub.url}", f"data.table={table}", "--sees", "label")
        result = descore("chains", "collect", config, *options)
    assert result.exit_code == 0
    assert "warning: sees is label: the teacher is shown what people say" in result.stderr
    assert stub.requests[0].texts[-1].endswith("- overall: rated 3")


def test_faults_of_a_config_are_shown_together(descore, config):
    result = descore("chains", "collect", config, "num_chain=2", "teacher.api_key_env=sk-1", "--budget", "-1")
    assert result.exit_code == 2
    result = descore("chains", "collect", config, "num_chain=2", "teacher.api_key_env=sk-1")
    assert result.exit_code == 3
    assert "did you mean num_chains?" in result.stderr
    assert "sk-1" not in result.stderr


def test_without_its_packages_the_extra_is_named(descore, config, monkeypatch):
    from descore.chains import server

    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "openai" else object())
    result = descore("chains", "collect", config)
    assert result.exit_code == 3
    assert "asking a teacher needs openai; run pip install '.[teacher]'" in result.stderr
