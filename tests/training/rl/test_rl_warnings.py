"""What works against itself is said before a run begins, in one line; what does not is not."""

import json
import warnings
from pathlib import Path

import pytest
from tests.training.conftest import pair_rows, write_table
from tests.training.rl_case import MARKS, rl_settings

from descore.errors import DescoreWarning
from descore.training.config_file import read_config
from descore.training.dataset import PairTable, index_pairs
from descore.training.rl.config import RlConfig
from descore.training.rl.run import warn_of_lengths, warn_of_table
from descore.video.sampling import VideoSampling

SHIPPED = Path(__file__).parents[3] / "configs" / "dual_rl.yaml"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    (folder / "rl.yaml").write_text(json.dumps(rl_settings(folder, folder / "out")))

    def make(*overrides):
        return read_config(folder / "rl.yaml", RlConfig, overrides=overrides)

    return make


def said(warn):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn()
    assert all(one.category is DescoreWarning for one in found)
    return [str(one.message) for one in found]


@pytest.mark.parametrize(
    ("limit", "overrides", "expected"),
    [
        (500, (), ["never paid: chains are cut off at 500 tokens, it is 0 up to 500"]),
        (1024, (), ["never paid in full: chains are cut off at 1,024 tokens, it is 1 from 2,000"]),
        (1024, ("rewards.length=0",), []),
        (2000, (), []),
        (2049, (), ["chains of up to 2,049 tokens are learned, the trained model may write 2,048"]),
    ],
)
def test_a_length_that_no_chain_reaches_is_said(config, limit, overrides, expected):
    settings = config("rewards.length_none_below=500", "rewards.length_full_from=2000", *overrides)
    found = said(lambda: warn_of_lengths(settings, limit=limit, served=2048))
    assert len(found) == len(expected)
    assert all(text in line for text, line in zip(expected, found, strict=True))


def test_the_shipped_config_pays_for_length():
    config = read_config(SHIPPED, RlConfig)
    assert config.rewards.length
    limit, served = config.rollout.max_completion_length, config.model.max_chain_tokens
    assert said(lambda: warn_of_lengths(config, limit=limit, served=served)) == []


NO_MARKS, NOT_DECIDED = "none of 3 pairs has marks", "none of 3 pairs is decided"


def table_of(folder, preferences, *, marks, dimensions=("overall",)):
    rows = [
        {**row, **dict.fromkeys(("marks_a", "marks_b"), ""), "preference": preference, "preference.motion": "tie"}
        for row, preference in zip(pair_rows(), preferences, strict=False)
    ]
    rows[-1]["marks_b"] = MARKS if marks else ""
    table = write_table(folder / "pairs.csv", rows)
    index_pairs(table, folder / "pairs.arrow", dimensions=dimensions, marks=True)
    return PairTable(table, index=folder / "pairs.arrow", sampling=VideoSampling(), dimensions=dimensions)


@pytest.mark.parametrize(
    ("preferences", "marks", "overrides", "expected"),
    [
        (("tie", "tie", "tie"), False, (), [NO_MARKS, NOT_DECIDED]),
        (("tie", "tie", "b"), False, (), [NO_MARKS]),
        (("tie", "", "tie"), True, (), [NOT_DECIDED]),
        (("tie", "", "b"), True, (), []),
        (("tie", "", "tie"), True, ("loss.kind=ties",), []),
        (("tie", "", "tie"), True, ("loss.bt_weight=0",), []),
        (("tie", "", "tie"), False, ("paradigm=generative",), []),
    ],
)
def test_a_table_that_teaches_chains_or_rewards_nothing_is_said(
    config, tmp_path, preferences, marks, overrides, expected
):
    pairs, settings = table_of(tmp_path, preferences, marks=marks), config(*overrides)
    found = said(lambda: warn_of_table(settings, pairs))
    assert len(found) == len(expected)
    assert all(text in line for text, line in zip(expected, found, strict=True))


def test_a_pair_may_be_decided_in_any_dimension(config, tmp_path):
    pairs = table_of(tmp_path, ("tie", "a", "tie"), marks=True, dimensions=("motion", "overall"))
    assert said(lambda: warn_of_table(config(), pairs)) == []
