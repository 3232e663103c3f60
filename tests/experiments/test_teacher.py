"""The teacher of the vision tower: its network, and its features at each token's place. Weights are random."""

import numpy as np
import pytest
import torch
from experiments.grow_tiny.teacher import (
    CHANNELS,
    LABELS,
    PRECISION,
    STAGES,
    STATISTICS,
    TOKEN_FEATURES,
    Teacher,
    _folded,
)
from torch import nn


def convolution(name, normalization, shape, generator):
    """Weights of a convolution and its normalization, of a size that keeps signals alive."""
    outputs, inputs, kernel = shape
    return {
        f"{name}.weight": torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        / (inputs * kernel**2) ** 0.5,
        f"{normalization}.weight": torch.ones(outputs),
        f"{normalization}.bias": torch.zeros(outputs),
        f"{normalization}.running_mean": torch.zeros(outputs),
        f"{normalization}.running_var": torch.ones(outputs),
    }


def random_weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = convolution("_conv_stem", "_bn0", (32, 3, 3), generator)
    block, inputs = 0, 32
    for stage, (blocks, _) in enumerate(STAGES):
        for _ in range(blocks):
            wide, name = inputs * (6 if stage else 1), f"_blocks.{block}"
            if stage:
                weights |= convolution(f"{name}._expand_conv", f"{name}._bn0", (wide, inputs, 1), generator)
            weights |= convolution(f"{name}._depthwise_conv", f"{name}._bn1", (wide, 1, 3), generator)
            weights |= convolution(f"{name}._project_conv", f"{name}._bn2", (CHANNELS[stage], wide, 1), generator)
            block, inputs = block + 1, CHANNELS[stage]
    weights |= convolution("_conv_head", "_bn1", (1280, inputs, 1), generator)
    fully = torch.randn(LABELS, 1280, generator=generator) / 1280**0.5
    return weights | {"_fc.weight": fully, "_fc.bias": torch.zeros(LABELS)}


@pytest.fixture(scope="module")
def teacher():
    return Teacher(random_weights())


def test_normalization_is_folded_into_the_convolution():
    """As torch's own layers, one after the other, have it."""
    weights = convolution("c", "n", (4, 3, 3), torch.Generator().manual_seed(0))
    for name in ("weight", "bias", "running_mean", "running_var"):
        weights[f"n.{name}"] = torch.rand(4, generator=torch.Generator().manual_seed(len(name))) + 0.5
    plain, normal = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, eps=1e-3).eval()
    plain.weight.data = weights["c.weight"]
    normal.load_state_dict({k.removeprefix("n."): v for k, v in weights.items() if k[0] == "n"}, strict=False)
    x = torch.randn(2, 3, 8, 8)
    expected = normal(plain(x)).clamp(0, 6)
    given = _folded(weights, "c", "n")(x.to(PRECISION))
    assert torch.allclose(given.float(), expected, atol=0.05)  # bfloat16 has three digits


def test_the_odd_pixel_of_padding_goes_to_the_end():
    """Of a kernel that takes its first pixel alone, at a stride of 2, nothing is before the picture's first pixel."""
    weights = convolution("c", "n", (1, 1, 3), torch.Generator())
    weights["c.weight"] = torch.zeros(1, 1, 3, 3)
    weights["c.weight"][0, 0, 0, 0] = (1 + 1e-3) ** 0.5
    x = torch.arange(36.0).reshape(1, 1, 6, 6).to(PRECISION) / 8
    assert torch.equal(_folded(weights, "c", "n", stride=2)(x), x[:, :, ::2, ::2])


def test_each_token_has_features_of_its_own_place(teacher):
    frames_NHWC = np.full((2, 64, 96, 3), 90, np.uint8)
    even = teacher.features(frames_NHWC, token=32)
    assert even.token_NHWF.shape == (2, 2, 3, TOKEN_FEATURES)
    assert even.statistics_NS.shape == (2, STATISTICS)
    assert torch.allclose(even.probability_NL.sum(dim=1), torch.ones(2), atol=1e-5)
    frames_NHWC[1, 40:60, 70:90] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    change_HW = (teacher.features(frames_NHWC, token=32).token_NHWF - even.token_NHWF)[1].abs().mean(dim=2)
    assert change_HW.argmax() == 5  # the last row and column
    assert torch.equal(teacher.features(frames_NHWC, token=32).token_NHWF[0], even.token_NHWF[0])
