"""Tables of chains: what is read, what is refused, and that a long one costs no memory."""

import json
import pickle
import tracemalloc

import pytest
from tests.training.conftest import chain_rows, write_table

from descore.errors import ConfigError, DataError, DescoreWarning
from descore.training.collate import ChainCollator, Unreadable
from descore.training.sft import ChainTable, index_table, read_examples
from descore.video.sampling import VideoSampling

SAMPLING = VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16)


def opened(table, tmp_path):
    index_table(table, tmp_path / "index.arrow")
    return ChainTable(table, index=tmp_path / "index.arrow", sampling=SAMPLING)


def test_examples_are_found_by_number(data, tmp_path):
    table = opened(data / "train.csv", tmp_path)
    assert len(table) == 10
    assert [table[i].prompt for i in (9, 0, 4)] == ["a red ball 9", "a red ball 0", "a red ball 4"]
    assert table[1].chain == "a red ball rolls to the left a red ball rolls to the left"
    assert table[1].clip.source == str(data / "1.mp4")


def test_a_worker_gets_a_table_of_its_own(data, tmp_path):
    table = opened(data / "train.csv", tmp_path)
    assert pickle.loads(pickle.dumps(table))[3].prompt == table[3].prompt


def test_a_table_of_pairs_gives_two_examples_a_row(tmp_path):
    row = {"prompt": "p", "video_a": "a.mp4", "video_b": "b.mp4", "chain_a": "A", "chain_b": "B", "preference": "a"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "chain_a": "C"}))
    found = [(e["line"], e["video"], e["chain"]) for e in read_examples(tmp_path / "pairs.jsonl")]
    assert found == [(1, "a.mp4", "A"), (1, "b.mp4", "B"), (2, "a.mp4", "C"), (2, "b.mp4", "B")]


@pytest.mark.parametrize("column", ["prompt", "video", "chain"])
def test_an_empty_cell_is_refused_with_its_line(tmp_path, column):
    rows = chain_rows(3)
    rows[1][column] = "  "
    with pytest.raises(DataError, match=rf"t.csv:3: {column} is empty"):
        list(read_examples(write_table(tmp_path / "t.csv", rows)))


def test_a_table_without_chains_says_what_it_lacks(tmp_path):
    table = write_table(tmp_path / "t.csv", [{"prompt": "p", "video": "v"}])
    with pytest.raises(DataError, match=r"expected video and chain, or video_a, .*, found prompt, video; this stage"):
        list(read_examples(table))


@pytest.mark.parametrize("side", ["", "_a"])
def test_an_empty_chain_says_what_to_do(tmp_path, side):
    rows = [{"prompt": "p", f"video{side}": "v", f"chain{side}": chain} for chain in ("A", " ")]
    advice = (
        r"t\.csv:3: chain\S* is empty; this stage learns to write chains: leave rows without one out, or train cold-"
    )
    with pytest.raises(DataError, match=advice):
        list(read_examples(write_table(tmp_path / "t.csv", rows)))


def test_an_index_that_was_not_written_to_its_end_is_none(tmp_path):
    rows = [*chain_rows(3), {"prompt": "p", "video": "", "chain": "c"}]
    table = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(DataError):
        index_table(table, tmp_path / "index.arrow")
    assert not (tmp_path / "index.arrow").exists()


def test_a_table_that_changed_is_refused(tmp_path):
    table = write_table(tmp_path / "t.csv", chain_rows(3))
    index_table(table, tmp_path / "index.arrow")
    index_table(table, tmp_path / "index.arrow")
    write_table(table, chain_rows(4))
    with pytest.raises(ConfigError, match="has changed since the run began"):
        index_table(table, tmp_path / "index.arrow")


@pytest.mark.parametrize("count", [1023, 1024, 1025, 2048])
def test_the_number_of_examples_where_a_batch_of_rows_ends(tmp_path, count):
    table = opened(write_table(tmp_path / "t.csv", chain_rows(count)), tmp_path)
    assert len(table) == count
    assert isinstance(table[count - 1], Unreadable)
    assert table[count - 1].video.endswith(f"{count - 1}.mp4")


@pytest.mark.slow
def test_a_long_table_is_never_held_in_memory(tmp_path):
    rows = ({**row, "chain": "x" * 2000} for row in chain_rows(20_000))
    with (tmp_path / "t.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    tracemalloc.start()
    table = opened(tmp_path / "t.jsonl", tmp_path)
    assert table[19_999].line == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "t.jsonl").stat().st_size > 40_000_000
    assert peak < 8_000_000  # a thousand rows at a time


def test_an_unreadable_video_is_left_out_and_named(micro, data, tmp_path):
    rows = chain_rows(3)
    rows[1]["video"] = "absent.mp4"
    table = opened(write_table(data / "one_absent.csv", rows), tmp_path)
    batch = ChainCollator(micro.chat)([table[i] for i in range(3)])
    assert len(batch["input_ids"]) == 2
    [on_unreadable] = batch["unreadable"]
    assert (on_unreadable.line, on_unreadable.reason) == (3, "no such file")
    assert on_unreadable.video.endswith("absent.mp4")
    nothing = ChainCollator(micro.chat)([table[1]])
    assert nothing.keys() == {"chain_mask", "unreadable"}
    assert nothing["chain_mask"].shape == (0, 0)


def pairs_with_chains(*chains):
    return [{"prompt": "p", "video_a": "a", "video_b": "b", "chain_a": a, "chain_b": b} for a, b in chains]


def test_pairs_without_chains_are_left_out_and_counted(tmp_path):
    table = write_table(tmp_path / "t.csv", pairs_with_chains(("A", "B"), ("", ""), ("", " ")))
    with pytest.warns(DescoreWarning, match="pairs without chains are left out: 2"):
        assert [example["chain"] for example in read_examples(table)] == ["A", "B"]


def test_pairs_none_of_which_has_chains_are_refused(tmp_path):
    table = write_table(tmp_path / "t.csv", pairs_with_chains(("", "")))
    with pytest.raises(DataError, match="no pair has chains; this stage learns to write chains"):
        list(read_examples(table))
