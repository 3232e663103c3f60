"""Bulk scoring on a Ray cluster: the rows of the run in one process, whatever dies in between."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from descore.errors import ConfigError
from descore.rewards import ray_bulk as bulk
from descore.rewards import read_scored, score_table
from descore.rewards.journal import journal_of
from descore.rewards.ray_bulk import check_shards_folder, default_folder, write_scores_on_ray
from descore.rewards.ray_cluster import RayOptions, check_ray, first_error, place_actors
from descore.rewards.ray_stages import ClipDecoder, ClipScorer, ModelChoice, read_facts
from descore.rewards.shards import ResultShards
from descore.rewards.sources import open_source
from descore.scorer import SamplingParams, Scorer
from tests.rewards.bulk_case import SAMPLED, make_films, make_table, prompt_of, write_rows
from tests.rewards.conftest import build_scorer
from tests.rewards.ray_stub import FailingScorer
from tests.robustness.test_workers import wait_for

ROOT = Path(__file__).parents[2]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'")
LOCAL = RayOptions(address="local", actors=2, decoders=1)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    make_films(folder / "clips")
    (folder / "clips" / "text.mp4").write_text("words")
    return folder


@pytest.fixture
def folder(films, tmp_path):
    (tmp_path / "clips").symlink_to(films / "clips")
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "micro"
    build_scorer().model.save_pretrained(path)
    return path


@pytest.fixture
def choice(checkpoint):
    return ModelChoice(name="micro", source=str(checkpoint), paradigm=None, device="cpu", batch_size=2)


PARAMS = SamplingParams(**SAMPLED)


def work_of(table):
    """The blocks of a run's work list, as Ray would read them."""
    run = bulk._RayRun(ResultShards(table.parent / "j"), total=0, on_progress=print)
    missing = run.list_work(open_source(table))
    return missing, pa.parquet.read_table(run.work), list(run.keys)


@pytest.mark.slow
def test_what_the_nodes_do_gives_the_rows_of_one_process(folder, choice, checkpoint):
    table = folder / "t.jsonl"
    videos = ["clips/0.mp4", "clips/text.mp4", "absent.mp4", "clips/1.mp4", "", "clips/2.mp4"]
    write_rows(table, [{"prompt": prompt_of(n), "video": video} for n, video in enumerate(videos)])
    _, work, _ = work_of(table)
    facts = read_facts(choice, PARAMS)
    decoded = pa.concat_tables(list(ClipDecoder(facts.sampling)(work)))
    assert [pickle.loads(clip).size if clip else None for clip in decoded["clip"].to_pylist()][:2] == [(48, 48), None]
    results = ClipScorer(choice, PARAMS, facts)(decoded).to_pylist()
    scorer = Scorer.from_pretrained(checkpoint, batch_size=2)
    expected = [row.results() for row in score_table(table, scorer=scorer, workers=0, **SAMPLED)]
    own = ("id", "key", "prompt", "video", "seconds")
    for result, row in zip(results, expected, strict=True):
        assert {name: result[name] for name in row} == row | {
            "model": "micro",
            "reward": result["reward"],
            "score": result["score"],
        }
        assert result["reward"] == pytest.approx(row["reward"], abs=1e-5)
        assert set(result) == {*row, *own}
    assert [row["error"] is None for row in expected] == [True, False, False, True, False, True]


def test_a_node_with_another_model_is_refused(choice, tmp_path):
    facts = read_facts(choice, PARAMS)
    other = build_scorer()
    other.model.head.weight.data.mul_(2)
    other.model.save_pretrained(tmp_path / "other")
    stale = ModelChoice(name="micro", source=str(tmp_path / "other"), paradigm=None, device="cpu", batch_size=2)
    with pytest.raises(ConfigError, match=r"a node differs \(digest is '.*', not '.*'\); install and copy the same"):
        ClipScorer(stale, PARAMS, facts)


def test_the_work_list_has_each_clip_once(folder):
    table = make_table(folder, count=14)  # of 6 films and 4 prompts: rows 12 and 13 are rows 0 and 1 again
    missing, work, keys = work_of(table)
    assert (missing, work.num_rows, len(keys), len(set(keys))) == (12, 12, 14, 12)
    assert keys[12:] == keys[:2]
    assert work["key"].to_pylist() == keys[:12]
    assert len(set(work["id"].to_pylist())) == 12
    assert all(Path(path).is_absolute() for path in work["path"].to_pylist())


@pytest.mark.parametrize(
    ("resources", "options", "device", "expected"),
    [
        ({"CPU": 4}, {}, None, (1, 1, False)),
        ({"CPU": 16}, {}, None, (7, 7, False)),
        ({"CPU": 64, "GPU": 8}, {}, None, (8, 62, True)),
        ({"CPU": 384, "GPU": 16}, {}, "cuda", (16, 128, True)),
        ({"CPU": 64, "GPU": 8}, {"actors": 4, "decoders": 3}, "cuda", (4, 3, True)),
        ({"CPU": 64, "GPU": 8}, {"actors": 2}, "cpu", (2, 16, False)),
    ],
)
def test_actors_are_placed(resources, options, device, expected):
    placement = place_actors(resources, RayOptions(**options), device=device)
    assert (placement.actors, placement.decoders, placement.on_gpu) == expected
    assert placement.needs == ({"num_gpus": 1} if expected[2] else {"num_cpus": 1})


@pytest.mark.parametrize(
    ("resources", "options", "device", "message"),
    [
        (
            {"CPU": 4},
            {"actors": 2, "decoders": 1},
            None,
            "has 4 CPUs; expected 2 for the actors that hold a model, 1 for",
        ),
        ({"CPU": 2, "GPU": 1}, {}, None, "has 2 CPUs; expected 1 for decoding and 2 for reading and writing: lower"),
        ({"CPU": 8}, {}, "cuda", "the cluster has no GPU"),
        ({"CPU": 8, "GPU": 2}, {"actors": 3}, None, "--actors 3: the cluster has 2 GPUs"),
        ({"CPU": 8, "GPU": 2}, {}, "cuda:1", "--device cuda:1: on a cluster each actor has a GPU of its own"),
    ],
)
def test_actors_without_room_are_refused(resources, options, device, message):
    with pytest.raises(ConfigError, match=message):
        place_actors(resources, RayOptions(**options), device=device)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ray::x\n  File y\ndescore.errors.ConfigError: 2 clips are too many\n\nThe above", "2 clips are too many"),
        ("  raise\nZeroDivisionError: zero\n\nray.exceptions.UserCodeException: UDF", "ZeroDivisionError: zero"),
        ("The actor died.\nmore", "The actor died."),
        ("", "RuntimeError"),
    ],
)
def test_the_error_of_a_task_is_one_line(text, expected):
    assert first_error(RuntimeError(text)) == expected


def test_an_address_that_cannot_be_used_is_refused_at_once():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--address 127.0.0.1:{port}: nothing answers there .*ray start --head"):
            check_ray(f"127.0.0.1:{port}")
    for address in ("ray://head:10001", "head", ":6379"):
        with pytest.raises(ConfigError, match="expected HOST:PORT of the cluster's head, auto or local"):
            check_ray(address)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("descore.rewards.ray_cluster.find_spec", lambda name: None if name == "ray" else object())
    with pytest.raises(ConfigError, match=r"--engine ray needs ray; run pip install '\.\[ray\]'"):
        check_ray(None)


def test_the_folder_that_is_written(tmp_path):
    (tmp_path / "clips.d").mkdir()
    assert default_folder(tmp_path / "t.csv") == tmp_path / "t.scores"
    assert default_folder(tmp_path / "clips.d") == tmp_path / "clips.d.scores"
    check_shards_folder(tmp_path / "t.scores", overwrite=False)
    with pytest.raises(ConfigError, match=r"writes a folder of Parquet shards; expected a name without \.csv"):
        check_shards_folder(tmp_path / "s.csv", overwrite=False)
    check_shards_folder(tmp_path / "absent" / "s", overwrite=False)  # its folder is made
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is no folder"):
        check_shards_folder(tmp_path / "file" / "s", overwrite=False)
    (tmp_path / "s").mkdir()
    with pytest.raises(ConfigError, match="exists already; choose another --out, or write over it with --overwrite"):
        check_shards_folder(tmp_path / "s", overwrite=False)
    check_shards_folder(tmp_path / "s", overwrite=True)
    journal_of(tmp_path / "t").write_text("of a run in one process")
    with pytest.raises(ConfigError, match="has the journal of another kind of run"):
        check_shards_folder(tmp_path / "t", overwrite=True)


def test_another_run_is_refused_by_what_differs(tmp_path):
    for _ in range(2):
        bulk._keep_settings(tmp_path, {"seed": 0, "digest": "a"}, out=Path("scores"))
    with pytest.raises(
        ConfigError, match=r"scores: holds another run \(seed is 0 there, 3 here\); choose another --out"
    ):
        bulk._keep_settings(tmp_path, {"seed": 3, "digest": "a"}, out=Path("scores"))


def run_score(table, checkpoint, *options):
    command = [
        sys.executable,
        "-m",
        "descore",
        "score",
        table,
        "--model",
        checkpoint,
        "--batch-size",
        2,
        "--workers",
        1,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    return [*map(str, (*command, "--max-chain-tokens", 6, *options))], environment


ON_RAY = ("--engine", "ray", "--address", "local", "--actors", 2)


def score_with(table, checkpoint, *options):
    command, environment = run_score(table, checkpoint, *options)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def same_rows(out, other):
    ours, theirs = (list(read_scored(path)) for path in (out, other))
    assert len(ours) == len(theirs)
    for one, expected in zip(ours, theirs, strict=True):
        assert {**one.results(), "reward": None, "score": None} == {**expected.results(), "reward": None, "score": None}
        assert one.reward == pytest.approx(expected.reward, abs=1e-5)
        assert one.score == pytest.approx(expected.score, abs=1e-5)
        assert (one.prompt, Path(one.video).resolve()) == (expected.prompt, Path(expected.video).resolve())
        assert one.columns["take"] == expected.columns["take"]
        assert list(one.columns) == list(expected.columns)


@needs_ray
@pytest.mark.slow
def test_a_killed_run_goes_on_and_has_the_rows_of_one_process(folder, checkpoint):
    """60 rows of 56 clips, two of which cannot be scored: killed when some are written, then with nothing twice."""
    table, out = folder / "t.csv", folder / "scores"
    videos = [f"clips/{n % 6}.mp4" for n in range(54)] + ["clips/text.mp4", "later.mp4"]
    rows = [{"prompt": f"ball {n}", "video": video, "take": n} for n, video in enumerate(videos)]
    write_rows(table, rows + [{**row, "take": 100 + row["take"]} for row in rows[:4]])
    shards = ResultShards(journal_of(out))
    command, environment = run_score(table, checkpoint, *ON_RAY, "--out", out)
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert wait_for(lambda: shards.counts()[0] >= 16, seconds=180)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    kept, _ = shards.counts()
    assert 16 <= kept < 56
    done = score_with(table, checkpoint, *ON_RAY, "--out", out, "--json")
    assert done.returncode == 4, done.stderr
    [record] = map(json.loads, done.stdout.splitlines())
    assert (record["total"], record["scored"], record["failed"]) == (60, 58, 2)
    assert 56 - kept <= record["computed"] <= 56 - kept + 2  # rows that failed before the kill are tried again
    assert "error: scored 58 of 60; 2 failed (" in done.stderr
    assert score_with(table, checkpoint, "--out", folder / "local.jsonl").returncode == 4
    same_rows(out, folder / "local.jsonl")

    (folder / "later.mp4").write_bytes((folder / "clips" / "1.mp4").read_bytes())
    again = score_with(table, checkpoint, *ON_RAY, "--out", out, "--json")
    [record] = map(json.loads, again.stdout.splitlines())
    assert (record["scored"], record["failed"], record["computed"]) == (59, 1, 2)


@needs_ray
@pytest.mark.slow
def test_a_block_that_is_lost_stops_the_run_or_has_errors(folder, checkpoint, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    table, out = folder / "t.csv", folder / "scores"
    prompts = [f"{'bad' if n == 9 else 'good'} {n}" for n in range(24)]
    write_rows(table, [{"prompt": prompt, "video": "clips/0.mp4"} for prompt in prompts])
    run = {"model": str(checkpoint), "batch_size": 1, **SAMPLED}
    with monkeypatch.context() as patched:
        patched.setattr(bulk, "ClipScorer", FailingScorer)
        with pytest.raises(
            ConfigError, match="stopped: ZeroDivisionError: a fault of the node; what is scored is kept"
        ):
            write_scores_on_ray(table, out, options=LOCAL, **run)
        assert not out.exists()
        lenient = RayOptions(address="local", actors=2, decoders=1, max_errored_blocks=-1)
        summary = write_scores_on_ray(table, out, options=lenient, **run)
    lost = [row for row in read_scored(out) if row.error]
    assert 1 <= len(lost) <= 4  # a block is a window of four batches
    assert prompts[9] in [row.prompt for row in lost]
    assert (summary.failed, summary.kinds) == (len(lost), {"no result": len(lost)})
    mended = write_scores_on_ray(table, out, options=LOCAL, **run)
    assert (mended.failed, mended.computed) == (0, len(lost))
