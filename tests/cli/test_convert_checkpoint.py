"""`descore convert-checkpoint` from an official checkpoint to a score; and one line for what it cannot convert."""

import json
import os

import pytest
import torch
from tests.conftest import RUBRIC
from tests.model.official_cases import whole_model

STAGE_2 = ("--layout", "chain, query, end of turn")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An official checkpoint and its rubric beside it."""
    folder = tmp_path_factory.mktemp("official")
    (folder / "rubric.txt").write_text(RUBRIC)
    whole_model(folder / "theirs")
    return folder


def test_what_is_converted_scores(descore, source, films):
    out = source / "ours"
    result = descore("convert-checkpoint", source / "theirs", "--out", out, "--rubric", source / "rubric.txt", *STAGE_2)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"converted: {out} (overall; chain, query, end of turn)",
        f"next: descore score CLIP --prompt TEXT --model {out}",
    ]
    scored = descore("score", films[0][0], "--prompt", "a", "--model", out, "--max-chain-tokens", 4, "--json")
    assert scored.exit_code == 0, scored.stderr
    assert json.loads(scored.stdout)["reward"] is not None
    assert "never trained" not in scored.stderr


class Malicious:
    """What runs when it is unpickled the plain way."""

    def __reduce__(self):
        return os.system, ("touch it-ran",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--rubric": "absent.txt"}, "--rubric: absent.txt cannot be read as text"),
        ({"--layout": "query first"}, "--layout: found 'query first', expected one of"),
        ({"--query-token": "<Score>"}, "has no added token <Score>"),
        ({"--base": "elsewhere"}, "has weights of its own"),
        ({"--out": "no/such/place"}, "--out: there is no folder"),
    ],
)
def test_what_does_not_fit_is_one_line(descore, source, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    options = {"--out": "out", "--rubric": source / "rubric.txt", "--layout": STAGE_2[1], **changes}
    wrong = descore("convert-checkpoint", source / "theirs", *(part for pair in options.items() for part in pair))
    assert wrong.exit_code == 3
    [line] = wrong.stderr.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_a_head_that_wants_to_run_code_is_one_line(descore, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for file in (source / "theirs").iterdir():
        (theirs / file.name).symlink_to(file)
    (theirs / "rm_head.pth").unlink()
    torch.save({"rm_head.weight": torch.ones(1, 64), "extra": Malicious()}, theirs / "rm_head.pth")
    wrong = descore("convert-checkpoint", theirs, "--out", "out", "--rubric", source / "rubric.txt", *STAGE_2)
    assert wrong.exit_code == 3
    [line] = wrong.stderr.splitlines()
    assert "rm_head.pth: is refused" in line
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]
