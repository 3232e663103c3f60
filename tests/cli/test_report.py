"""`descore report`, from run directories to a page."""

import json
import shutil
import subprocess
import sys

import pytest
from tests.report.made_runs import made_stress, write_runs


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(folders, tmp_path):
    """One run to spoil."""
    return shutil.copytree(folders[0], tmp_path / "run")


def test_runs_become_one_page(descore, folders, tmp_path):
    out = tmp_path / "report.html"
    result = descore("report", *folders, "--out", out)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{out}: 8 runs, 0.")
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>")
    assert list(tmp_path.iterdir()) == [out]


def test_a_page_is_reproducible_and_a_folder_counts_once(descore, folders, tmp_path):
    out = tmp_path / "report.html"
    descore("report", folders[0], folders[4], "--out", out)
    first = out.read_bytes()
    result = descore("report", folders[0], folders[4], folders[0].parent / "." / folders[0].name, "--out", out)
    assert result.stdout.startswith(f"{out}: 2 runs")
    assert out.read_bytes() == first


def test_stress_results_are_found_with_or_without_a_run(descore, folder, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    for place in (folder, alone):
        (place / "stress.json").write_text(json.dumps(made_stress()))
    out = tmp_path / "report.html"
    assert descore("report", alone, "--out", out).stdout.startswith(f"{out}: 1 stress test,")
    assert descore("report", folder, alone, "--out", out).stdout.startswith(f"{out}: 1 run and 2 stress tests,")
    assert out.read_text(encoding="utf-8").count("shuffle the frames") == 2


def test_a_folder_that_is_no_run_is_one_line(descore, tmp_path):
    result = descore("report", tmp_path, "--out", tmp_path / "report.html")
    assert result.exit_code == 5
    [line] = result.stderr.splitlines()
    assert "run.json" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["results.json", "labels.json", "run.json"])
def test_a_broken_run_is_one_line_and_leaves_no_page(descore, folder, tmp_path, name):
    for spoil in ((folder / name).unlink, lambda: (folder / name).write_text('{"half": ')):
        spoil()
        result = descore("report", folder, "--out", tmp_path / "report.html")
        assert result.exit_code == 5
        [line] = result.stderr.splitlines()
        assert name in line
        assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"model": "m"}', "\udcff".encode("utf-8", "surrogateescape")])
def test_broken_stress_results_are_one_line(descore, folder, tmp_path, content):
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "stress.json").write_bytes(data)
    result = descore("report", folder, "--out", tmp_path / "report.html")
    assert result.exit_code == 5
    [line] = result.stderr.splitlines()
    assert "stress.json" in line


def test_a_page_that_cannot_be_written_is_one_line(descore, folder, tmp_path):
    (tmp_path / "file").touch()
    for out, words in ((tmp_path, "expected a page"), (tmp_path / "file" / "report.html", "file is no folder")):
        result = descore("report", folder, "--out", out)
        assert result.exit_code == 3
        [line] = result.stderr.splitlines()
        assert words in line


@pytest.mark.slow
def test_a_report_needs_no_model(folder, tmp_path):
    """It answers at once, since neither torch nor transformers is loaded."""
    code = (
        "import sys\nfrom descore.cli import app\n"
        f"app(['report', {str(folder)!r}, '--out', {str(tmp_path / 'report.html')!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]"
