"""`descore evaluate` end to end, interrupted and resumed, and from a table of scores; and `descore benchmarks`."""

import json
import shutil
import signal
import subprocess
import sys
import time
import weakref

import pytest
import torch
from tests.conftest import build_micro

from descore.cli import scoring
from descore.errors import CheckpointError, VideoError
from descore.evaluation.benchmarks import BENCHMARKS
from descore.evaluation.judges import FeatureJudge
from descore.evaluation.records import RUN_KEYS
from descore.evaluation.runs import read_run
from descore.scorer import Scorer

BENCHMARK = ("--benchmark", "drawn", "--limit", 3)


@pytest.fixture(scope="module")
def run(descore, model, tmp_path_factory):
    """A finished run of the micro model on three drawn pairs."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    result = descore("evaluate", "--model", model, *BENCHMARK, "--out", folder)
    return folder, result


@pytest.fixture
def table(films, tmp_path):
    """The user's own table: four clips of two prompts, one of which is not there."""
    for number, film in enumerate(films[0]):
        shutil.copy(film, tmp_path / f"{number}.mp4")
    rows = ["prompt,video,rating.look", "a ball,0.mp4,1", "a ball,1.mp4,3", "a cat,2.mp4,2", "a cat,gone.mp4,4"]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "mine.csv"


def test_people_see_figures_marks_and_the_next_command(run):
    folder, result = run
    assert result.exit_code == 0
    for text in ("thinking, on Drawn scenes", "scored 6 of 6", "overall", "Spearman", "s a clip", "have no verdict"):
        assert text in result.words
    assert f"Next: descore report {folder}" in result.stdout
    short = [line for line in result.stdout.splitlines() if str(folder) not in line]
    assert max(map(len, short)) <= 80


def test_the_folder_holds_all_that_a_report_needs(run):
    evaluation = read_run(run[0])
    assert len(evaluation.clips) == len(evaluation.records) == 6
    assert all(tuple(record) == RUN_KEYS for record in evaluation.records.values())
    assert evaluation.config["seed"] == 0
    assert {"torch", "transformers"} <= set(evaluation.config["versions"])
    assert evaluation.clips[0].marks is not None
    mistaken = {video for pair in evaluation.results["worst"] for video in _videos(evaluation.pairs[pair["pair"]])}
    assert {evaluation.clips[index].video for index in evaluation.frames} == mistaken


def _videos(pair):
    return pair.video_a, pair.video_b


def test_the_same_command_again_scores_nothing(run, descore, model, lines):
    folder, _ = run
    before = (folder / "clips.jsonl").read_bytes()
    result = descore("evaluate", "--model", model, *BENCHMARK, "--out", folder, "--json")
    [printed] = lines(result)
    assert printed == json.loads((folder / "results.json").read_text())
    assert (folder / "clips.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "named"), [(("--think", "off"), "think is 'on' there, 'off' here"), (("--seed", 1), "seed is 0 there")]
)
def test_another_config_is_refused_in_one_line(run, descore, model, options, named):
    result = descore("evaluate", "--model", model, *BENCHMARK, "--out", run[0], *options)
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.exit_code == 3
    assert named in error


def test_failures_come_first_and_are_tried_again(descore, model, table, films, lines):
    command = ("evaluate", "--model", model, "--benchmark", table, "--out", table.parent / "run", "--think", "off")
    result = descore(*command, "--json")
    [results] = lines(result)
    assert result.exit_code == 4
    assert "error: scored 3 of 4; not scored: gone.mp4: no such file" in result.stderr
    assert (results["scored"], results["of"]) == (3, 4)
    assert (results["labels"]["look"]["accuracy"]["n"], results["labels"]["look"]["accuracy"]["failed"]) == (1, 1)
    shutil.copy(films[0][0], table.parent / "gone.mp4")
    again = descore(*command)
    assert again.exit_code == 0
    assert "scored 4 of 4" in again.stdout
    assert len((table.parent / "run" / "clips.jsonl").read_text().splitlines()) == 5


def test_hand_made_features_are_models_too(descore, table, lines):
    result = descore("evaluate", "--model", "sharpness", "--benchmark", table, "--out", table.parent / "run", "--json")
    [results] = lines(result)
    assert results["labels"]["look"]["reward"] == "sharpness"
    assert (results["scored"], result.exit_code) == (3, 4)


def test_scores_of_another_system_are_evaluated(descore, table, lines):
    (table.parent / "theirs.csv").write_text("video,reward\n0.mp4,1\n1.mp4,2\n2.mp4,3\ngone.mp4,4\n")
    command = ("evaluate", "--scores", table.parent / "theirs.csv", "--benchmark", table)
    result = descore(*command, "--out", table.parent / "run", "--json")
    [results] = lines(result)
    assert result.exit_code == 0
    assert results["labels"]["look"]["accuracy"]["value"] == 1.0
    assert read_run(table.parent / "run").config["model"] == "theirs"


def test_the_lines_of_descore_score_are_such_scores(descore, model, table, lines):
    scored = descore("score", *(table.parent / f"{n}.mp4" for n in (0, 1)), "-p", "a ball", "-m", model, "--json")
    (table.parent / "lines.jsonl").write_text(scored.stdout)
    out = ("--out", table.parent / "run", "--json")
    result = descore("evaluate", "--scores", table.parent / "lines.jsonl", "--benchmark", table, *out)
    [results] = lines(result)
    assert (results["scored"], results["of"], result.exit_code) == (2, 4, 4)
    assert results["failures"][0]["error"] == "lines.jsonl has no score of it"


def test_without_out_the_folder_is_named_by_the_options(descore, table, monkeypatch):
    monkeypatch.chdir(table.parent)
    assert "The run: runs/jerk-mine" in descore("evaluate", "--model", "jerk", "--benchmark", table).stdout


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (("--benchmark", "drwn"), "did you mean drawn", 3),
        (("--benchmark", "fetv"), "--root", 3),
        ((*BENCHMARK, "--samples", 2, "--think", "off"), "one sample only", 3),
        ((*BENCHMARK, "--model", "no/such/folder"), "no such folder", 3),
        ((*BENCHMARK, "--scores", "absent.csv"), "no such file", 3),
    ],
)
def test_what_cannot_be_run_is_one_line(descore, tmp_path, options, message, code):
    result = descore("evaluate", *options, "--out", tmp_path / "run")
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert message in error
    assert result.exit_code == code
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def rival(tmp_path_factory):
    """Another model, in a folder of the same name."""
    folder = tmp_path_factory.mktemp("rival") / "micro"
    build_micro(seed=1).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Fails where a model is opened before the last one is gone."""
    opened, open_scorer = [], scoring.open_scorer

    def open_alone(*args, **options):
        assert [model for model in opened if model() is not None] == []
        scorer = open_scorer(*args, **options)
        opened.append(weakref.ref(scorer.engine.model))
        return scorer

    monkeypatch.setattr(scoring, "open_scorer", open_alone)
    return opened


@pytest.mark.slow
def test_several_models_are_judged_side_by_side(descore, model, rival, tmp_path, lines, one_at_a_time):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "reward_head.safetensors").write_bytes(b"cut")
    models = [option for name in (model, broken, rival) for option in ("--model", name)]
    command = ("evaluate", *models, *BENCHMARK, "--think", "off", "--out", tmp_path / "all")
    result = descore(*command)
    assert result.exit_code == CheckpointError.exit_code
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "broken: " in error
    assert "2 models on Drawn scenes" in result.words
    assert "difference" in result.words
    assert len(one_at_a_time) == 2
    folders = sorted(path for path in (tmp_path / "all").iterdir() if path.is_dir())
    assert [folder.name.endswith("micro") for folder in folders] == [True, True]
    before = [(folder / "clips.jsonl").read_bytes() for folder in folders]
    alone = descore("evaluate", "--model", rival, *BENCHMARK, "--think", "off", "--out", tmp_path / "alone", "--json")
    one_at_a_time.clear()  # a command of one model leaves it to the end of the process
    *runs, difference = lines(descore(*command, "--json"))
    assert [(folder / "clips.jsonl").read_bytes() for folder in folders] == before  # nothing is scored twice
    assert [run["kind"] for run in runs] == ["run", "run"]
    assert runs[1]["labels"] == lines(alone)[0]["labels"]
    assert (difference["kind"], difference["label"], difference["first"]) == ("difference", "overall", runs[0]["model"])
    own, first = (run["labels"]["overall"]["accuracy"]["value"] for run in reversed(runs))
    assert difference["accuracy"]["value"] == pytest.approx(own - first)
    assert 'id="models"' in (tmp_path / "all" / "report.html").read_text()


@pytest.mark.slow
def test_several_models_go_on_where_they_were_stopped(descore, table, monkeypatch):
    monkeypatch.chdir(table.parent)
    command = ("evaluate", "--model", "sharpness", "--model", "jerk", "--benchmark", table)
    judge = FeatureJudge.judge

    def interrupted(self, clips, *, open_video):
        if self.feature.name == "jerk":
            raise KeyboardInterrupt
        return judge(self, clips, open_video=open_video)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureJudge, "judge", interrupted)
        assert descore(*command).exit_code == 130
    folder = table.parent / "runs" / "compare-mine"
    before = (folder / "sharpness" / "clips.jsonl").read_bytes()
    result = descore(*command)
    assert result.exit_code == 4  # of the clip that is not there
    assert "error: sharpness: scored 3 of 4; not scored: gone.mp4" in result.stderr
    assert (folder / "sharpness" / "clips.jsonl").read_bytes().startswith(before)
    assert (folder / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("out of memory"), VideoError("drawn", "gone")])
def test_a_model_that_fails_while_it_judges_costs_no_other(descore, table, monkeypatch, fault):
    judge = FeatureJudge.judge

    def failing(self, clips, *, open_video):
        if self.feature.name == "sharpness":
            raise fault
        return judge(self, clips, open_video=open_video)

    monkeypatch.setattr(FeatureJudge, "judge", failing)
    folder = table.parent / "all"
    result = descore("evaluate", "-m", "sharpness", "-m", "jerk", "--benchmark", table, "--out", folder)
    assert result.exit_code == (4 if isinstance(fault, VideoError) else 3)
    assert "error: sharpness: " in result.stderr
    assert read_run(folder / "jerk").results["scored"] == 3
    assert "1 model on mine" in result.words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-m", "tiny", "-m", "tiny"), "--model tiny is given twice"),
        (("-m", "a", "-m", "b", "--scores", "x.csv"), "--scores: one table is judged at a time"),
        (("-m", "no/such", "-m", "nor/that"), "no/such: no such folder"),
    ],
)
def test_models_that_cannot_be_judged_are_named(descore, tmp_path, options, message):
    result = descore("evaluate", *options, *BENCHMARK, "--out", tmp_path / "run")
    assert result.exit_code == 3
    assert message in result.stderr.splitlines()[0]
    assert not (tmp_path / "run").exists()


def test_several_chains_say_what_their_spread_is_worth(run, descore, model, tmp_path, lines):
    options = ("evaluate", "--model", model, *BENCHMARK, "--samples", 2, "--out", tmp_path / "run")
    result = descore(*options)
    assert "The spread of 2 chains: does it tell wrong pairs from right ones?" in result.words
    assert "Accuracy on the surest share (by margin alone): 20%:" in result.words
    [spread] = [figures["spread"] for figures in lines(descore(*options, "--json"))[0]["labels"].values()]
    assert spread["shares"] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert "The spread of" not in run[1].words


def test_narrow_terminals_get_a_list(run, descore, model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    printed = descore("evaluate", "--model", model, *BENCHMARK, "--out", run[0]).stdout
    assert "\n  accuracy " in printed


def test_an_interrupted_run_scores_nothing_twice(descore, model, tmp_path, monkeypatch):
    command = ("evaluate", "--model", model, *BENCHMARK, "--batch-size", 2, "--think", "off", "--out", tmp_path / "run")
    score_each = Scorer.score_each
    calls = []

    def interrupted(self, requests, **params):
        calls.append(params)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score_each(self, requests, **params)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score_each", interrupted)
        assert descore(*command).exit_code == 130
    written = (tmp_path / "run" / "clips.jsonl").read_bytes()
    assert written.count(b"\n") == 4
    assert not (tmp_path / "run" / "results.json").exists()
    assert descore(*command).exit_code == 0
    check_all_scored_once(tmp_path / "run", written, clips=6)


@pytest.mark.slow
def test_a_killed_run_scores_nothing_twice(descore, model, tmp_path):
    folder = tmp_path / "run"
    options = ("--model", model, *("--benchmark", "drawn", "--limit", "12", "--batch-size", "2", "--think", "off"))
    command = [sys.executable, "-m", "descore", "evaluate", *options, "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        before = wait_for_records(folder / "clips.jsonl", process)
        process.send_signal(signal.SIGKILL)
    written = (folder / "clips.jsonl").read_bytes()
    assert process.returncode == -signal.SIGKILL
    assert 0 < before <= written.count(b"\n") < 24
    assert not (folder / "results.json").exists()
    with (folder / "clips.jsonl").open("ab") as file:
        file.write(b'{"video": "drawn:9')  # as if it had died while writing
    assert descore("evaluate", *options, "--out", folder).exit_code == 0
    check_all_scored_once(folder, written, clips=24)


def check_all_scored_once(folder, written, *, clips):
    """Every clip has one record, and what was written before the stop is unchanged."""
    text = (folder / "clips.jsonl").read_bytes()
    records = [json.loads(line) for line in text.splitlines()]
    assert text.startswith(written[: written.rfind(b"\n") + 1])
    assert len(records) == len({(record["video"], record["prompt"]) for record in records}) == clips


def wait_for_records(path, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and (count := path.read_bytes().count(b"\n")):
            return count
        time.sleep(0.02)
    raise AssertionError("no record was written")


@pytest.mark.slow
def test_features_and_score_tables_import_no_torch(table):
    scores = table.with_name("scores.csv")
    scores.write_text("video,reward\n0.mp4,1\n1.mp4,2\n")
    code = (
        "import json, sys\n"
        "from descore.cli import app\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    app(command, standalone_mode=False)\n"
        "    heavy = {'torch', 'torchvision', 'transformers'} & set(sys.modules)\n"
        "    assert not heavy, heavy"
    )
    commands = [
        ["evaluate", *judge, "--benchmark", str(table), "--out", str(table.with_name(name))]
        for name, judge in (("jerk", ("--model", "jerk")), ("table", ("--scores", str(scores))))
    ]
    subprocess.run([sys.executable, "-c", code, json.dumps(commands)], check=True, capture_output=True)


def test_every_benchmark_is_listed(descore):
    result = descore("benchmarks")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in BENCHMARKS)


def test_a_benchmark_is_shown_with_published_figures(descore):
    words = descore("benchmarks", "genai-bench-video").words
    assert "huggingface.co/datasets/TIGER-Lab/GenAI-Bench" in words
    assert "overall DeScore 0.765 0.504 arXiv 2605.05922" in words


def test_benchmarks_as_json(descore, lines):
    rows = lines(descore("benchmarks", "--json"))
    assert [row["name"] for row in rows] == list(BENCHMARKS)
    [videogen] = [row for row in rows if row["name"] == "videogen-rewardbench"]
    assert videogen["labels"] == ["VQ", "MQ", "TA", "overall"]
    (row,) = lines(descore("benchmarks", "fetv", "--json"))
    assert row["files"] == ["ratings.csv"]


def test_a_table_of_ones_own_is_a_benchmark(descore, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("prompt,video,rating.VQ,rating.MQ\np,x.mp4,1,2\n")
    words = descore("benchmarks", table).words
    assert "VQ, MQ" in words
    assert "people gave ratings" in words


def test_an_unknown_benchmark_is_one_line(descore):
    result = descore("benchmarks", "fetf")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: unknown benchmark 'fetf'; did you mean fetv?")
    assert result.stderr.count("\n") == 1
