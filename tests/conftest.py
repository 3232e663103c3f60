"""Shared by all tests: a micro model of the real architecture, built from a seed in a second, and clips of noise."""

import os

import numpy as np
import pytest
import torch
from hypothesis import settings as hypothesis_settings

from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel
from descore.model.small import small_config, small_processor
from descore.types import Clip
from descore.video.sampling import VideoSampling

# Several workers share the cores, and torch's threads wait for one another beside busy neighbours. Subprocesses too.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# The same examples on every run, and no time limit: a busy machine is no fault of the code.
hypothesis_settings.register_profile("descore", derandomize=True, deadline=None)
hypothesis_settings.load_profile("descore")

RUBRIC = "Judge whether the video shows: {prompt}"


def build_micro(*, seed: int = 0, dimensions: tuple[str, ...] = ("overall",)) -> DescoreModel:
    """Two text layers and two vision layers with random weights; the vocabulary has rows that stand for nothing."""
    torch.manual_seed(seed)
    processor = small_processor(["a red ball rolls to the left <0.5 seconds>", RUBRIC], vocabulary=300)
    config = small_config(processor, vocabulary=320, width=64, layers=2, vision_width=48, vision_layers=2)
    settings = CheckpointSettings(
        dimensions=dimensions,
        sampling=VideoSampling(max_pixels=64 * 64, min_pixels=16 * 16, size_multiple=16),
        max_chain_tokens=12,
    )
    model = DescoreModel.from_backbone(config, processor=processor, settings=settings, rubric=RUBRIC).eval()
    with torch.no_grad():
        # Random weights hardly tell tokens apart; larger ones make chains and rewards depend on all that came before.
        for parameter in model.backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return model


def noise_clip(seed: int, *, frames: int = 4, width: int = 32, height: int = 32) -> Clip:
    """A clip of random pixels at one frame a second."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Clip(
        frames=pixels,
        times=tuple(float(t) for t in range(frames)),
        source=f"<noise {seed}>",
        source_fps=1.0,
        source_size=(width, height),
        source_frames=frames,
        duration=float(frames),
    )


@pytest.fixture(scope="session")
def micro() -> DescoreModel:
    """The micro model. Tests do not change it."""
    return build_micro()
