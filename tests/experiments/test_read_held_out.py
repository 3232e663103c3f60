"""The cosines of held-out prompts, compared with those of another's vectors."""

from types import SimpleNamespace

import pytest
import torch
from experiments.grow_tiny import read_held_out
from experiments.grow_tiny.reading import ReadHeads

ANGLES = torch.tensor([0.0, 0.3, 1.0, 2.0])


def vectors(angles):
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.mark.parametrize(("states", "expected"), [(vectors(ANGLES), 1.0), (vectors(ANGLES * 0), float("nan"))])
def test_states_at_the_same_angles_correlate_fully(monkeypatch, states, expected):
    batch = {"cosine_BB": vectors(ANGLES) @ vectors(ANGLES).T}
    monkeypatch.setattr(read_held_out, "prompt_states", lambda *_: (states, {}))
    monkeypatch.setattr(read_held_out, "collate_readings", lambda *_, **__: batch)
    head = ReadHeads(2)
    head.map = torch.nn.Identity()
    found = read_held_out.correlation(SimpleNamespace(), head, list("abcd"), lambda _: vectors(ANGLES))
    assert found == pytest.approx(expected, nan_ok=True)
