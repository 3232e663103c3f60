"""A scorer of the micro model that counts as trained."""

import pytest

from descore import Scorer
from tests.conftest import build_micro


def build_scorer(**settings):
    """The micro model with a mean of .5 and a deviation of 2, in batches of 2."""
    model = build_micro()
    stored = {"reward_mean": {"overall": 0.5}, "reward_std": {"overall": 2.0}, "trained_on": "a test", **settings}
    model.settings = model.settings.model_copy(update=stored)
    return Scorer(model, name="micro", batch_size=2)


@pytest.fixture(scope="session")
def scorer():
    return build_scorer()
