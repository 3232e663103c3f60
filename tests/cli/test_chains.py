import json

import pytest
import yaml
from tests.chains.conftest import write_table
from tests.chains.stub_teacher import GOOD, StubTeacher, right, status

from descore.chains import asking

for package in ("openai", "aiolimiter"):
    pytest.importorskip(package, reason="of the extra teacher")

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


def test_only_a_dry_run_needs_no_key(descore, config):
    without = ("chains", "collect", config, "teacher.api_key_env=NOT_IN_THE_ENVIRONMENT")
    assert descore(*without, "--dry-run").exit_code == 0
    refused = descore(*without)
    assert (refused.exit_code, refused.stdout) == (3, "")


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


@pytest.fixture
def collected(descore, config, tmp_path):
    """A run that has collected two chains."""
    with StubTeacher(lambda _: right(LONG)) as stub:
        descore("chains", "collect", config, f"teacher.base_url={stub.url}")
    return tmp_path / "run"


def test_filter_filters_again_and_asks_nothing(descore, collected):
    result = descore("chains", "filter", collected, "filters.min_words=500")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "filters: kept 0 of 3 chains; rejected 1 at answer, 2 at length"
    assert json.loads(descore("chains", "filter", collected, "--json").stdout)["kept"] == 2


def test_filter_changes_nothing_but_filters(descore, collected):
    result = descore("chains", "filter", collected, "teacher.seed=3")
    assert result.exit_code == 3
    assert "only the filters can change behind a run" in result.stderr


def test_check_writes_a_page(descore, collected, tmp_path):
    result = descore("chains", "check", collected, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == f"{collected}: kept 2 of 3 chains, for 2 of 3 rows"
    assert "leak: not tested, 0 labelled chains are too few" in result.stdout
    assert "Kept and rejected, side by side" in (tmp_path / "page.html").read_text()
    assert json.loads(descore("chains", "check", collected, "--json").stdout)["rejected"]["answer"] == 1


def test_a_page_never_replaces_a_table(descore, collected):
    table = collected / "chains.jsonl"
    before = table.read_bytes()
    result = descore("chains", "check", collected, "--out", table)
    assert (result.exit_code, table.read_bytes()) == (3, before)
    assert f"--out: found {table}, expected a page, such as report.html" in result.stderr


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (["VQ"], "--map VQ: expected NAME=DIMENSION, the dimension one of subject, "),
        (["VQ=styl"], "--map VQ=styl: expected NAME=DIMENSION, the dimension one of subject, "),
        (["VQ=style", "VQ=subject"], "--map VQ=style: VQ is there twice; map each rating once"),
    ],
    ids=["alone", "unknown", "twice"],
)
def test_a_wrong_mapping_is_named(descore, tmp_path, maps, message):
    options = [text for each in maps for text in ("--map", each)]
    result = descore("chains", "weak-marks", tmp_path / "none.csv", *options, "--out", tmp_path / "weak.jsonl")
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert message in result.stderr


def test_weak_marks_are_made_of_ratings(descore, tmp_path):
    row = {"prompt": "a", "video_a": "a.mp4", "video_b": "b.mp4", "preference": "a", "rating_a.VQ": 5, "rating_b.VQ": 1}
    table = write_table(tmp_path / "rated.csv", [row])
    result = descore("chains", "weak-marks", table, "--map", "VQ=style", "--out", tmp_path / "weak.jsonl")
    assert result.stdout.strip() == f"{tmp_path / 'weak.jsonl'}: 1 pair with weak marks"
    written = json.loads((tmp_path / "weak.jsonl").read_text())
    assert [json.loads(written[f"marks_{side}"])["style"] for side in "ab"] == [2, 0]
    for option, reason in (("VQ", "--map VQ: expected NAME=DIMENSION"), ("MQ=dynamics", "no pair has ratings of both")):
        refused = descore("chains", "weak-marks", table, "--map", option, "--out", tmp_path / "no.jsonl")
        assert refused.exit_code == 3
        assert reason in refused.stderr


def test_rounds_stand_side_by_side(descore, tmp_path):
    share = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    out = tmp_path / "out"
    for number in (1, 2):
        figures = {
            "round": number,
            "rows": 4,
            "rows_kept": number,
            "kept": 2 * number,
            "chains": 16,
            "agreement": {"overall": share},
            "right_marks": {},
            "held_out": {"generated": 0.75},
            "leak": [],
            "model": f"m{number}",
        }
        (out / f"round-{number}").mkdir(parents=True)
        (out / f"round-{number}" / "round.json").write_text(json.dumps(figures))
    files = {name: str(tmp_path / f"{name}.yaml") for name in ("collect", "sft", "cold_start")}
    for file in files.values():
        (tmp_path / file).write_text("")
    (tmp_path / "rounds.yaml").write_text(yaml.safe_dump({"start": "tiny", "rounds": 2, "out": str(out), **files}))
    result = descore("chains", "rounds", tmp_path / "rounds.yaml")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["pairs", "with", "chains", "1", "of", "4", "2", "of", "4"] in lines
    assert ["held-out", "pairs,", "generated", "0.750", "0.750"] in lines
    assert lines[-1] == ["model:", "m2"]
