"""Pairs of noise with chains and labels, for tests of what is made of them."""

import math

import numpy as np
from tests.conftest import noise_clip

from descore.training.collate import TrainingExample, TrainingPair


def side(seed, *, chain="words"):
    return TrainingExample(clip=noise_clip(seed, frames=2), prompt=f"a red ball {seed // 2}", chain=chain)


def labelled(number, preference, *, rating_a=(), rating_b=(), chains=True, epoch=0):
    """`preference`: one of 1, -1, 0, MISSING for each dimension; ratings as well, None where there is none."""
    a, b = (side(2 * number + i, chain=f"I see {'noise ' * ((number + i) % 3)}." if chains else None) for i in (0, 1))
    return TrainingPair(
        a=a,
        b=b,
        preference_K=np.array(preference, dtype=np.int8),
        rating_a_K=ratings(rating_a),
        rating_b_K=ratings(rating_b),
        number=number,
        epoch=epoch,
    )


def ratings(values):
    return np.array([math.nan if v is None else v for v in values], dtype=np.float32) if values else None
