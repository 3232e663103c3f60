"""The ways that the benchmark of bfloat16 compares are the same where both precisions are float32."""

import pytest
import torch
from benchmarks.bfloat16 import Models, apart, laid_out_by, one_pass, query_in_float32, read_again, scored
from tests.conftest import build_micro, noise_clip

from descore.scorer import Scorer

CLIPS = [(noise_clip(seed, frames=4 + 2 * seed), f"a red ball {seed}") for seed in range(3)]


@pytest.mark.parametrize("way_of", [query_in_float32, read_again])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_in_one_precision_all_ways_agree(micro, way_of, temperature):
    batches = laid_out_by(micro, CLIPS, 2)
    assert [len(batch["input_ids"]) for batch in batches] == [2, 1]
    expected = scored(one_pass(micro), batches, temperature=temperature)
    found = scored(way_of(Models(micro, micro)), batches, temperature=temperature)
    assert [chain for chain, _ in found] == [chain for chain, _ in expected]
    assert [reward for _, reward in found] == pytest.approx([reward for _, reward in expected], abs=1e-5)


def test_a_forked_chain_has_no_distance():
    some, others = [([1, 2], 0.5), ([1, 3], 0.5)], [([1, 2], 0.25), ([1, 4], 9.0)]
    assert apart(some, others) == [0.25]


@pytest.mark.filterwarnings("ignore:.*never trained")
def test_bfloat16_one_at_a_time_is_alone_to_the_bit():
    scorer = Scorer(build_micro().to(torch.bfloat16), name="micro", batch_size=1)
    scorer.model.head.float()
    together = scorer.score_batch(CLIPS)
    assert [score.reward for score in together] == [scorer.score(clip, prompt=text).reward for clip, text in CLIPS]
