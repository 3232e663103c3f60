"""`descore stress` end to end: on files, on drawn clips, on a table, beside a run, and refused."""

import json
import shutil

import numpy as np
import pytest
from tests.evaluation.test_stress import moving

from descore.evaluation.features import HACK_MEASURES
from descore.evaluation.perturbations import PERTURBATIONS, one_repeated
from descore.video.encoder import write_mp4

DRAWN = ("--limit", 2, "--think", "off")


@pytest.fixture(scope="module")
def test(descore, model, tmp_path_factory):
    """A stress test of the micro model on two drawn pairs."""
    folder = tmp_path_factory.mktemp("stress") / "test"
    return folder, descore("stress", "--model", model, *DRAWN, "--out", folder)


@pytest.fixture
def table(films, tmp_path):
    """The user's own table: three clips, one of which is not there."""
    for number in (0, 1):
        shutil.copy(films[0][number], tmp_path / f"{number}.mp4")
    rows = ["prompt,video,rating.look", "a ball,0.mp4,1", "a cat,1.mp4,3", "a cat,gone.mp4,2"]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "mine.csv"


def test_people_see_each_change_and_what_to_do_next(test):
    folder, result = test
    assert result.exit_code == 0
    assert all(name in result.stdout for name in PERTURBATIONS)
    for text in (
        "without thinking, on drawn",
        "scored 4 of 4",
        "Too few clips to conclude from (under 5):",
        "in deviations",
    ):
        assert text in result.words
    assert "Not as expected" not in result.words  # four clips are too few for any change
    assert f"Next: descore report {folder}" in result.stdout
    short = [line for line in result.stdout.splitlines() if str(folder) not in line]
    assert max(map(len, short)) <= 80


def test_the_file_holds_what_was_run_and_every_row(test, model):
    results = json.loads((test[0] / "stress.json").read_text())
    assert (results["schema"], results["model"], results["think"], results["seed"]) == (1, model, "off", 0)
    assert {"descore", "torch", "transformers"} <= set(results["versions"])
    assert (results["clips"], results["scored"], results["failures"]) == (4, 4, [])
    assert [row["perturbation"] for row in results["rows"]] == list(PERTURBATIONS)
    by_name = {row["perturbation"]: row for row in results["rows"]}
    flattery = by_name["flattery in the prompt"]
    assert {"expected", "why", "figure", "shift", "n", "left_out", "failures"} <= set(flattery)
    assert (flattery["expected"], flattery["n"], flattery["figure"]["groups"]) == ("same", 4, 2)
    assert by_name["larger frames"]["shift"] is None  # drawn at the size that is the largest for this model


def test_json_is_a_row_a_line_and_the_same_again(descore, table, lines):
    shutil.copy(table.parent / "0.mp4", table.parent / "gone.mp4")
    command = ("stress", "--benchmark", table, "--model", "sharpness", "--out", table.parent / "test", "--json")
    result = descore(*command)
    assert result.exit_code == 0
    assert lines(result) == json.loads((table.parent / "test" / "stress.json").read_text())["rows"]
    assert lines(descore(*command, "--batch-size", 3)) == lines(result)


def test_the_report_shows_it(test, descore, tmp_path):
    assert descore("report", test[0], "--out", tmp_path / "report.html").exit_code == 0
    assert "flattery in the prompt" in (tmp_path / "report.html").read_text()


def test_clips_of_one_prompt_are_held_against_foreign_prompts(descore, model, films, lines):
    result = descore("stress", *films[0][:2], "--prompt", "a red ball", "--model", model, "--json")
    by_name = {row["perturbation"]: row for row in lines(result)}
    assert result.exit_code == 0
    assert by_name["another prompt"]["n"] == 2
    assert (by_name["another prompt"]["figure"]["groups"], by_name["another prompt"]["figure"]["low"]) == (1, None)
    assert by_name["frames reversed"]["n"] == 2


def test_failures_come_first(descore, table, lines):
    result = descore("stress", "--benchmark", table, "--model", "sharpness", "--json")
    assert result.exit_code == 4
    assert "error: scored 2 of 3; not scored: gone.mp4" in result.stderr
    assert all(row["figure"]["failed"] == 1 for row in lines(result))


def test_a_change_that_leaves_no_score_is_named(descore, table):
    shutil.copy(table.parent / "0.mp4", table.parent / "gone.mp4")
    result = descore("stress", "--benchmark", table, "--model", "jerk")
    assert result.exit_code == 4
    assert "error: one frame repeated: 3 clips not scored: 0.mp4: nothing changes from frame to frame" in result.stderr
    assert "scored 3 of 3" in result.words


def test_it_stands_beside_a_run_of_the_same_model_only(descore, table):
    shutil.copy(table.parent / "0.mp4", table.parent / "gone.mp4")
    folder, options = table.parent / "run", ("--benchmark", table, "--out", table.parent / "run")
    assert descore("evaluate", "--model", "sharpness", *options).exit_code == 0
    assert descore("stress", "--model", "sharpness", *options).exit_code == 0
    assert {"run.json", "results.json", "stress.json"} <= {path.name for path in folder.iterdir()}
    before = (folder / "stress.json").read_bytes()
    for other, named in (
        (("--model", "jerk"), "digest is"),
        (("--model", "sharpness", "--seed", 1), "seed is 0 there"),
        (("--model", "sharpness", "--limit", 2), "limit is None there, 2 here; asked is"),
    ):
        refused = descore("stress", *options, *other)
        assert refused.exit_code == 3
        assert named in refused.stderr
    assert (folder / "stress.json").read_bytes() == before


def test_narrow_terminals_get_a_list(descore, table, monkeypatch):
    shutil.copy(table.parent / "0.mp4", table.parent / "gone.mp4")
    monkeypatch.setenv("COLUMNS", "40")
    printed = descore("stress", "--benchmark", table, "--model", "sharpness").stdout
    assert "grey\n  lower: 0." in printed
    assert max(map(len, printed.splitlines())) <= 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("a.mp4", "--benchmark", "drawn"), "give one of the two"),
        (("a.mp4",), "--prompt"),
        (("a.mp4", "--prompt", " "), "--prompt"),
        (("--prompt", "a ball"), "name the clips"),
        (("--benchmark", "drwn"), "did you mean drawn"),
        (("a.mp4", "--prompt", "a ball", "--model", "jerk"), "found 1 clip, expected 2"),
        (("--model", "no/such/folder"), "no such folder"),
        (("--model", "jerk", "--out", "here.txt"), "cannot be made"),
    ],
)
def test_what_cannot_be_run_is_one_line(descore, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("a file")
    result = descore("stress", *options)
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert message in error
    assert result.exit_code == 3


@pytest.fixture(scope="module")
def generators(tmp_path_factory):
    """Six moving clips with their prompts, and the same, sharper and brighter but still."""
    folder = tmp_path_factory.mktemp("generators")
    for side in ("before", "after"):
        (folder / side).mkdir()
    for number in range(6):
        frames = moving(number).frames
        still = np.clip(one_repeated(frames).astype(int) * 2 - 60, 0, 255).astype(np.uint8)
        for side, shown in (("before", frames), ("after", still)):
            write_mp4(folder / side / f"{number}.mp4", shown, fps=4)
            (folder / side / f"{number}.txt").write_text(f"squares {number}")
    return folder


def of_both(generators, *options):
    return ("stress", "--before", generators / "before", "--after", generators / "after", *options)


def test_a_hack_of_two_generators_is_named(descore, generators, tmp_path):
    command = of_both(generators, "--model", "sharpness", "--out", tmp_path)
    result = descore(*command)
    assert result.exit_code == 0
    assert "scored 6 of 6 clips before, 6 of 6 clips after; compared by prompt, 6 on both sides" in result.words
    assert (
        "The reward went up while measures say worse: frozen motion, repeated frames, over-sharpening" in result.words
    )
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    written = json.loads((tmp_path / "generators.json").read_text())
    assert written["hacks"][:3] == ["frozen motion", "repeated frames", "over-sharpening"]
    assert [row["name"] for row in written["changes"]] == ["reward", *HACK_MEASURES]
    assert not (tmp_path / "generators.jsonl").exists()
    assert descore(*command, "--fail").exit_code == 1
    other = of_both(generators, "--model", "jerk", "--out", tmp_path)
    assert "of other options" in descore(*other).stderr


def test_the_rows_of_generators_are_lines_of_json(descore, generators, lines):
    rows = {row["name"]: row for row in lines(descore(*of_both(generators, "--model", "sharpness", "--json")))}
    assert (rows["reward"]["better"], rows["motion"]["worse"], rows["motion"]["named"]) == (True, True, True)
    assert (rows["borders"]["worse"], rows["borders"]["named"]) == (False, False)
    same = ("stress", "--before", generators / "after", "--after", generators / "after", "--model", "sharpness")
    result = descore(*same, "--fail")
    assert (result.exit_code, "No measure says worse" in result.words) == (0, True)


def test_unreadable_clips_of_generators_come_first(descore, generators, tmp_path):
    shutil.copytree(generators / "after", tmp_path / "after")
    (tmp_path / "after" / "0.mp4").write_bytes(b"no video")
    (tmp_path / "after" / "1.txt").unlink()
    result = descore("stress", "--before", generators / "before", "--after", tmp_path / "after", "--model", "sharpness")
    assert result.exit_code == 4
    assert result.stderr.startswith("error: scored 10 of 12; not scored: ")
    assert "no prompt: expected it in 1.txt beside the clip" in result.stderr
    assert "Too few clips" in result.words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--before", "a"), "--after: missing; give the clips of two generators"),
        (("--after", "a"), "--before: missing"),
        (("--fail",), "--before and --after: missing"),
        (("x.mp4", "--before", "a", "--after", "b"), "CLIP beside --before and --after; leave it out"),
        (("--before", "a", "--after", "b", "--benchmark", "fetv"), "--benchmark beside --before and --after"),
    ],
)
def test_generators_that_do_not_fit_are_one_line(descore, options, message):
    result = descore("stress", *options)
    assert result.exit_code == 3
    assert message in result.stderr
