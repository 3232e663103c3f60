"""What the bundled model's pairs show: drawn clips at files' rates, and the model's own chains of real clips."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from experiments.grow_tiny import lessons, own_chains
from experiments.grow_tiny.drawn import FILE_RATES, SAMPLING, SIDE, draw, draw_as_file
from experiments.grow_tiny.lessons import Prefer, PreferCollator, has_own_chains
from experiments.grow_tiny.own_chains import write_own_chains
from tests.conftest import noise_clip

from descore.synthetic.splits import Split, draw_plan, plan_example
from descore.training.collate import PairCollator, TrainingExample, TrainingPair

PLANS = [plan_example(Split.TRAIN, index) for index in range(24)]


def pair(number, chain="I see it."):
    sides = [TrainingExample(clip=noise_clip(side), prompt=f"prompt {number}", chain=chain) for side in (0, 1)]
    return TrainingPair(a=sides[0], b=sides[1], preference_K=np.array([1], np.int8), number=number)


def test_a_file_at_the_drawn_rate_is_the_drawn_clip():
    for plan in PLANS[:6]:
        drawn, file = draw_plan(plan, size=(SIDE, SIDE)).clip, draw_as_file(plan, rate=4).clip
        assert np.array_equal(file.frames, drawn.frames)
        assert file.times == drawn.times


@pytest.mark.parametrize(("rate", "frames", "steps"), [(5, 10, {0.2}), (8, 16, {0.125}), (22, 16, {1 / 11, 3 / 22})])
def test_a_file_is_sampled_as_the_model_samples_it(rate, frames, steps):
    clip = draw_as_file(PLANS[0], rate=rate).clip
    assert len(clip.frames) == len(clip.times) == frames
    assert {round(after - before, 9) for before, after in pairwise(clip.times)} == {round(step, 9) for step in steps}
    assert clip.duration == pytest.approx(2)


def test_half_of_the_clips_are_as_of_a_file():
    as_file = [len(draw(plan, number=number).clip.frames) != 8 for number, plan in enumerate(PLANS)]
    assert 6 <= sum(as_file) <= 18
    assert all(rate * 2 >= SAMPLING.min_frames for rate in FILE_RATES)


def test_both_clips_of_a_drawn_pair_have_the_same_times():
    lesson = Prefer(examples=None, footage=None)
    pairs = [lesson.true_pair(number) for number in range(0, 60, lessons.DRAWN_EVERY)]
    assert all(each.a.clip.times == each.b.clip.times for each in pairs)
    assert len({each.a.clip.times for each in pairs}) > 3


def test_most_real_pairs_have_own_chains_and_no_drawn_one():
    own = [has_own_chains(number) for number in range(3000)]
    assert not any(own[:: lessons.DRAWN_EVERY])
    assert sum(own) / 2000 == pytest.approx(lessons.P_OWN_CHAINS, abs=0.05)


def test_own_chains_stand_in_the_place_of_the_true_ones(monkeypatch):
    monkeypatch.setattr(Prefer, "true_pair", lambda _, number: pair(number))
    lesson = Prefer(examples=None, footage=None, own_chains={7: ("I see a cat.", "I see a dog.")})
    assert [side.chain for side in (lesson(7, 0.0).a, lesson(7, 0.0).b)] == ["I see a cat.", "I see a dog."]
    assert lesson(8, 0.0).a.chain == "I see it."
    assert lesson(7, 0.0).b.prompt == "prompt 7"


def test_own_chains_have_no_loss(micro, monkeypatch):
    monkeypatch.setattr(Prefer, "true_pair", lambda _, number: pair(number))
    lesson = Prefer(examples=None, footage=None, own_chains={1: ("I see a cat.", "I see a dog.")})
    collate = PreferCollator(PairCollator(chat=micro.chat, chain_drop=0.0, seed=0))
    batch = collate([lesson(0, 0.0), lesson(1, 0.0)])
    rows = zip(batch["input_ids"], batch["chain_mask"], strict=True)
    learned = [micro.chat.tokenizer.decode(ids[mask]) for ids, mask in rows]
    assert learned[0].startswith("I see it.")
    assert learned[2] == learned[0]
    assert learned[1] == learned[3] == ""
    assert "cat" in micro.chat.tokenizer.decode(batch["input_ids"][1])


def test_a_stopped_writing_of_chains_resumes(micro, tmp_path, monkeypatch):
    asked, settings = [], micro.settings

    class Writer:
        def __init__(self, model, **_):
            assert model.settings.trained_on

        def score_batch(self, requests):
            asked.append(len(requests))
            if len(asked) == 2:
                raise KeyboardInterrupt
            texts = [f"of {prompt}" for _, prompt in requests]
            return [SimpleNamespace(completions=[SimpleNamespace(text=text)]) for text in texts]

    monkeypatch.setattr(own_chains, "Scorer", Writer)
    monkeypatch.setattr(own_chains, "AT_ONCE", 2)
    with pytest.raises(KeyboardInterrupt):
        write_own_chains(micro, pair, [1, 2, 3], tmp_path / "own.jsonl")
    own = write_own_chains(micro, pair, [1, 2, 3], tmp_path / "own.jsonl")
    assert asked == [4, 2, 2]
    assert own == {number: (f"of prompt {number}",) * 2 for number in (1, 2, 3)}
    assert micro.settings == settings
