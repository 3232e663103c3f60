import csv
import os

import numpy as np
import pytest
import yaml

from descore.chains.config import CollectConfig
from descore.training.config_file import read_config
from descore.video.encoder import write_mp4

CLIPS = 6


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Small unlike videos, 0.mp4 to 5.mp4."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(CLIPS):
        frames = np.random.default_rng(number).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        write_mp4(folder / f"{number}.mp4", frames, fps=4, codec="mpeg4")
    return folder


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Files need not outlive a loss of power here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session", autouse=True)
def one_context():
    """The certificates of all authorities are read once, not by each client."""
    from httpx2 import create_ssl_context

    context = create_ssl_context()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx2._transports.default.create_ssl_context", lambda *_, **__: context, raising=False)
        yield


@pytest.fixture
def pairs(clips, tmp_path):
    """A table of three pairs; the last one has the first's clip a again, with the same prompt."""
    rows = [("a red ball", 0, 1, "a"), ("a cat", 2, 3, "tie"), ("a red ball", 0, 4, "b")]
    return write_table(
        tmp_path / "pairs.csv",
        [
            {"prompt": prompt, "video_a": clips / f"{a}.mp4", "video_b": clips / f"{b}.mp4", "preference": preference}
            for prompt, a, b, preference in rows
        ],
    )


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_config(folder, table, stub=None, *overrides, out="run", **groups):
    """A config in a file, read back as the command reads it."""
    values = {
        "data": {"table": str(table)} | groups.pop("data", {}),
        "teacher": {"model": "stub", **({"base_url": stub.url} if stub else {})} | groups.pop("teacher", {}),
        "limits": {"concurrency": 4} | groups.pop("limits", {}),
        "run": {"out": str(folder / out)} | groups.pop("run", {}),
        **groups,
    }
    file = folder / "chains.yaml"
    file.write_text(yaml.safe_dump(values))
    return read_config(file, CollectConfig, overrides=overrides)
