"""Pairs become one batch: their labels beside them, their chains dropped together or not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.training.pairs import labelled
from torch.utils.data import DataLoader, Dataset

from descore.training.collate import MISSING, PairCollator, RatingScale, Unreadable, chains_drop

LOST = Unreadable(table="t.csv", line=3, video="x.mp4", reason="no such file")


@pytest.fixture
def collate(micro):
    return PairCollator(chat=micro.chat, chain_drop=0.5, seed=1)


def some(count, **pair):
    return [labelled(i, [(1, -1, 0)[i % 3]], **pair) for i in range(count)]


def written(batch):
    """Rows (2, B) with a chain."""
    return batch["chain_mask"].any(dim=1).reshape(2, -1)


def test_all_a_come_before_all_b(micro, collate):
    pairs = some(2)
    batch = replace(collate, chain_drop=0.0)(pairs)
    texts = [micro.chat.decode_chain(ids[mask].tolist()) for ids, mask in zip(*both(batch), strict=True)]
    assert texts == [p.a.chain for p in pairs] + [p.b.chain for p in pairs]


def both(batch):
    return batch["input_ids"], batch["chain_mask"]


def test_labels_stand_beside_their_pairs(collate):
    pairs = [labelled(0, [1, MISSING, 0], rating_a=(3, None, 1), rating_b=(2, 4, None)), labelled(1, [-1, 1, MISSING])]
    batch = collate(pairs)
    assert batch["preference"].tolist() == [[1, 0, 0], [-1, 1, 0]]
    assert batch["labelled"].tolist() == [[True, False, True], [True, True, False]]
    nan = float("nan")
    expected = torch.tensor([[3, nan, 1], [nan] * 3, [2, 4, nan], [nan] * 3])
    assert batch["rating"].dtype == torch.float32
    torch.testing.assert_close(batch["rating"], expected, equal_nan=True)


def test_ratings_are_standardized_by_a_scale(collate):
    scale = RatingScale(mean_K=(3.0, 10.0), std_K=(0.5, 2.0))
    batch = replace(collate, rating_scale=scale)([labelled(0, [1, 1], rating_a=(4, None), rating_b=(3, 8))])
    torch.testing.assert_close(batch["rating"], torch.tensor([[2.0, float("nan")], [0, -1]]), equal_nan=True)


def test_both_chains_of_a_pair_drop_out_together_half_the_time(collate):
    batch = collate(some(40))
    a, b = written(batch)
    assert torch.equal(a, b)
    assert torch.equal(a, ~batch["dropped"])
    assert 10 < a.sum() < 30


def test_never_at_0_always_at_1(collate):
    assert written(replace(collate, chain_drop=0.0)(some(9))).all()
    assert not written(replace(collate, chain_drop=1.0)(some(9))).any()


def test_a_dropped_chain_leaves_the_empty_turn(micro, collate):
    batch = replace(collate, chain_drop=1.0)(some(1))
    row = batch["input_ids"][0][batch["attention_mask"][0].bool()]
    assert micro.chat.tokenizer.decode(row).endswith("<|im_start|>assistant\n<|im_end|><|query|>")


def test_the_share_that_drops_is_the_probability():
    """Of 20,000 draws, three standard deviations are 3 · sqrt(0.3 · 0.7 / 20,000) = 0.0097."""
    share = np.mean([chains_drop(7, 0, number, chain_drop=0.3) for number in range(20_000)])
    assert share == pytest.approx(0.3, abs=0.0097)


def test_what_drops_is_a_matter_of_seed_epoch_and_number():
    def drawn(seed, epoch):
        return [chains_drop(seed, epoch, number, chain_drop=0.5) for number in range(64)]

    assert drawn(1, 2) == drawn(1, 2)
    assert len({tuple(drawn(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_a_pair_drops_whatever_batch_it_is_in(collate):
    pairs = some(12)
    together = collate(pairs)["dropped"].tolist()
    assert [collate([pair])["dropped"].item() for pair in reversed(pairs)] == together[::-1]


def test_another_epoch_drops_others(collate):
    first, second = (collate(some(24, epoch=epoch))["dropped"] for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_a_pair_without_chains_counts_as_dropped(collate):
    batch = replace(collate, chain_drop=0.0)([labelled(0, [1]), labelled(1, [1], chains=False)])
    assert batch["dropped"].tolist() == [False, True]
    assert written(batch).tolist() == [[True, False], [True, False]]


def test_an_unreadable_pair_is_left_out_and_named(collate):
    batch = collate([labelled(0, [1]), LOST, labelled(2, [-1])])
    assert batch["unreadable"] == [LOST]
    assert len(batch["input_ids"]) == 4
    assert batch["preference"].tolist() == [[1], [-1]]


def test_a_batch_of_nothing_else_has_no_rows(collate):
    batch = collate([LOST])
    assert "input_ids" not in batch
    assert {len(batch[name]) for name in ("chain_mask", "preference", "labelled", "rating", "dropped")} == {0}


class Pairs(Dataset):
    """Items that take (epoch, number)."""

    def __len__(self):
        return 8

    def __getitem__(self, key):
        epoch, number = key
        return labelled(number, [1], epoch=epoch)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_persistent_workers_draw_by_the_epoch_of_the_key(collate, workers):
    expected = [[chains_drop(1, epoch, number, chain_drop=0.5) for number in range(8)] for epoch in range(3)]
    keys = []  # the one sampler of all epochs, as Trainer has it
    loader = DataLoader(
        Pairs(),
        sampler=keys,
        batch_size=3,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    for epoch in range(3):
        keys[:] = [(epoch, number) for number in range(8)]
        assert [drop for batch in loader for drop in batch["dropped"].tolist()] == expected[epoch]
