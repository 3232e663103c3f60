"""Damaged run folders and tables are one line with file and line: never a traceback, never a wrong figure."""

import json
import random
import shutil
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

from descore.cli import app
from descore.data.tables import Cells, read_rows
from descore.errors import DataError
from descore.evaluation.judges import read_scores
from descore.evaluation.runs import read_run
from descore.io import parse_json, read_json_object, read_records
from descore.report.page import render
from descore.training.metrics import check_journals
from descore.training.rl.run import train_rl
from descore.video.encoder import write_mp4
from tests.report.made_runs import write_runs
from tests.training.conftest import make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows

DEEP, LONG = "[" * 100_000, "9" * 5000
TEXTS = {
    "deep": (DEEP, "too many brackets"),
    "deep object": ('{"a":' * 100_000, "too many brackets"),
    "long number": (f'{{"a": {LONG}}}', "too many digits"),
    "latin": (b'{"a": "\xe9"}', "byte 0xe9 is not UTF-8"),
    "cut": ('{"a": ', "is not JSON: Expecting value at character 7"),
    "empty": ("", "is not JSON"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_json_that_cannot_be_read_is_a_data_error(name, tmp_path):
    text, message = TEXTS[name]
    with pytest.raises(DataError, match=rf"x\.json:7: .*{message}"):
        parse_json(text, file="x.json", line=7)
    file = tmp_path / "x.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"x\.json:1: .*{message}"):
        read_json_object(file)
    if text and name != "cut":
        journal = tmp_path / "x.jsonl"
        journal.write_bytes(b'{"b": 1}\n' + file.read_bytes() + b"\n")
        with pytest.raises(DataError, match=rf"x\.jsonl:2: .*{message}"):
            read_records(journal)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_json_tables_name_the_line(name, suffix, tmp_path):
    text, message = TEXTS[name]
    if name == "empty":
        pytest.skip("an empty line is passed over")
    raw = text if isinstance(text, bytes) else text.encode()
    file = tmp_path / f"t{suffix}"
    file.write_bytes(b'{"b": 1}\n' + raw + b"\n" if suffix == ".jsonl" else b'[{"b": 1},\n' + raw + b"]")
    message = "is not JSON" if name == "cut" else message  # in an array the text goes on behind it
    with pytest.raises(DataError, match=rf"t\{suffix}:2: .*{message}"):
        list(read_rows(file))


@pytest.mark.parametrize("marks", [DEEP, f'{{"subject": {LONG}}}'])
def test_marks_that_cannot_be_read_name_their_row(marks, tmp_path):
    write_table(tmp_path / "t.csv", [{"prompt": "a cat", "marks": marks}])
    [(line, row)] = read_rows(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"t\.csv:2: marks has .*too many"):
        Cells(file="t.csv", line=line, row=row).marks("marks")


def test_a_read_error_names_the_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json:1: cannot be read: No such file"):
        read_json_object(tmp_path / "gone.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of a model with chains, marks, ratings and mistakes, as they lie on the disk."""
    return write_runs(tmp_path_factory.mktemp("runs"))


VALUES = (None, True, "x", -1, 10**30, 1e400, [], {}, [[]], {"x": 1})


def leaves(value, path=()):
    """The paths to all values within a value, itself included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from leaves(item, (*path, key))


def put(value, path, new):
    if not path:
        return new
    for key in path[:-1]:
        value = value[key]
    if new is ...:
        del value[path[-1]]
    else:
        value[path[-1]] = new
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "labels.json", "results.json", "clips.jsonl"])
def test_any_altered_value_is_refused_or_shown(runs, name, tmp_path):
    """A seeded sample of all values of a file, each replaced by one of another type, or taken out."""
    folder = shutil.copytree(runs[0], tmp_path / "run")
    original = (folder / name).read_text()
    lines = original.splitlines() if name.endswith("l") else [original]
    draw = random.Random(name)
    places = [(number, path) for number, line in enumerate(lines[:3]) for path in leaves(json.loads(line))]
    refused = 0
    for number, path in draw.sample(places, min(60, len(places))):
        value, new = json.loads(lines[number]), draw.choice((*VALUES, ...))
        if new is ... and not path:
            continue
        replaced = put(value, path, new)
        text = json.dumps(replaced if not path else value)
        (folder / name).write_text("\n".join([*lines[:number], text, *lines[number + 1 :]]) + "\n")
        refusal = refusal_of(folder, f"{name}: {path} = {new!r}")
        refused += refusal is not None
        assert refusal is None or name in refusal
    assert refused > 5


def refusal_of(folder, case):
    """What a run is refused for; None if it becomes a page."""
    try:
        render([read_run(folder)], stress=[])
    except DataError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{case}: {error!r}") from error
    return None


def garble(content, draw):
    altered = bytearray(content)
    for _ in range(max(1, len(altered) // 200)):
        altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
    return bytes(altered)


DAMAGE = {
    "empty": lambda content, draw: b"",  # noqa: ARG005
    "half": lambda content, draw: content[: len(content) // 2],  # noqa: ARG005
    "garbled": garble,
    "deep": lambda content, draw: DEEP.encode() + b"\n",  # noqa: ARG005
    "long number": lambda content, draw: f'{{"model": {LONG}}}\n'.encode(),  # noqa: ARG005
    "list": lambda content, draw: b"[]\n",  # noqa: ARG005
    "object": lambda content, draw: b"{}\n",  # noqa: ARG005
    "latin": lambda content, draw: content.replace(b"a", b"\xe9", 3),  # noqa: ARG005
    "gone": None,
    "a folder": None,
}


def damage(file, kind):
    content = file.read_bytes()
    if kind in ("gone", "a folder"):
        file.unlink()
        if kind == "a folder":
            file.mkdir()
    else:
        file.write_bytes(DAMAGE[kind](content or b"aaaa", random.Random(f"{file.name} {kind}")))


def invoke(*args):
    """Exit code and standard error; a traceback fails."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], prog_name="descore")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"{' '.join(map(str, args))}: {result.exception!r}") from result.exception
    return result.exit_code, result.stderr


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder with a run of `evaluate` and one of `stress`, and the commands that write them again."""
    folder = tmp_path_factory.mktemp("evaluated")
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 60 * (number + 1), (4, 32, 32, 3), dtype=np.uint8)
        write_mp4(folder / f"{number}.mp4", noise, fps=4)
    pair = {"prompt": "a ball", "preference": "b"}
    table = write_table(
        folder / "t.csv",
        [
            {**pair, "video_a": f"{a}.mp4", "video_b": f"{b}.mp4", "prompt": f"a ball {b}"}
            for a, b in ((1, 0), (2, 1), (3, 2), (0, 3))
        ],
    )
    commands = [(verb, "--benchmark", table, "--model", "sharpness") for verb in ("evaluate", "stress")]
    for command in commands:
        assert invoke(*command, "--out", folder / "run")[0] == 0
    return folder / "run", commands


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_each_file_of_a_damaged_run_is_one_line(evaluated, kind, tmp_path):
    """Whatever is damaged: the report names a file or leaves it out; the run's command mends it or names it."""
    whole, commands = evaluated
    for name in sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()):
        folder = shutil.copytree(whole, tmp_path / name.replace("/", "-"))
        damage(folder / name, kind)
        codes = {}
        for command in (("report", folder, "--out", tmp_path / "r.html"), *((*c, "--out", folder) for c in commands)):
            code, error = invoke(*command)
            codes[command[0]] = code
            assert code in (0, 3, 5), (name, command, error)
            if code:
                [line] = error.splitlines()
                assert name.partition("/")[0] in line, (name, command, line)
        if not codes["evaluate"] and not codes["stress"]:
            assert invoke("report", folder, "--out", tmp_path / "r.html")[0] == 0, name


def test_labels_and_results_are_mended_by_the_command(evaluated, tmp_path):
    whole, (command, _) = evaluated
    folder = shutil.copytree(whole, tmp_path / "run")
    for name in ("labels.json", "results.json"):
        damage(folder / name, "half")
    assert invoke(*command, "--out", folder) == (0, "")
    for name in ("labels.json", "results.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_results_of_lost_records_are_refused(evaluated, tmp_path):
    whole, (command, _) = evaluated
    folder = shutil.copytree(whole, tmp_path / "run")
    lines = (folder / "clips.jsonl").read_text().splitlines(keepends=True)
    (folder / "clips.jsonl").write_text("".join(lines[:-2]))
    code, error = invoke("report", folder, "--out", tmp_path / "r.html")
    assert code == 5
    assert f"results.json:1: counts {len(lines)} clips with a score, clips.jsonl has {len(lines) - 2}" in error
    assert invoke(*command, "--out", folder) == (0, "")
    assert len((folder / "clips.jsonl").read_text().splitlines()) == len(lines)


def test_a_damaged_score_table_names_its_line(evaluated, tmp_path):
    (tmp_path / "s.jsonl").write_text('{"video": "0.mp4", "reward": 1}\n{"video": "1.mp4", "reward": ' + LONG + "}\n")
    clips = read_run(evaluated[0]).clips
    with pytest.raises(DataError, match=r"s\.jsonl:2: has a number of too many digits"):
        read_scores(tmp_path / "s.jsonl", clips=clips)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("metrics.jsonl", '{"step": 1, "loss": "low"}', r"metrics\.jsonl:1: found 'low', expected numbers"),
        ("metrics.jsonl", "{", r"metrics\.jsonl:1: is not JSON"),
        ("unreadable.jsonl", '{"table": 3}', r"unreadable\.jsonl:1: has no table and video"),
    ],
)
def test_damaged_journals_of_training_name_the_line(tmp_path, file, line, message):
    (tmp_path / file).write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        check_journals(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = make_data(tmp_path_factory.mktemp("trained"))
    write_table(data / "marked.csv", marked_rows())
    train_rl(make_rl_config(data, data / "run"))
    shutil.rmtree(data / "run" / "model")  # so that a rerun judges, calibrates and writes it
    return data


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["half", "deep", "object", "gone"])
def test_each_file_of_a_damaged_training_run_is_one_line(trained, kind, tmp_path):
    """The run's command goes on, or names the file; it never ends in a traceback."""
    whole, config = trained / "run", trained / "rl.yaml"
    names = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and "checkpoint-2" not in str(path)]
    for name in names:
        folder = shutil.copytree(whole, tmp_path / str(name).replace("/", "-"))
        damage(folder / name, kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code, error = invoke("train", "rl", config, f"run.out={folder}")
        assert code in (0, 3, 5), (name, error)
        assert (folder / "model").is_dir() == (code == 0), (name, error)
        assert code == 0 or name.name in error or name.parent.name in error or kind == "gone", (name, error)
