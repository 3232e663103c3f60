"""What the first lesson shows and teaches: features of pairs of frames, harms of tokens, cut-outs, and losses."""

import numpy as np
import pytest
import torch
from experiments.footage.cutouts import name_of, random_way
from experiments.grow_tiny.meanings import Meanings
from experiments.grow_tiny.probe import mean_and_change
from experiments.grow_tiny.teacher import STATISTICS, FrameFeatures, Teacher
from experiments.grow_tiny.token_truth import ACTS, FLAWS, HARMS, KINDS, Harmed, of_real, strengths
from experiments.grow_tiny.views import RealClips, changes, some_pairs, taught_by
from experiments.grow_tiny.vision import Standard, known_bce, known_smooth_l1, mean_by
from tests.experiments.test_teacher import random_weights

from descore.model.efficient_vl import LABELS
from descore.synthetic.generators import Flaw
from descore.synthetic.splits import Split, draw_example


@pytest.fixture(scope="module")
def teacher():
    return Teacher(random_weights())


def test_pairs_have_the_mean_and_the_change_of_their_frames():
    mean_P, change_P = mean_and_change(torch.tensor([1.0, 3.0, 10.0, 4.0]))
    assert mean_P.tolist() == [2, 7]
    assert change_P.tolist() == [2, -6]


def letters(texts):
    """Stands for MiniLM: vectors by the letters of a text."""
    counts = torch.tensor([[text.count(letter) for letter in "abcdefgh"] for text in texts]) + 0.1
    return torch.nn.functional.normalize(counts, dim=1)


def test_what_is_taught_is_by_pair_of_frames(teacher):
    clip = draw_example(Split.TRAIN, 0, size=(128, 64)).clip
    meanings = Meanings(letters, [chr(97 + number % 8) for number in range(LABELS)])
    real_clips = RealClips(examples=None, cut_outs=None, teacher=teacher, meanings=meanings, common_words=None)
    taught, seen = taught_by(real_clips, clip, "a cab"), teacher.features(clip.frames)
    assert taught.label_PL.shape == (4, LABELS)
    assert torch.allclose(taught.label_PL[2], (seen.probability_NL[4] + seen.probability_NL[5]) / 2)
    change_NS = seen.statistics_NS.diff(dim=0)
    assert torch.allclose(taught.change_P2S[1, :STATISTICS], change_NS[2], atol=1e-5)
    assert torch.allclose(taught.change_P2S[1, STATISTICS:], change_NS[2] - change_NS[1], atol=1e-5)
    assert taught.jerk_1.item() == pytest.approx(seen.jerk)
    assert torch.allclose(taught.meaning_D, meanings.of_places(taught.label_PL))
    assert taught.match_1.item() == pytest.approx(float(taught.meaning_D @ letters(["a cab"])[0]), abs=1e-6)


def test_a_clip_means_its_likely_labels():
    """Of two pairs of frames, one sure of the first label and one of the second: the mean direction of both."""
    labels = [*"ab", *"h" * 20]
    probability_PL = torch.zeros(2, 22)
    probability_PL[0, 0] = probability_PL[1, 1] = 1
    first_D, second_D = letters("ab")
    expected_D = torch.nn.functional.normalize(first_D + second_D, dim=0)
    assert torch.allclose(Meanings(letters, labels).of_clip(probability_PL), expected_D, atol=1e-6)


def test_places_mean_what_their_labels_have_of_their_own():
    """Of two labels, as probable at one place as at the other, and of one of them."""
    meanings = Meanings(letters, ["a", "b"])
    first_D, second_D = letters("ab")
    expected_D = torch.nn.functional.normalize(first_D - second_D, dim=0)
    assert torch.allclose(meanings.of_places(torch.tensor([[0.9, 0.1], [0.7, 0.3]])), expected_D, atol=1e-6)


def test_features_are_in_units_of_their_deviation():
    """Of 1, 2, 3 the deviation is 1; what never changes weighs nothing, whatever it is later."""
    standard = Standard(2)
    standard.measure(torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    assert standard(torch.tensor([[4.0, 9.0]])).tolist() == [[2.0, 0.0]]


def test_means_are_by_clip():
    mean_BF = mean_by(torch.tensor([0, 0, 1]), torch.tensor([[1.0], [3.0], [7.0]]))
    assert mean_BF.tolist() == [[2.0], [7.0]]


def test_what_is_not_known_has_no_loss():
    """Of even odds each known share costs log 2."""
    assert known_bce(torch.zeros(3), torch.tensor([1.0, torch.nan, 0.0])).item() == pytest.approx(np.log(2))
    assert known_bce(torch.zeros(1), torch.tensor([torch.nan])).item() == 0
    given = torch.zeros(2, requires_grad=True)
    loss = known_smooth_l1(given, torch.tensor([torch.nan, 3.0]))
    loss.backward()
    assert loss.item() == pytest.approx(2.5)
    assert given.grad.tolist() == [0, -1]


def test_changes_are_from_frame_to_frame():
    """Of 1, 3, 4, 9 the first differences are 2, 1 and 5; those of these are -1 and 4, the second of the last pair."""
    change_P2S = changes(torch.tensor([[1.0], [3.0], [4.0], [9.0]]))
    assert change_P2S[:, 0].tolist() == [2, 5]
    assert change_P2S[:, 1].tolist() == pytest.approx([np.nan, 4], nan_ok=True)
    assert changes(torch.zeros(2, 1)).isnan().tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, 3], 1 / 1.5), ([0, 1, 2, 3], 0), ([0, 1, 0, 1], 2), ([0, 1], np.nan), ([4, 4, 4], np.nan)],
)
def test_jerk_is_the_second_difference_over_the_first(values, expected):
    """In every stage alike. A steady rise has none; what alternates has twice as much as it changes."""
    rows_N1 = torch.tensor(values, dtype=torch.float32)[:, None]
    seen = FrameFeatures(statistics_NS=rows_N1.expand(-1, STATISTICS), probability_NL=rows_N1)
    assert seen.jerk == pytest.approx(expected, nan_ok=True)


def test_pairs_are_shown_one_behind_the_other():
    seen = {tuple(some_pairs(8, np.random.default_rng(seed)).tolist()) for seed in range(50)}
    assert seen == {(0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7)}
    assert some_pairs(3, np.random.default_rng(0)).tolist() == [0, 1]


def test_a_harm_is_known_by_token():
    """Frames of 64 x 64 pixels have four tokens; in the third 20 of 40 levels change."""
    sound_THWC = np.full((4, 64, 64, 3), 100, np.uint8)
    after_THWC = sound_THWC.copy()
    after_THWC[2:, 32:, :32] += 20
    harmed = Harmed(
        frames_THWC=after_THWC, flaws_N=strengths((), {"melt": 0.4}), before={"dynamics": (sound_THWC, after_THWC)}
    )
    assert harmed.by_token(np.array([0, 1])).tolist() == [[0, 0]] * 4
    assert harmed.by_token(np.array([0, 1, 2, 3]))[4:].tolist() == [[0, 0], [0, 0], [0, 0.5], [0, 0]]


def test_what_acts_at_another_time_is_not_known_by_token():
    frames_THWC = np.zeros((2, 64, 64, 3), np.uint8)
    harmed = Harmed(frames_THWC=frames_THWC, flaws_N=strengths(()), known=False)
    truth = of_real(harmed, np.array([0, 1]))
    assert np.isnan(truth.harm_V2).all()
    assert len(truth.labels["setting"]) == 4


def test_the_other_list_of_harms_is_not_known():
    """Of a clip that is blurred as footage is, nobody knows whether it is softened as generators do."""
    assert np.isnan(strengths((Flaw(name="blur", strength=0.5),))[len(FLAWS) :]).all()
    assert np.isnan(strengths((), {"soften": 0.5})[: len(FLAWS)]).all()
    assert strengths((), {"soften": 0.5})[KINDS.index("soften", len(FLAWS))] == np.float32(0.5)
    assert not strengths(()).any()
    assert {HARMS[name].acts for name in HARMS} == set(ACTS)


@pytest.mark.parametrize(
    ("text", "name"),
    [("A frog.\nUne grenouille", "a frog"), ("An albino peahen (a female).", "an albino peahen"), ("Boom!!!", "")],
)
def test_a_text_names_its_thing(text, name):
    assert name_of(text) == name


def test_things_move_their_way():
    """Numbers of ways: 1 is to the left, 4 is down."""
    time_T = np.arange(8) / 8
    left_T2 = random_way(time_T, 1, np.ones(2), np.random.default_rng(0))
    assert (np.diff(left_T2[:, 0]) < 0).all()
    down_T2 = random_way(time_T, 4, np.ones(2), np.random.default_rng(0))
    assert (np.diff(down_T2[:, 1]) > 0).all()
    assert np.ptp(down_T2[:, 0]) == 0
