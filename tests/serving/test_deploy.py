"""deploy/: what the Dockerfile, the compose files and Prometheus' file name exists, and they agree with each other."""

import json
import re
import socket
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer
import yaml

from descore.cli import app as cli
from descore.serving.app import create_app
from descore.serving.settings import ServerSettings
from tests.serving.conftest import StubScorer

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
TEXT = re.sub(r"\\\n\s*", "", DOCKERFILE)
"""The Dockerfile, an instruction a line."""
SERVE = typer.main.get_command(cli).commands["serve"]
SUFFIXES = {"histogram": ["_bucket", "_sum", "_count"]}
PORT = 8000
TOKEN = "a token"


def instruction(name):
    """The list of the one instruction with this name."""
    [text] = re.findall(rf"^{name} .*?(\[.*\])$", TEXT, re.MULTILINE)
    return json.loads(text)


def read_yaml(name):
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.fixture(scope="module")
def compose():
    return read_yaml("compose.yaml")


@pytest.fixture(scope="module")
def scrape():
    [job] = read_yaml("prometheus.yml")["scrape_configs"]
    return job


def values(words):
    """Option → value. Fails for an option that `descore serve` does not have."""
    with SERVE.make_context("serve", list(words)) as context:
        return dict(context.params)


def test_the_image_runs_the_server_with_its_options(compose):
    name, verb, *fixed = instruction("ENTRYPOINT")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert name in project["scripts"]
    assert verb == "serve"
    given = values(fixed + instruction("CMD"))
    assert (given["host"], given["port"], given["models"]) == ("0.0.0.0", PORT, ["tiny"])
    assert f"EXPOSE {PORT}\n" in TEXT
    [mounted] = [line for line in compose["services"]["server"]["volumes"] if str(given["media_root"]) in line]
    assert mounted.endswith(":/media:ro")
    command = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in compose["services"]["server"]["command"]]
    assert values(fixed + command)["models"] == ["tiny"]


def test_the_image_has_the_extras_and_the_tested_torch():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [default] = re.findall(r"^ARG EXTRAS=(\S+)$", TEXT, re.MULTILINE)
    named = re.findall(r"EXTRAS=([\w,]+)", DOCKERFILE)
    assert "serve" in default.split(",")
    assert {extra for text in named for extra in text.split(",")} <= extras.keys()
    [pattern] = re.findall(r"grep -E '([^']+)' constraints.txt", TEXT)
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(pattern, line)]
    assert [line.partition("==")[0] for line in pinned] == ["torch", "torchvision"]
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n((?:(?!FROM).*\n)*)", TEXT, re.MULTILINE))
    assert stages.keys() == {"cpu", "cuda"}
    assert "--index-url https://download.pytorch.org/whl/cpu" in stages["cpu"]
    # The index of CPU builds goes to torch alone, and before whatever asks for a torch.
    installs = [line for line in TEXT.splitlines() if "pip install" in line]
    assert ["$TORCH_INDEX" in line for line in installs] == [True, False]
    assert "--no-deps" in installs[0]


def test_the_image_runs_as_a_user_who_is_not_root():
    [user] = re.findall(r"^USER (\d+)$", TEXT, re.MULTILINE)
    assert int(user) > 0
    assert f"--uid {user} " in TEXT
    assert TEXT.index("\nUSER ") < TEXT.index("\nENTRYPOINT ")


def test_all_that_is_copied_is_sent_to_docker():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", TEXT, re.MULTILINE) for word in line.split()}
    assert lines[0] == "*"
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    assert any(fnmatch("src/descore/__pycache__", line) for line in lines[1:])


def test_the_healthcheck_passes_on_a_live_server_alone(live):
    python, *words = instruction("HEALTHCHECK")
    assert python == "python"
    url = live(create_app({"stub": StubScorer()}, settings=ServerSettings(api_key=TOKEN)))

    def exit_code(port, route):
        line = [word.replace(str(PORT), str(port)).replace("/health", route) for word in words]
        return subprocess.run([sys.executable, "-S", *line], stderr=subprocess.DEVNULL).returncode

    assert exit_code(url.rpartition(":")[2], "/health") == 0
    assert exit_code(url.rpartition(":")[2], "/metrics") == 1  # it answers, with 401
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        assert exit_code(silent.getsockname()[1], "/health") == 1


def test_prometheus_asks_the_server_with_its_token(compose, scrape):
    server, prometheus = compose["services"]["server"], compose["services"]["prometheus"]
    assert scrape["static_configs"] == [{"targets": [f"server:{PORT}"]}]
    assert server["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert "./prometheus.yml:/etc/prometheus/prometheus.yml:ro" in prometheus["volumes"]
    [secret] = prometheus["secrets"]
    assert scrape["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    [variable] = [parameter.envvar for parameter in SERVE.params if "--api-key" in parameter.opts]
    assert compose["secrets"][secret] == {"environment": variable}
    assert server["environment"][variable].startswith(f"${{{variable}:?")


def test_metrics_that_the_docs_query_are_scraped(serving, scrape):
    client = serving(api_key=TOKEN)
    assert client.get(scrape["metrics_path"]).status_code == 401
    header = {"authorization": f"{scrape['authorization']['type']} {TOKEN}"}
    answer = client.get(scrape["metrics_path"], headers=header)
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", answer.text, re.MULTILINE))
    names = {name + end for name, kind in kinds.items() for end in SUFFIXES.get(kind, [""])}
    docs = (ROOT / "docs" / "serving.md").read_text().partition("## In a container")[2].partition("\n## ")[0]
    queried = set(re.findall(r"\bdescore_(?!api_key)\w+", docs))
    assert len(queried) >= 4
    assert queried <= names


def test_compose_builds_what_the_dockerfile_has(compose):
    for name, device in (("compose.yaml", "cpu"), ("compose.cuda.yaml", "cuda")):
        server = read_yaml(name)["services"]["server"]
        assert server["build"]["args"] == {"DEVICE": device}
        assert server["image"] == f"descore:{device}"
        assert f" AS {device}\n" in TEXT
    build = compose["services"]["server"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DEPLOY / "Dockerfile"
    mounts = [line.partition(":")[0] for service in compose["services"].values() for line in service["volumes"]]
    assert {mount for mount in mounts if mount.isalpha()} == compose["volumes"].keys()
    grace = compose["services"]["server"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > values([])["timeout"]
