"""The teacher: its network, which is that of the model's eyes. Weights are random."""

import numpy as np
import pytest
import torch
from experiments.generated.labels import probabilities
from experiments.grow_tiny.teacher import STATISTICS, Teacher
from torch import nn

from descore.model.efficient_vl import LABELS, STAGES, Filter, folded


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
    for stage, (blocks, edge, _, channels) in enumerate(STAGES):
        for _ in range(blocks):
            wide, name = inputs * (6 if stage else 1), f"_blocks.{block}"
            if stage:
                weights |= convolution(f"{name}._expand_conv", f"{name}._bn0", (wide, inputs, 1), generator)
            weights |= convolution(f"{name}._depthwise_conv", f"{name}._bn1", (wide, 1, edge), generator)
            weights |= convolution(f"{name}._project_conv", f"{name}._bn2", (channels, wide, 1), generator)
            block, inputs = block + 1, channels
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
    one = nn.Conv2d(3, 4, 3, padding=1)
    one.load_state_dict({k.removeprefix("one."): v for k, v in folded(weights, "c", "n", "one").items()})
    torch.testing.assert_close(one(x), normal(plain(x)))


def test_the_odd_pixel_of_padding_goes_to_the_end():
    """Of a filter that takes its first pixel alone, at a stride of 2, nothing is before the picture's first pixel."""
    layer = Filter(1, 1, 3, stride=2, bias=False)
    layer.weight.data = torch.zeros(1, 1, 3, 3)
    layer.weight.data[0, 0, 0, 0] = 1
    even, odd = torch.arange(36.0).reshape(1, 1, 6, 6), torch.arange(25.0).reshape(1, 1, 5, 5)
    assert torch.equal(layer(even), even[:, :, ::2, ::2])
    # Of five pixels both ends are padded with one.
    assert torch.equal(layer(odd)[0, 0, 1:, 1:], odd[0, 0, 1::2, 1::2])


def test_clips_labels_are_the_mean_over_frames_and_places(teacher):
    frames_NHWC = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    _, logits_NLHW = teacher.stages(frames_NHWC)
    mean_L = logits_NLHW.mean(dim=(2, 3)).softmax(dim=1).mean(dim=0)
    assert probabilities(teacher, frames_NHWC) == pytest.approx(mean_L.numpy(), abs=1e-7)


def test_a_frame_has_statistics_and_labels(teacher):
    frames_NHWC = np.full((2, 64, 96, 3), 90, np.uint8)
    even = teacher.features(frames_NHWC)
    assert even.statistics_NS.shape == (2, STATISTICS)
    assert torch.allclose(even.probability_NL.sum(dim=1), torch.ones(2), atol=1e-5)
    frames_NHWC[1, 40:60, 70:90] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    changed = teacher.features(frames_NHWC)
    assert torch.equal(changed.statistics_NS[0], even.statistics_NS[0])
    assert not torch.equal(changed.statistics_NS[1], even.statistics_NS[1])
    stages, _ = teacher.stages(frames_NHWC)
    for stage_NCHW, part_NS in zip(
        stages, changed.statistics_NS.split([2 * c for *_, c in STAGES], dim=1), strict=True
    ):
        mean_NC, deviation_NC = part_NS.chunk(2, dim=1)
        assert torch.allclose(mean_NC, stage_NCHW.flatten(2).mean(dim=2), atol=1e-5)
        assert torch.allclose(deviation_NC.square(), stage_NCHW.flatten(2).var(dim=2, correction=0), atol=1e-4)
