"""The benchmark of a reward on tensors gives both ways the same clips."""

import pytest
import torch
from benchmarks import reward_function

from descore import Scorer
from descore.rewards import RewardFunction


@pytest.fixture(scope="module")
def tiny():
    return Scorer.from_pretrained("tiny", device="cpu")


@pytest.mark.slow
def test_both_ways_score_the_same_clips(tiny):
    batch = reward_function.drawn_batch(2, frames=17, height=96, width=128)
    reward = RewardFunction(tiny, think="off")
    tensors, files = reward_function.rewards_by_tensors(reward, batch), reward_function.rewards_by_files(reward, batch)
    for a, b in zip(tensors.scores, files.scores, strict=True):
        assert a.clip.times == b.clip.times
        assert a.clip.size == b.clip.size
    assert float((tensors.rewards - files.rewards).abs().max()) < 0.5  # the encoder's doing


@pytest.mark.slow
def test_each_row_has_a_cell_for_each_column(tiny, capsys):
    batch = reward_function.drawn_batch(1, frames=9, height=64, width=64)
    reward_function.measure(tiny, batch, repeats=1)
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["64x64", "prepared"], ["64x64", "off"], ["64x64", "on"]]
    assert [len(row) for row in rows] == [5, 7, 7]
    assert all(float(row[4]) > 1 for row in rows[:1])  # encoding and decoding cost more than choosing frames


def test_the_batch_is_what_a_pipeline_decodes():
    batch = reward_function.drawn_batch(2, frames=5, height=32, width=64)
    assert batch.videos.shape == (2, 5, 3, 32, 64)
    assert batch.videos.dtype == torch.float32
    assert 0 <= float(batch.videos.min()) < float(batch.videos.max()) <= 1
    assert len(set(batch.prompts)) == 2
