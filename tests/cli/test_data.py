"""`descore data`: what people and programs see of a table, and exit codes."""

import csv
import json
import re
from pathlib import Path

import pytest

PLAIN = {"prompt": "a dog", "preference": "a"}


def write(file, rows):
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.fixture
def clean(tmp_path, films):
    (first, second, third), _, _ = films
    return write(
        tmp_path / "clean.csv",
        [
            {**PLAIN, "video_a": first, "video_b": second, "source": "one"},
            {"prompt": "a cat", "preference": "tie", "video_a": first, "video_b": third, "source": "one"},
        ],
    )


@pytest.fixture
def faulty(tmp_path, films):
    (first, second, _), text, absent = films
    return write(
        tmp_path / "faulty.csv",
        [
            {**PLAIN, "video_a": first, "video_b": second, "chain_a": "I see."},
            {"prompt": "a\tcat\x1b[31m", "preference": "c", "video_a": text, "video_b": absent},
            {**PLAIN, "video_a": first, "video_b": second},
        ],
    )


def test_a_clean_table_is_summed_up(descore, clean, monkeypatch):
    monkeypatch.chdir(clean.parent)
    result = descore("data", "check", clean.name)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert [" ".join(line.split()) for line in result.stdout.splitlines() if line.strip()] == [
        "clean.csv",
        "rows 2",
        "overall a 1, b 0, tie 1 (50.0% ties)",
        "prompts 2",
        "videos 3",
        "seconds median 2.0, 95 % 2.0, longest 2.0; 0.00 hours in all",
        "sizes 48x48 (3)",
        "sources one (4)",
        "no faults",
    ]


def test_faults_come_one_a_line_and_make_the_exit_code(descore, faulty, films):
    result = descore("data", "check", faulty)
    assert result.exit_code == 5
    printed = [line.replace(str(faulty), "T") for line in result.stdout.splitlines()]
    assert printed[:2] == [
        "T:2: chain_a: no <answer>...</answer> block in the chain; expected a chain that ends with its verdict",
        "T:2: chain_a is there and the other is empty; give both or neither",
    ]
    assert printed[2] == "T:3: preference is 'c'; expected a, b or tie"
    assert printed[3].startswith(f"T:3: video_a {films[1]}: not a video")
    assert printed[4] == f"T:3: video_b {films[2]}: no such file; expected a video that opens"
    assert printed[5] == "warning: T:4: the pair of line 2 again; it will count twice"
    assert printed[-1] == "5 faults, 1 warning"


def test_nothing_is_opened_that_need_not_be(descore, faulty):
    result = descore("data", "check", faulty, "--no-open")
    assert result.exit_code == 5
    assert "3 faults, 1 warning" in result.stdout
    assert "hours" not in result.stdout


def test_only_the_first_faults_are_shown(descore, tmp_path):
    rows = [{**PLAIN, "prompt": f"p{i}", "preference": "x", "video_a": "x", "video_b": "y"} for i in range(60)]
    file = write(tmp_path / "many.csv", rows)
    capped = descore("data", "check", file, "--no-open").stdout.splitlines()
    assert capped[50] == "and 10 faults more; --all shows them"
    assert capped[-1] == "60 faults"
    assert sum("expected a, b or tie" in line for line in capped) == 50
    every = descore("data", "check", file, "--no-open", "--all").stdout
    assert every.count("expected a, b or tie") == 60
    assert "--all" not in every


def test_warnings_are_faults_if_one_is_strict(descore, tmp_path):
    row = {**PLAIN, "video_a": "x", "video_b": "y"}
    file = write(tmp_path / "twice.csv", [row, row])
    assert descore("data", "check", file, "--no-open").exit_code == 0
    strict = descore("data", "check", file, "--no-open", "--strict")
    assert strict.exit_code == 5
    assert strict.stdout.splitlines()[-1] == "1 fault"


def test_json_for_programs(descore, lines, faulty):
    result = descore("data", "check", faulty, "--json")
    assert result.exit_code == 5
    *findings, table = lines(result)
    assert [finding["kind"] for finding in findings] == ["fault"] * 5 + ["warning"]
    assert (findings[2]["file"], findings[2]["line"]) == (str(faulty), 3)
    assert findings[2]["message"] == "preference is 'c'; expected a, b or tie"
    assert (table["kind"], table["rows"], table["videos"]) == ("table", 3, 4)


def test_chains_in_the_tokens_of_a_checkpoint(descore, lines, tmp_path, model):
    chain = 'A red ball. <answer>{"dimensional_scores": {"subject": 2, "dynamics": 1, "camera": "N/A", '
    chain += '"environment": 0, "style": 2}, "overall_score": 3.5}</answer>'
    row = {**PLAIN, "video_a": "x", "video_b": "y", "chain_a": chain, "chain_b": chain}
    result = descore("data", "check", write(tmp_path / "t.csv", [row]), "--no-open", "--json", "--checkpoint", model)
    assert result.exit_code == 0, result.stderr
    [table] = lines(result)
    assert table["chains"]["unit"] == "tokens"
    assert table["chains"]["longest"] > len(chain.split())


def test_a_split_is_checked_together(descore, clean, tmp_path, films):
    other = write(tmp_path / "eval.csv", [{**PLAIN, "video_a": films[0][0], "video_b": films[0][1]}])
    result = descore("data", "check", clean, other, "--workers", 1)
    assert result.exit_code == 5
    assert result.stdout.count("keep it on one side of the split") == 2
    assert result.stdout.count("warning: ") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["check", "absent.csv"], "error: absent.csv: no such file; expected a table"),
        (["check", "{}", "--checkpoint", "absent"], "error: absent: no such folder; expected a checkpoint's folder"),
        (["check", "{}", "{}"], "a table is there twice; name each once"),
        (["convert", "{}", "--from", "nothing", "--out", "x.csv"], "error: unknown layout 'nothing'. Known: "),
    ],
)
def test_what_cannot_be_used_is_one_line(descore, clean, args, message):
    wrong = descore("data", *(arg.format(clean) for arg in args))
    assert wrong.exit_code == 3
    assert wrong.stdout == ""
    [line] = wrong.stderr.splitlines()
    assert message in line


def test_convert_says_what_it_wrote_and_what_next(descore, tmp_path, films):
    (first, second, _), _, _ = films
    source = write(tmp_path / "t.csv", [{"path_A": first, "path_B": second, "prompt": "p", "VQ": "A"}])
    out = tmp_path / "pairs.jsonl"
    result = descore("data", "convert", source, "--from", "videoalign", "--label", "VQ", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [f"{out}: 1 pair", "  VQ: a 1, b 0, tie 0", f"next: descore data check {out}"]
    assert json.loads(out.read_text())["preference.VQ"] == "a"
    assert descore("data", "check", out).exit_code == 0
    again = descore("data", "convert", source, "--from", "videoalign", "--label", "VQ", "--out", out)
    assert again.exit_code == 3
    assert "exists already" in again.stderr


def test_help_names_both(descore):
    text = descore("data", "--help").output
    assert "check" in text
    assert "convert" in text


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_tables_of_the_page_are_tables(descore, tmp_path, kind):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    [example] = re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)
    file = tmp_path / f"example.{kind}"
    file.write_text(example, encoding="utf-8")
    result = descore("data", "check", file, "--no-open", "--strict")
    assert result.exit_code == 0, result.stdout


def test_the_page_names_every_option(descore):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for verb in ("check", "convert"):
        text = descore("data", verb, "--help").output
        options = set(re.findall(r"--[a-z-]+", text)) - {"--help", "--debug", "--open"}
        assert options
        assert {option for option in options if option not in page} == set()
