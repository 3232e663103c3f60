"""`descore convert-checkpoint` and `descore export` to a score; and one line for what they cannot convert."""

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
        ({"--out": "/dev/null/place"}, "/dev/null is no folder"),
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_exported_scores(descore, model, films, tmp_path, dtype):
    out = tmp_path / "out"
    result = descore("export", model, out, "--for", "vllm", "--dtype", dtype)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"exported: {out} ({dtype}; chain, end of turn, query)",
        "reward: at token 292, 64 * the sum of two logits: 294 + 295 (overall)",
        f"next: descore score CLIP --prompt TEXT --model {out}",
    ]
    before, after = (
        descore("score", films[0][0], "--prompt", "a", "--model", folder, "--think", "off", "--json")
        for folder in (model, out)
    )
    rewards = [json.loads(scored.stdout)["reward"] for scored in (before, after)]
    assert rewards[1] == pytest.approx(rewards[0], abs=0 if dtype == "float32" else 0.5)


@pytest.mark.parametrize(
    ("checkpoint", "out", "options", "code", "message"),
    [
        (None, "out", ("--for", "sglang"), 2, "'sglang' is not"),
        (None, "out", (), 2, "Missing option '--for'"),
        (None, ".", ("--for", "vllm"), 3, ".: exists already; choose another folder"),
        (None, "/dev/null/out", ("--for", "vllm"), 3, "/dev/null is no folder"),
        ("nowhere", "out", ("--for", "vllm"), 3, "nowhere: no such folder"),
        ("", "out", ("--for", "vllm"), 3, "has no descore.json"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    descore, model, tmp_path, monkeypatch, checkpoint, out, options, code, message
):
    monkeypatch.chdir(tmp_path)
    wrong = descore("export", model if checkpoint is None else checkpoint, out, *options)
    assert wrong.exit_code == code
    assert message in wrong.stderr
    assert code == 2 or len(wrong.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_checkpoint_of_videoalign_is_converted_and_scores(descore, films, tmp_path):
    from tests.judges.videoalign_cases import make_source

    theirs, out = make_source(tmp_path).folder, tmp_path / "ours"
    result = descore("convert-checkpoint", theirs, "--from", "videoalign", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"converted: {out}, with its adapter (VQ, MQ, TA; queries in the rubric)\n")
    scored = descore("score", films[0][0], "--prompt", "a", "--model", out)
    assert scored.exit_code == 0, scored.stderr
    assert all(name in scored.stdout for name in ("VQ", "MQ", "TA"))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--from", "videoalign", "--layout", "a"), 3, "--layout: for a checkpoint of the DeScore code"),
        (("--from", "videoalign", "--query-token", "a"), 3, "--query-token: for a checkpoint of the DeScore code"),
        (("--from", "videoalign", "--dimension", "a"), 3, "--dimension: for a checkpoint of the DeScore code"),
        (("--from", "videoalign"), 3, "model_config.json"),
        ((), 2, "Missing option '--rubric'"),
    ],
)
def test_options_of_the_other_code_are_one_line(descore, tmp_path, monkeypatch, options, code, message):
    monkeypatch.chdir(tmp_path)
    wrong = descore("convert-checkpoint", tmp_path, "--out", "out", *options)
    assert wrong.exit_code == code
    assert message in wrong.stderr
    assert code == 2 or len(wrong.stderr.splitlines()) == 1
