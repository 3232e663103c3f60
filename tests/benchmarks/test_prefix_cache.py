"""The ways that the benchmark of the shared prefix compares take as many steps, with caches of the sizes it prints."""

import pytest
from benchmarks.prefix_cache import Ways, cache_bytes, step_seconds
from tests.conftest import noise_clip


@pytest.fixture(scope="module")
def ways(micro):
    return Ways(micro, micro.chat.lay_out_prompts([noise_clip(0)], ["a red ball"]), 3)


def test_steps_are_counted_without_prefill_and_reward(ways):
    """Between nine tokens there are eight steps, and the last has no forward of the same kind behind it; a prefill by
    `generate` is its first."""
    counted = [len(step_seconds(ways.model, lambda way=way: way(9))) for way in (ways.shared, ways.repeated)]
    assert [*counted, len(step_seconds(ways.model, lambda: ways.transformers(9)))] == [7, 7, 6]


def test_caches_hold_the_prompt_once_or_for_each_chain(ways):
    """Two layers of keys and values, one head of 64 numbers of four bytes; `repeated` has room for two tokens more."""
    prompt, column = ways.prompts["input_ids"].shape[1], 2 * 2 * 64 * 4
    assert cache_bytes(ways.shared(9)) == (prompt + 3 * 64) * column
    assert cache_bytes(ways.repeated(9)) == 3 * (prompt - 1 + 9 + 3) * column
    assert cache_bytes(ways.transformers(9)) == 3 * (prompt + 8) * column


def test_a_way_that_fails_leaves_no_hook(ways):
    with pytest.raises(ZeroDivisionError):
        step_seconds(ways.model, lambda: 1 / 0)
    assert not ways.model.backbone.model.language_model._forward_pre_hooks
