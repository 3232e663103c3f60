"""A table that is a folder of Parquet shards, and the shards of results that a cluster's nodes have written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from descore.data import write
from descore.data.tables import folder_of, is_table, read_rows
from descore.data.write import shards_writer, table_writer
from descore.errors import ConfigError, DataError
from descore.rewards import preference_pairs, rank, read_scored
from descore.rewards.ray_stages import results_schema
from descore.rewards.shards import ResultIndex, ResultShards
from descore.rewards.sources import open_source

COLUMNS = ("prompt", "video", "reward")
SCHEMA = pa.schema([("prompt", pa.string()), ("video", pa.string()), ("reward", pa.float64())])


@pytest.fixture
def rows():
    return [{"prompt": f"p{n // 2}", "video": f"../clips/{n}.mp4", "reward": float(n)} for n in range(7)]


@pytest.fixture
def sharded(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(write, "SHARD_ROWS", 3)
    return write_shards(tmp_path / "scores", rows)


def write_shards(folder, rows):
    with shards_writer(folder, COLUMNS, schema=SCHEMA) as write_row:
        for row in rows:
            write_row(row)
    return folder


def test_a_folder_of_shards_is_one_table(sharded, rows):
    assert [path.name for path in sorted(sharded.iterdir())] == [f"part-0000{n}.parquet" for n in range(3)]
    assert [pq.read_metadata(path).num_rows for path in sorted(sharded.iterdir())] == [3, 3, 1]
    assert is_table(sharded)
    assert list(read_rows(sharded, columns=COLUMNS)) == list(enumerate(rows, start=1))


def test_paths_begin_in_the_folder_of_the_shards(sharded):
    assert folder_of(sharded) == sharded == folder_of(sharded / "part-00000.parquet")
    whole, first = (list(read_scored(path)) for path in (sharded, sharded / "part-00000.parquet"))
    assert [row.video for row in whole[:3]] == [row.video for row in first]
    assert Path(whole[0].video).resolve() == sharded.parent.resolve() / "clips" / "0.mp4"


def test_it_is_ranked_paired_and_scored_as_a_file_is(sharded, rows, tmp_path):
    with table_writer(tmp_path / "scores.parquet", COLUMNS, schema=SCHEMA) as write_row:
        for row in rows:
            write_row(row | {"video": row["video"].removeprefix("../")})
    both = [sharded, tmp_path / "scores.parquet"]
    pairs = [preference_pairs(read_scored(path), file=path).pairs for path in both]
    assert [(p.chosen.reward, p.rejected.reward) for p in pairs[0]] == [(1, 0), (3, 2), (5, 4)]
    assert len(pairs[1]) == 3
    leaders = [[one.places[0].reward for one in rank(read_scored(path)).rankings] for path in both]
    assert leaders == [[1, 3, 5, 6]] * 2
    sources = [open_source(path, replace=True) for path in both]
    assert [source.count for source in sources] == [7, 7]
    names = [[Path(row.path).resolve() for row in source.rows()] for source in sources]
    assert names[0] == names[1]


def test_an_error_leaves_the_former_folder(sharded, rows):
    with pytest.raises(pa.ArrowInvalid):
        write_shards(sharded, [rows[0], rows[1] | {"reward": "high"}])
    assert len(list(read_rows(sharded))) == 7
    assert not list(sharded.parent.glob("*.partial"))


def test_a_damaged_shard_is_named(sharded):
    (sharded / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"scores/part-00001\.parquet:1: no readable Parquet"):
        list(read_rows(sharded))


def test_a_folder_of_other_files_is_no_table(tmp_path):
    (tmp_path / "scores.parquet").touch()
    assert not is_table(tmp_path)
    with pytest.raises(ConfigError, match="not a file; expected a table"):
        read_rows(tmp_path)


class Journal:
    """Writes shards of results as the nodes of a cluster do."""

    def __init__(self, folder):
        self.shards = ResultShards(folder)
        self.shards.results.mkdir()
        self.shards.checkpoint.mkdir()
        self.count = 0

    def add(self, results, *, committed=True):
        """results: (key, reward) where a reward of None is an error."""
        self.count += 1
        names = results_schema(("overall",)).names
        own = {"samples": 1, "truncated": False, "seconds": 0.5, "prompt": "p", "model": "m"}
        cells = [
            {**dict.fromkeys(names), **own, "id": key, "key": key, "video": f"{key}.mp4", "reward": reward}
            | {"error": "no such file" if reward is None else None}
            for key, reward in results
        ]
        table = pa.Table.from_pylist(cells, schema=results_schema(("overall",)))
        pq.write_table(table, self.shards.results / f"run_{self.count:06}-0.parquet")
        if committed:
            ids = pa.table({"id": pa.array([key for key, _ in results], pa.uint64())})
            pq.write_table(ids, self.shards.checkpoint / f"run_{self.count:06}.parquet")


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path)


def test_a_shard_counts_once_its_checkpoint_is_there(journal):
    assert journal.shards.counts() == (0, 0)
    journal.add([(1, 0.5), (2, None)])
    assert journal.shards.counts() == (2, 1)
    journal.add([(3, 0.5)], committed=False)
    (journal.shards.results / "run_000003-0.parquet").write_bytes(b"PAR1")  # a node that was killed
    (journal.shards.checkpoint / "run_000003.pending.parquet").write_bytes(b"PAR1")
    assert journal.shards.counts() == (2, 1)
    assert list(ResultIndex(journal.shards).read([3])) == [None]


def test_a_reward_counts_before_an_error(journal):
    journal.add([(1, None), (2**64 - 1, 2.5), (5, None)])
    journal.add([(1, None)])
    journal.add([(1, 7.5)])
    index = ResultIndex(journal.shards)
    assert [index.tries(key) for key in (1, 2**64 - 1, 5, 4)] == [(2, True), (0, True), (1, False), (0, False)]
    results = list(index.read([2**64 - 1, 1, 5, 4]))
    assert [result and (result["reward"], result["error"]) for result in results] == [
        (2.5, None),
        (7.5, None),
        (None, "no such file"),
        None,
    ]
    assert not {"id", "key", "seconds"} & set(results[0])


def test_seconds_are_those_of_new_shards(journal):
    journal.add([(1, 0.5), (2, 0.5)])
    known = {path.name for path in journal.shards.paths()}
    journal.add([(3, 0.5)])
    index = ResultIndex(journal.shards)
    assert index.model_seconds(apart_from=()) == pytest.approx(1.5)
    assert index.model_seconds(apart_from=known) == pytest.approx(0.5)
