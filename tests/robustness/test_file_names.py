"""A file's name may hold bytes that are not UTF-8: it is the same file in every table that can hold it, or refused."""

import json
import os
from contextlib import nullcontext

import pyarrow as pa
import pytest

from descore.data.schema import read_pairs
from descore.errors import ConfigError
from descore.evaluation.convert import convert_table
from descore.rewards.bulk import write_scores
from descore.rewards.scored import read_scored
from descore.rewards.sources import open_source
from descore.training.dataset import PairTable, TrainingPair, index_pairs, write_arrow_table
from descore.training.sft import ChainTable, index_table
from descore.video.sampling import VideoSampling
from tests.rewards.bulk_case import CountingScorer, make_films
from tests.training.conftest import noise_film

ODD = os.fsdecode(b"caf\xe9.mp4")
PAIR = {"prompt": "a ball", "video_a": ODD, "video_b": "b.mp4", "preference": "a", "chain_a": "c", "chain_b": "d"}
SAMPLING = VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16)
REFUSED = r"'caf\\udce9\.mp4' is not UTF-8, which only a \.jsonl table can hold; write one, or rename it"


@pytest.fixture
def table(tmp_path):
    """A table of pairs on films, one of an odd name."""
    for seed, name in enumerate((ODD, "b.mp4")):
        noise_film(tmp_path / name, seed)
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIR) + "\n")
    return path


def test_a_training_pair_is_read_by_its_bytes(table, tmp_path):
    index = tmp_path / "index.arrow"
    index_pairs(table, index, dimensions=("overall",))
    pairs = PairTable(table, index=index, sampling=SAMPLING, dimensions=("overall",))
    assert isinstance(pairs[0], TrainingPair)
    assert pairs[0].a.clip.source == str(tmp_path / ODD)
    assert pairs.unjudged(0).videos == (str(tmp_path / ODD), str(tmp_path / "b.mp4"))


def test_a_chain_to_learn_is_read_by_its_bytes(table, tmp_path):
    index_table(table, tmp_path / "index.arrow")
    chains = ChainTable(table, index=tmp_path / "index.arrow", sampling=SAMPLING)
    assert [chains[number].clip.source for number in (0, 1)] == [str(tmp_path / ODD), str(tmp_path / "b.mp4")]


def test_an_index_of_older_versions_is_read(table, tmp_path):
    """Its names were texts."""
    index, numbers = tmp_path / "index.arrow", ("preference", "rating_a", "rating_b")
    texts = ("prompt", "video_a", "video_b", "chain_a", "chain_b")
    types = [("line", pa.int64()), *((name, pa.string()) for name in texts)]
    types += [(f"{name}.overall", pa.float32()) for name in numbers] + [("length", pa.int32())]
    row = {**PAIR, "video_a": "b.mp4", "line": 1, "preference.overall": 1, "length": 7}
    write_arrow_table(table, index, iter([row]), schema=pa.schema(types))
    written = index.read_bytes()
    index_pairs(table, index, dimensions=("overall",))
    pairs = PairTable(table, index=index, sampling=SAMPLING, dimensions=("overall",))
    assert pairs[0].a.clip.source == str(tmp_path / "b.mp4")
    assert index.read_bytes() == written


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_converted_table_names_the_same_file(tmp_path, suffix):
    theirs = {"path_A": ODD, "path_B": "b.mp4", "VQ": "A", "MQ": "B", "TA": "same", "Overall": "A", "prompt": "a ball"}
    (tmp_path / "theirs.jsonl").write_text(json.dumps(theirs) + "\n")
    refused = pytest.raises(ConfigError, match=REFUSED)
    with refused if suffix != "jsonl" else nullcontext():
        convert_table(tmp_path / "theirs.jsonl", out=tmp_path / f"ours.{suffix}", layout="videoalign", labels=["VQ"])
    if suffix == "jsonl":
        assert [pair.video_a for pair in read_pairs(tmp_path / "ours.jsonl")] == [str(tmp_path / ODD)]
    else:
        assert [path.name for path in tmp_path.iterdir()] == ["theirs.jsonl"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder with a clip of an odd name, scored into a table."""
    folder = tmp_path_factory.mktemp("scored")
    make_films(folder / "clips", count=2)
    (folder / "clips" / "0.mp4").rename(folder / "clips" / ODD)
    write_scores(folder / "clips", folder / "scores.jsonl", scorer=CountingScorer(), prompt="a ball", think="off")
    return folder


def test_a_folder_is_scored_into_a_table(scored):
    rows = list(read_scored(scored / "scores.jsonl"))
    assert [row.video for row in rows] == [str(scored / "clips" / name) for name in ("1.mp4", ODD)]
    assert all(row.error is None for row in rows)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_nothing_is_scored_that_cannot_be_written(scored, tmp_path, suffix):
    scorer = CountingScorer()
    with pytest.raises(ConfigError, match=REFUSED):
        write_scores(scored / "clips", tmp_path / f"out.{suffix}", scorer=scorer, prompt="a ball", think="off")
    assert not scorer.batches
    assert not list(tmp_path.iterdir())


def test_a_scored_table_is_scored_again(scored):
    source = open_source(scored / "scores.jsonl", replace=True)
    assert [row.path for row in source.rows()] == [str(scored / "clips" / name) for name in ("1.mp4", ODD)]
    assert source.not_utf8 == f"clips/{ODD}"
