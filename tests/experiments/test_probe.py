"""Probes of frozen features, on features that are made up here."""

import pytest
import torch
from experiments.grow_tiny.probe import Seen, described, harm_probe, label_probe, logistic, open_eyes


def seen(generator, *, harm):
    """Six pairs of frames, with six labels that four features tell; a harm makes the fifth feature jump."""
    features_PF, jump_P = torch.randn(6, 5, generator=generator), torch.tensor([0.0, 1, 0, 1, 0, 1])
    features_PF[:, 4] = 0
    logit_PL = features_PF[:, :4] @ torch.randn(4, 12, generator=torch.Generator().manual_seed(5))
    harmed_PF = features_PF.clone()
    harmed_PF[:, 4] = harm * jump_P
    return Seen(sound_PF=features_PF, harmed_PF=harmed_PF, label_PL=logit_PL.softmax(dim=1))


def several(count, *, seed, harm=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [seen(generator, harm=harm) for _ in range(count)]


def test_a_clip_is_described_by_its_changes():
    """Of 0, 1, 0: mean 1/3, deviation sqrt(2)/3, first differences 1, second difference 2 in size."""
    assert described(torch.tensor([[0.0], [1.0], [0.0]])).tolist() == pytest.approx([1 / 3, 2**0.5 / 3, 1, 2])
    assert described(torch.ones(1, 2)).tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_a_logistic_probe_weighs_what_differs():
    sound_NF = torch.tensor([[1.0, 0.3], [1.0, -0.3]])
    weight_F = logistic(sound_NF, sound_NF * torch.tensor([-1.0, 1.0]), 0.1)
    assert weight_F[0] > 0
    assert abs(weight_F[1]) < 1e-3 * weight_F[0]


def test_harms_that_change_over_time_are_probed():
    assert harm_probe(several(24, seed=1), several(12, seed=2)) == 1
    assert harm_probe(several(24, seed=1, harm=0), several(12, seed=2, harm=0)) < 1


def test_labels_that_features_tell_are_probed():
    top5, own = label_probe(several(24, seed=1), several(12, seed=2))
    assert top5 > 0.95
    assert own > 0.95


def test_unknown_eyes_are_refused():
    with pytest.raises(ValueError, match="found 'cat', expected teacher"):
        open_eyes("cat", None)
