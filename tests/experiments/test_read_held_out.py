"""What the lesson in reading makes of held-out prompts, beside another's vectors and over clips."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from experiments.grow_tiny import read_held_out
from experiments.grow_tiny.reading import ReadHeads
from tests.experiments.test_generated import source, store  # noqa: F401  # fixtures
from tests.model.families import build

from descore.video.sampling import VideoSampling

ANGLES = torch.tensor([0.0, 0.3, 1.0, 2.0])
SAMPLING = VideoSampling(fps=4, min_frames=4, max_frames=8, min_pixels=32 * 32, max_pixels=64 * 64, size_multiple=32)


def vectors(angles):
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.mark.parametrize(("said", "expected"), [(vectors(ANGLES), 1.0), (vectors(ANGLES * 0), float("nan"))])
def test_states_at_the_same_angles_correlate_fully(monkeypatch, said, expected):
    monkeypatch.setattr(read_held_out, "states", lambda *_: said)
    heads = ReadHeads(2)
    heads.vectors["text"] = torch.nn.Identity()
    found = read_held_out.correlation(SimpleNamespace(), heads, list("abcd"), lambda _: vectors(ANGLES))
    assert found == pytest.approx(expected, nan_ok=True)


def test_two_frames_of_each_clip_are_compared(monkeypatch, store):  # noqa: F811
    """Nearness is the number of a prompt's words: of the clips `e` and `f`, the latter's prompt has more."""
    shown = []

    def count_words(_, pictures, texts):
        shown.extend(pictures)
        return torch.tensor([[float(len(text.split())), 0.0] for text in texts])

    monkeypatch.setattr(read_held_out, "states", count_words)
    heads = ReadHeads(2)
    heads.nearness = torch.nn.Identity()
    model = SimpleNamespace(settings=SimpleNamespace(sampling=SAMPLING))
    assert list(read_held_out.own_prompt(model, heads, store, "test")) == [False, True]
    assert {clip.frames.shape for clip in shown} == {(2, 64, 64, 3)}
    assert np.diff(shown[0].times).item() == pytest.approx(0.25, abs=0.01)


def test_labels_alone_tell_a_clips_own_prompt(monkeypatch, store):  # noqa: F811
    """Every place is sure of one label, the prompt of `e`: it is nearer to that than to the prompt of `f`."""
    names = [f"{number} things" for number in range(999)] + ["labrador jumping"]
    vector = dict(zip(names, torch.eye(1000), strict=True)) | {"A steamship on the ocean, at sunset": torch.ones(1000)}
    monkeypatch.setattr(read_held_out, "label_names", lambda: names)
    model = build("efficient_vl")
    visual = model.backbone.model.visual
    visual.labels.weight.data.zero_()
    visual.labels.bias.data = 50 * torch.eye(1000)[-1]
    visual.meanings.weight.data = torch.eye(256, 1000).roll(-256, dims=1)  # the last labels have axes
    embed = lambda texts: torch.stack([vector[text] for text in texts])  # noqa: E731
    assert list(read_held_out.own_prompt_by_labels(model, embed, store, "test")) == [True, False]
