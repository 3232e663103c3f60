"""`descore benchmarks` lists what there is, and says what to get."""

from descore.evaluation.benchmarks import BENCHMARKS


def test_every_benchmark_is_listed(descore):
    done = descore("benchmarks")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in BENCHMARKS)


def test_one_benchmark_in_full(descore):
    said = " ".join(descore("benchmarks", "genai-bench-video").stdout.split())
    assert "huggingface.co/datasets/TIGER-Lab/GenAI-Bench" in said
    assert "overall DeScore 0.765 0.504 arXiv 2605.05922" in said


def test_every_row_as_json(descore, lines):
    rows = lines(descore("benchmarks", "--json"))
    assert [row["name"] for row in rows] == list(BENCHMARKS)
    [videogen] = [row for row in rows if row["name"] == "videogen-rewardbench"]
    assert videogen["labels"] == ["VQ", "MQ", "TA", "overall"]
    (row,) = lines(descore("benchmarks", "fetv", "--json"))
    assert row["files"] == ["ratings.csv"]


def test_a_table_of_ones_own_says_what_was_understood(descore, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("prompt,video,rating.VQ,rating.MQ\np,x.mp4,1,2\n")
    said = descore("benchmarks", table).stdout
    assert "VQ, MQ" in said
    assert "people gave ratings" in said


def test_an_unknown_name_is_one_line(descore):
    done = descore("benchmarks", "fetf")
    assert done.exit_code == 3
    assert done.stderr.startswith("error: unknown benchmark 'fetf'; did you mean fetv?")
    assert done.stderr.count("\n") == 1
