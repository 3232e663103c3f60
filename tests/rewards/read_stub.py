"""What stands for a decoder in worker processes, which import nothing heavy for it."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from descore.errors import ConfigError, VideoError
from descore.types import Clip


def read_stub(video, *, log=None):
    """What stands for a decoder: a name says what happens."""
    if log is not None:
        with Path(log).open("a") as file:
            file.write(f"{video}\n")
    if video == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if video == "crash":
        os.abort()
    if video == "exit":
        sys.exit(3)
    if video == "hang":
        time.sleep(600)
    if video == "bad":
        raise VideoError(video, "no such file")
    if video == "config":
        raise ConfigError("fps is 0")
    if video.startswith("slow"):
        time.sleep(0.3)
    return Clip(
        frames=np.zeros((1, 32, 32, 3), np.uint8),
        times=(0.0,),
        source=f"<stub {video.removeprefix('slow')}>",
        source_fps=1.0,
        source_size=(32, 32),
        source_frames=1,
        duration=1.0,
    )
