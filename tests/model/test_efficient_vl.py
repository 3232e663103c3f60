"""The eyes of EfficientVL: frames out of patches, features of each token's place, and weights from a release."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from tests.conftest import noise_clip
from tests.experiments.test_teacher import random_weights
from tests.model.families import build

from descore.errors import CheckpointError
from descore.model import efficient_vl
from descore.model.efficient_vl import FEATURES, VIEWS, EfficientVisionConfig, EfficientVisionModel, weights_of_network
from descore.model.modeling import DescoreModel


@pytest.fixture(scope="module")
def eyes():
    """With signals that are alive in every stage."""
    model = EfficientVisionModel(EfficientVisionConfig()).eval()
    absent = model.load_state_dict(weights_of_network(random_weights()), strict=False)
    assert not absent.unexpected_keys
    assert {name.split(".")[0] for name in absent.missing_keys} == {"merger", "meanings"}
    return model


def patches_of(*clips):
    inputs = build("efficient_vl").chat.lay_out_prompts(list(clips), ["?"] * len(clips))
    return inputs["pixel_values_videos"], inputs["video_grid_thw"]


def test_frames_are_the_clips_pixels(eyes):
    clip = noise_clip(0, frames=4, width=96, height=64)
    patches_RP, [[steps, height, width]] = patches_of(clip)
    frames_NCHW = eyes._frames(patches_RP, int(height), int(width))
    assert (steps, frames_NCHW.shape) == (2, (4, 3, 64, 96))
    expected = torch.from_numpy(clip.frames).movedim(3, 1) / 255
    torch.testing.assert_close(frames_NCHW / 2 + 0.5, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_tokens_are_the_mean_and_the_changes_of_their_place(eyes):
    """In the second of three vision steps, the last token's place changes from the first frame to the second."""
    clip = noise_clip(0, frames=6, width=96, height=64)
    clip.frames[1:] = clip.frames[0]
    clip.frames[3, 34:62, 66:94] = np.random.default_rng(1).integers(0, 256, (28, 28, 3))
    patches_RP, grid_B3 = patches_of(clip)
    gathered_V3F = eyes.gather(patches_RP, grid_B3)
    assert gathered_V3F.shape == (18, VIEWS * FEATURES)
    mean_VF, change_VF, since_VF = gathered_V3F.split(FEATURES, dim=1)
    for places_VF, changed in ((change_VF, 1), (since_VF, 2)):
        by_step_SV = places_VF.abs().mean(dim=1).view(3, 6)
        assert by_step_SV.any(dim=1).nonzero().tolist() == [[changed]]
        assert by_step_SV[changed].argmax() == 5
    place_NHWF = eyes.look(eyes._frames(patches_RP, 4, 6))
    torch.testing.assert_close(mean_VF[7], (place_NHWF[2] + place_NHWF[3])[0, 1] / 2)
    torch.testing.assert_close(change_VF[11], (place_NHWF[3] - place_NHWF[2])[1, 2])
    torch.testing.assert_close(since_VF[17], (place_NHWF[4] - place_NHWF[3])[1, 2])


@torch.no_grad()
def test_a_place_means_what_its_labels_mean(eyes):
    """With a label's number as its meaning: the mean of numbers, each as probable as the last stage's features say."""
    eyes = deepcopy(eyes)
    eyes.meanings.weight.copy_(torch.arange(1000.0).expand(256, 1000))
    patches_RP, grid_B3 = patches_of(noise_clip(0, frames=2, width=64, height=32))
    last_NCHW = eyes.depths(eyes._frames(patches_RP, 2, 4))[-1].mean(dim=0, keepdim=True)
    top_NHWC = torch.nn.functional.relu6(eyes.top(last_NCHW)).movedim(1, 3)
    expected_V = eyes.labels(top_NHWC).softmax(dim=3).flatten(0, 2) @ torch.arange(1000.0)
    meaning_VM = eyes.meaning(eyes.gather(patches_RP, grid_B3)[:, :FEATURES])
    torch.testing.assert_close(meaning_VM, expected_V[:, None].expand(2, 256))


@torch.no_grad()
def test_clips_of_unlike_sizes_are_seen_apart(eyes):
    sizes = ({"width": 64}, {"width": 64, "height": 64}, {"width": 64, "height": 64}, {"width": 32, "frames": 6})
    clips = [noise_clip(seed, **size) for seed, size in enumerate(sizes)]
    together_VD = eyes(*patches_of(*clips)).pooler_output
    alone = [eyes(*patches_of(clip)).pooler_output for clip in clips]
    assert [len(tokens_VD) for tokens_VD in alone] == [4, 8, 8, 3]
    torch.testing.assert_close(together_VD, torch.cat(alone), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_long_video_is_not_cut(eyes, monkeypatch):
    """What changed since the frame before is seen wherever the network's own batches end."""
    patches_RP, grid_B3 = patches_of(noise_clip(0, frames=8))
    whole_VD = eyes(patches_RP, grid_B3).pooler_output
    monkeypatch.setattr(efficient_vl, "MOST_FRAMES", 3)
    torch.testing.assert_close(eyes(patches_RP, grid_B3).pooler_output, whole_VD, atol=1e-5, rtol=1e-5)


def test_the_merger_has_the_units_of_what_it_was_fitted_to():
    gathered = torch.arange(3.0)[:, None].repeat(1, VIEWS * FEATURES)
    gathered[:, 0] = 7  # never changes
    merger = EfficientVisionModel(EfficientVisionConfig()).merger
    merger.fit(gathered)
    assert ((gathered - merger.shift) * merger.gain)[:, :2].tolist() == [[0, -1], [0, 0], [0, 1]]


def test_tokens_of_another_size_are_refused(tmp_path):
    model = build("efficient_vl")
    model.save_pretrained(tmp_path)
    for name in ("config", "processor_config"):
        path = tmp_path / f"{name}.json"
        path.write_text(path.read_text().replace('"patch_size": 16', '"patch_size": 8'))
    # transformers 5.23 has weights by this size, 5.19 has not.
    fault = "a token is 16x16 pixels of 2 frames; expected 32x32 of 2|patch_embed.proj.weight has shape"
    with pytest.raises(CheckpointError, match=fault):
        DescoreModel.from_pretrained(tmp_path, device="cpu")
