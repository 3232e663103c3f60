"""Errors cross processes: a clip that cannot be read is an error in a process pool, and the pool goes on."""

import copy
import pickle
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context

import pytest

import descore
from descore.chains.server import TeacherError
from descore.config_model import Fault, SettingsError
from descore.engines.two_requests import ChainTextError
from descore.errors import (
    AnswerError,
    CheckpointError,
    ConfigError,
    DataError,
    DescoreError,
    MarkError,
    VideoError,
    VideoLimitError,
)
from descore.serving.problems import ServiceError
from descore.video.packets import _CorruptPacketError
from descore.video.reader import VideoSampling, read_clip
from descore.video.sampling import DamagedError

EXAMPLES = [
    AnswerError("no block"),
    ChainTextError("clip.mp4", "its text is not what its tokens say"),
    CheckpointError("config.json: not there"),
    ConfigError("samples is 0"),
    DamagedError("clip.mp4", "cut off"),
    DataError("pairs.csv", 7, "prompt is empty"),
    DescoreError("anything"),
    MarkError("style is missing"),
    ServiceError("busy", "try again"),
    TeacherError("busy", "429: later", again=True, wait=2.0),
    SettingsError("sampling", [Fault("fps", "must be positive"), Fault("seed", "unknown key")]),
    VideoError("clip.mp4", "no such file"),
    VideoLimitError("clip.mp4", "8192x8192 pixels"),
    _CorruptPacketError("clip.mp4", "a packet is corrupt"),
]


def family(kind=DescoreError):
    return {kind}.union(*(family(inner) for inner in kind.__subclasses__()))


def test_every_error_of_the_family_has_an_example():
    for module in pkgutil.walk_packages(descore.__path__, "descore."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    assert {type(error) for error in EXAMPLES} == {k for k in family() if k.__module__.startswith("descore")}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_error_is_the_same(error, protocol):
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert (str(again), again.args, again.exit_code) == (str(error), error.args, error.exit_code)
        assert vars(again) == vars(error)


def read(path):
    return read_clip(path, sampling=VideoSampling())


@pytest.mark.slow
def test_a_broken_clip_in_a_process_pool_is_an_error(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        first, second = pool.submit(read, str(broken)), pool.submit(read, str(tmp_path / "absent.mp4"))
        assert "not a video" in first.exception(timeout=60).reason
        assert second.exception(timeout=60).reason == "no such file"
