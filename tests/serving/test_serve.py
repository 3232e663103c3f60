"""`descore serve` as a process of its own, from its start to its end."""

import os
import re
import signal
import subprocess
import sys

import httpx2
import pytest
from typer.testing import CliRunner

from descore import Scorer
from descore.cli import app
from descore.cli.serve import _engines, _named
from descore.errors import ConfigError
from tests.test_architecture import CLIP

PROMPT = "a rabbit sniffs a flower"


@pytest.fixture
def served(tmp_path):
    """A function that starts the command, and gives the process and its URL."""
    started = []

    def start(*options, **environment):
        command = [sys.executable, "-m", "descore", "serve", "--port", "0", *options]
        variables = {**os.environ, "TMPDIR": str(tmp_path), **environment}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables)
        started.append(process)
        line = process.stderr.readline()
        address = re.search(r"http://\S+", line)
        assert address, line + process.stderr.read()
        return process, address[0]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_command_scores_an_upload_and_ends_clean(served, tmp_path):
    process, url = served("--model", "mine=tiny", DESCORE_API_KEY="secret")
    with httpx2.Client(base_url=url, timeout=60) as client:
        assert client.get("/ready").json() == {"status": "ready"}
        assert client.get("/v1/models").status_code == 401
        client.headers["authorization"] = "Bearer secret"
        answer = client.post("/v1/score", data={"prompt": PROMPT}, files={"video": CLIP.read_bytes()}).json()
    expected = Scorer.from_pretrained("tiny").score(CLIP, prompt=PROMPT)
    assert answer["model"] == "mine"
    assert answer["reward"] == pytest.approx(expected.reward, abs=1e-5)
    assert answer["thinking"] == expected.thinking
    assert [path.name for path in tmp_path.glob("descore-serve-*")]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr.read() == "stopped\n"
    assert not list(tmp_path.glob("descore-serve-*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "DESCORE_API_KEY"),
        (["--no-auth", "--api-key", "x"], "exclude each other"),
        (["--api-key", ""], "api_key must be printable ASCII"),
        (["--media-root", "/nowhere"], "media_root is /nowhere, which is no folder"),
        (["--host", "256.1.1.1", "--no-auth"], "cannot listen at 256.1.1.1"),
        (["--model", "a=tiny", "--model", "a=tiny"], "two models are called a"),
        (["--timeout", "0"], "timeout"),
        (["--engine", "x"], "engine is 'x'; expected native, vllm"),
        (["--engine", "vllm", "--quantize", "4bit"], "quantization are for engine native, found 'vllm'"),
        (["--dialect", "flowgrpo"], "unknown; there are flow_grpo, verl_omni"),
        (["--dialect", "openai=0"], "NAME=FPS"),
    ],
)
def test_what_cannot_be_served_is_one_line(options, words):
    result = CliRunner().invoke(app, ["serve", "--port", "0", *options], env={"DESCORE_API_KEY": None})
    assert result.exit_code == ConfigError.exit_code
    [line] = result.stderr.splitlines()
    assert words in line


def test_models_are_named_by_their_folder_or_by_a_name():
    assert _named(["tiny", "big=path/to/big", "path/to/small"]) == {
        "tiny": "tiny",
        "big": "path/to/big",
        "small": "path/to/small",
    }
    for wrong in ("=tiny", "a="):
        with pytest.raises(ConfigError, match="NAME=CHECKPOINT"):
            _named([wrong])


def test_each_model_has_its_engine():
    names = ("a", "b")
    address = "http://127.0.0.1:8000/v1?x=y"
    for given, expected in (
        ([], ["native", "native"]),
        (["vllm"], ["vllm", "vllm"]),
        (["b=vllm"], ["native", "vllm"]),
        (["vllm", "a=native"], ["native", "vllm"]),
        ([f"a={address}"], [address, "native"]),
        ([address], [address, address]),
    ):
        assert list(_engines(given, models=names).values()) == expected
    for wrong, words in ((["c=vllm"], "no model is called c"), (["vllm", "native"], "for all models")):
        with pytest.raises(ConfigError, match=words):
            _engines(wrong, models=names)
