"""The computed memory of a training step is what a real step's tensors take, at sizes that a test has time for."""

from dataclasses import replace

import pytest
import torch
from benchmarks import models, training_memory

from descore.memory import need as arithmetic
from descore.memory.live_bytes import LiveBytes
from descore.training import losses


def test_live_bytes_count_tensors_that_are_still_held():
    """1,000 numbers of 4 bytes: x is known; x + 1 and its square are there together, then x + 1 goes."""
    x = torch.zeros(1000)
    with LiveBytes([x]) as counted:
        y = x + 1
        y = y * y
        x.view(10, 100)
    assert counted.peak == 8000
    assert counted.live == y.nbytes == 4000


@pytest.mark.parametrize(("name", "published"), [("2B", 2_127_532_032), ("4B", 4_437_815_808), ("8B", 8_767_123_696)])
def test_the_sizes_are_the_published_ones(name, published):
    """The hub counts so many weights in Qwen/Qwen3-VL-2B-Instruct and its sisters."""
    with torch.device("meta"):
        model = models.true_size(models.SIZES[name], learns="full")
    assert sum(weight.numel() for weight in model.backbone.parameters()) == published


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learns", "chain", "at_once", "heaviest"),
    [
        ("lora", 2, 1 << 26, "layer"),
        ("lora", 64, 1 << 26, "logits"),
        ("full", 2, 1 << 26, "table"),
        ("full", 64, 1 << 26, "logits"),
        ("full", 64, 1 << 20, "table"),
    ],
)
def test_the_computed_memory_is_that_of_a_step(monkeypatch, learns, chain, at_once, heaviest):
    """Two tokens of chain have few logits, 64 have many. Masks and positions are not computed, so a little is left."""
    monkeypatch.setattr(models, "VOCABULARY", 32_768)
    for module in (arithmetic, losses):
        monkeypatch.setattr(module, "MAX_LOGITS", at_once)
    size = replace(
        models.SIZES["2B"],
        **{"width": 128, "layers": 3, "heads": 8, "inner": 384},
        **{"vision_layers": 2, "vision_width": 64, "vision_inner": 128, "deepstack": (0, 1)},
    )
    need = training_memory.computed(size, learns=learns, tokens=256, chain=chain, gpu=False)
    step = training_memory.Step(models.true_size_filled(size, learns=learns), tokens=256, chain=chain)
    there = [*step.held, *step.batch.values()]
    with LiveBytes(there) as counted:
        step()
    assert max(("layer", "logits", "copies", "table"), key=lambda part: getattr(need, part)) == heaviest
    assert sum(tensor.nbytes for tensor in step.held) == pytest.approx(need.frozen + need.learned, rel=1e-3)
    assert counted.peak + sum(tensor.nbytes for tensor in there) == pytest.approx(need.peak, rel=0.05)
