"""Tables of pairs: what is read, what is refused, and that a long one costs no memory."""

import json
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from tests.training.conftest import write_table

from descore.errors import ConfigError, DataError
from descore.training.collate import MISSING, PairCollator, TrainingPair, Unreadable
from descore.training.dataset import PairTable, index_pairs
from descore.video.sampling import VideoSampling

SAMPLING = VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16)
OVERALL = ("overall",)


def rows(count, **more):
    return [
        {
            "prompt": f"a red ball {i}",
            "video_a": f"{2 * i}.mp4",
            "video_b": f"{2 * i + 1}.mp4",
            "preference": ("a", "b", "tie")[i % 3],
            "chain_a": "short",
            "chain_b": "a longer chain",
            **more,
        }
        for i in range(count)
    ]


def opened(table, tmp_path, *, dimensions=OVERALL):
    index_pairs(table, tmp_path / "index.arrow", dimensions=dimensions)
    return PairTable(table, index=tmp_path / "index.arrow", sampling=SAMPLING, dimensions=dimensions)


@pytest.fixture
def five(data, tmp_path):
    return opened(write_table(data / "pairs.csv", rows(5)), tmp_path)


def test_pairs_are_found_by_number(five, data):
    assert len(five) == 5
    pair = five[4]
    assert isinstance(pair, TrainingPair)
    assert (pair.a.prompt, pair.b.prompt) == ("a red ball 4", "a red ball 4")
    assert (pair.a.clip.source, pair.b.clip.source) == (str(data / "8.mp4"), str(data / "9.mp4"))
    assert (pair.a.chain, pair.b.chain) == ("short", "a longer chain")
    assert (pair.number, pair.epoch) == (4, 0)
    assert [five[i].preference_K.tolist() for i in range(3)] == [[1], [-1], [0]]


def test_a_key_may_bring_its_epoch(five):
    assert (five[3, 4].epoch, five[3, 4].number) == (3, 4)
    assert five[3, 4].a.prompt == five[4].a.prompt


def test_a_worker_gets_a_table_of_its_own(five):
    len(five)
    assert pickle.loads(pickle.dumps(five))[2].a.prompt == "a red ball 2"


def test_each_dimension_has_labels_of_its_own(data, tmp_path):
    told = [
        {"preference.VQ": "a", "preference.MQ": "", "rating_a.VQ": "3.5", "rating_b.VQ": "1", "rating_b.TA": ""},
        {"preference.VQ": "tie", "preference.MQ": "b", "rating_a.VQ": "", "rating_b.VQ": "", "rating_b.TA": "2"},
    ]
    table = [
        {k: v for k, v in row.items() if k != "preference"} | more for row, more in zip(rows(2), told, strict=True)
    ]
    pairs = opened(write_table(data / "named.csv", table), tmp_path, dimensions=("MQ", "VQ", "TA"))
    assert [pairs[i].preference_K.tolist() for i in (0, 1)] == [[MISSING, 1, MISSING], [-1, 0, MISSING]]
    assert pairs[0].preference_K.dtype == np.int8
    nan = math.nan
    np.testing.assert_array_equal(pairs[0].rating_a_K, [nan, 3.5, nan])
    np.testing.assert_array_equal(pairs[1].rating_b_K, [nan, nan, 2])


def test_chains_may_be_absent_from_a_row_or_the_table(data, tmp_path):
    table = rows(2)
    table[1] |= {"chain_a": "", "chain_b": " "}
    pairs = opened(write_table(data / "some.csv", table), tmp_path)
    assert (pairs[1].a.chain, pairs[1].b.chain) == (None, None)
    bare = [{k: v for k, v in row.items() if not k.startswith("chain")} for row in rows(2)]
    (tmp_path / "bare").mkdir()
    assert opened(write_table(data / "bare.csv", bare), tmp_path / "bare")[0].a.chain is None


def test_lengths_are_known_without_reading_a_video(five):
    assert five.lengths.tolist() == [len("a red ball 0") + len("a longer chain")] * 5
    assert five.lengths.dtype == np.int32


def test_ratings_have_a_mean_and_a_deviation(data, tmp_path):
    """1, 2, 3 and 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5."""
    table = [row | {"rating_a": a, "rating_b": b} for row, a, b in zip(rows(3), (1, "", 3), (2, 6, ""), strict=True)]
    scale = opened(write_table(data / "rated.csv", table), tmp_path).rating_scale
    assert scale.mean_K == (3.0,)
    assert scale.std_K == pytest.approx((math.sqrt(3.5),))


@pytest.mark.parametrize(("rating", "said"), [("4", "no rating but 4"), ("", "no rating")])
def test_ratings_that_have_no_deviation_are_refused(data, tmp_path, rating, said):
    table = write_table(data / "flat.csv", rows(2, rating_a=rating, rating_b=rating))
    with pytest.raises(DataError, match=rf"flat.csv:1: dimension 'overall' has {said}; expected two different ones"):
        _ = opened(table, tmp_path).rating_scale


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"video_b": ""}, "t.csv:3: video_b is empty; expected a text"),
        ({"preference": "same?"}, "t.csv:3: preference is 'same?'; expected a, b or tie"),
        ({"chain_b": ""}, "t.csv:3: chain_b is empty and chain_a is not; expected both or neither"),
        ({"chain_a": ""}, "t.csv:3: chain_a is empty and chain_b is not; expected both or neither"),
    ],
)
def test_a_faulty_row_is_refused_with_its_line(tmp_path, row, said):
    table = rows(3)
    table[1] |= row
    with pytest.raises(DataError) as fault:
        opened(write_table(tmp_path / "t.csv", table), tmp_path)
    assert str(fault.value) == f"{tmp_path / said}; descore data check {tmp_path / 't.csv'} lists all"
    assert not (tmp_path / "index.arrow").exists()


def test_a_dimension_that_the_table_lacks_is_named(tmp_path):
    table = write_table(tmp_path / "t.csv", rows(2, **{"preference.MQ": "a", "rating_a.TA": 2}))
    with pytest.raises(DataError, match=r"t.csv:1: no column preference.VQ; the dimensions here are overall, MQ, TA$"):
        opened(table, tmp_path, dimensions=("MQ", "VQ"))


def test_a_dimension_without_any_label_is_named(tmp_path):
    table = write_table(tmp_path / "t.csv", rows(2, **{"preference.MQ": ""}))
    with pytest.raises(DataError, match=r"t.csv:1: no row has a label for MQ; expected one at least$"):
        opened(table, tmp_path, dimensions=("overall", "MQ"))


def test_a_changed_table_or_other_dimensions_are_refused(tmp_path):
    table = write_table(tmp_path / "t.csv", rows(2, **{"preference.MQ": "a"}))
    opened(table, tmp_path)
    opened(table, tmp_path)
    with pytest.raises(ConfigError, match="was read for other columns when the run began"):
        opened(table, tmp_path, dimensions=("MQ",))
    write_table(table, rows(3))
    with pytest.raises(ConfigError, match="has changed since the run began"):
        opened(table, tmp_path)


def test_a_pair_is_unreadable_if_one_of_its_videos_is(micro, data, tmp_path):
    table = rows(3)
    table[1]["video_b"] = "absent.mp4"
    pairs = opened(write_table(data / "absent.csv", table), tmp_path)
    on_unreadable = pairs[1]
    assert isinstance(on_unreadable, Unreadable)
    assert (on_unreadable.line, on_unreadable.reason) == (3, "no such file")
    assert on_unreadable.video.endswith("absent.mp4")
    batch = PairCollator(chat=micro.chat, chain_drop=0.0, seed=0)([pairs[i] for i in range(3)])
    assert batch["unreadable"] == [on_unreadable]
    assert batch["preference"].tolist() == [[1], [0]]


@pytest.mark.slow
def test_a_long_table_is_never_held_in_memory(tmp_path):
    with (tmp_path / "t.jsonl").open("w") as file:
        file.writelines(json.dumps(row | {"chain_a": "x" * 2000, "chain_b": "y" * 1000}) + "\n" for row in rows(5_000))
    tracemalloc.start()
    table = opened(tmp_path / "t.jsonl", tmp_path)
    assert table[4_999].line == 5_000
    assert len(table.lengths) == len(table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "t.jsonl").stat().st_size > 15_000_000
    assert peak < 8_000_000  # a thousand rows at a time
