"""Checkpoints of VideoAlign's form give the rewards that their parts give by hand, within 1e-5 in float32, where sums
in another order differ by a few 1e-7; and one line for whatever does not fit."""

import json

import pytest
import torch
from tests.judges.videoalign_cases import FPS, MOMENTS, QUERIES, TEXT, film, make_source, rewards_by_hand

from descore import Scorer
from descore.errors import CheckpointError, ConfigError
from descore.judges.videoalign import convert_videoalign
from descore.model.checkpoint import CheckpointSettings
from descore.model.export import export_for_vllm
from descore.model.modeling import DescoreModel, has_adapters
from descore.rubric import read_released
from descore.video.sampling import Timeline, VideoSampling, choose_frames

RUBRIC = f"See: {QUERIES[0]} and {QUERIES[1]}, for {{prompt}}: {QUERIES[2]} END"
PROMPTS = ("a red ball", "a longer prompt than the other")


def scored(source, out, **how):
    convert_videoalign(source.folder, out, **{"rubric": RUBRIC, **how})
    scorer = Scorer.from_pretrained(out, device="cpu")
    requests = [(film(seed), prompt) for seed, prompt in enumerate(PROMPTS)]
    return scorer, scorer.score_batch(requests, fps=FPS)


def theirs(source):
    texts = [RUBRIC.replace("{prompt}", prompt) for prompt in PROMPTS]
    return rewards_by_hand(source, [film(0), film(1)], texts)


def standardized(rewards_BK):
    mean, std = (torch.tensor([MOMENTS[f"{name}_{what}"] for name in ("VQ", "MQ", "TA")]) for what in ("mean", "std"))
    return (rewards_BK - mean) / std


@pytest.mark.parametrize(
    "how",
    [
        {},
        pytest.param({"form": "adapter", "tokenizer": False}, marks=pytest.mark.slow),
        pytest.param({"outputs": 3, "old_names": False}, marks=pytest.mark.slow),
        pytest.param({"form": "adapter", "outputs": 3}, marks=pytest.mark.slow),
    ],
    ids=["model.pth", "adapter, base tokenizer", "a row each, new names", "adapter, a row each"],
)
def test_it_gives_its_rewards(tmp_path, how):
    source = make_source(tmp_path, **how)
    if how.get("outputs") == 3:
        assert source.head_KD.shape == (3, 64)
    scorer, scores = scored(source, tmp_path / "ours")
    hand_BK = standardized(theirs(source))
    assert (hand_BK[0] - hand_BK[1]).abs().min() > 0.01
    settings = scorer.settings
    ours_BK = torch.tensor(
        [[score.rewards[name] - settings.reward_mean[name] for name in score.rewards] for score in scores]
    )
    assert list(scores[0].rewards) == ["VQ", "MQ", "TA"]
    torch.testing.assert_close(ours_BK, hand_BK, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor([s.score for s in scores]), hand_BK.mean(dim=1), atol=1e-5, rtol=0)
    overall_B = hand_BK.sum(dim=1)
    difference = 3 * (scores[0].reward - scores[1].reward)
    assert difference == pytest.approx(float(overall_B[0] - overall_B[1]), abs=3e-5)
    assert has_adapters(scorer.model.backbone)


@pytest.mark.slow
def test_without_moments_rewards_are_the_heads_own(tmp_path):
    source = make_source(tmp_path, moments=None)
    scorer, scores = scored(source, tmp_path / "ours")
    ours_BK = torch.tensor([list(score.rewards.values()) for score in scores])
    torch.testing.assert_close(ours_BK, theirs(source), atol=1e-5, rtol=0)
    assert scores[0].score is None
    assert scorer.settings.reward_mean is None


@pytest.mark.slow
def test_the_adapter_may_be_merged(tmp_path):
    source = make_source(tmp_path)
    scorer, scores = scored(source, tmp_path / "ours", merge=True)
    assert not has_adapters(scorer.model.backbone)
    assert not (tmp_path / "ours" / "adapter_model.safetensors").exists()
    expected_B = standardized(theirs(source)).mean(dim=1)
    torch.testing.assert_close(torch.tensor([s.score for s in scores]), expected_B, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_clip_alone_is_as_in_a_batch_and_survives_saving(tmp_path):
    source = make_source(tmp_path)
    scorer, scores = scored(source, tmp_path / "ours")
    alone = scorer.score(film(0), prompt=PROMPTS[0], fps=FPS)
    assert alone.rewards == pytest.approx(scores[0].rewards, abs=1e-5)
    scorer.model.save_pretrained(tmp_path / "again")
    again = Scorer.from_pretrained(tmp_path / "again", device="cpu").score(film(0), prompt=PROMPTS[0], fps=FPS)
    assert again.rewards == pytest.approx(alone.rewards, abs=1e-6)
    assert json.loads((tmp_path / "again" / "descore.json").read_text())["queries"] == list(QUERIES)


@pytest.mark.slow
def test_a_prompt_cannot_hold_a_query(tmp_path):
    source = make_source(tmp_path)
    scorer, _ = scored(source, tmp_path / "ours")
    chat = scorer.chat
    assert chat.user_turn(f"a {QUERIES[0]}").count(QUERIES[0]) == 1


@pytest.mark.slow
def test_what_it_is_not_made_for_is_refused(tmp_path):
    source = make_source(tmp_path)
    scorer, _ = scored(source, tmp_path / "ours")
    with pytest.raises(ConfigError, match="cannot score with think on"):
        scorer.score(film(0), prompt="a", fps=FPS, think="on")
    with pytest.raises(CheckpointError, match="queries stand inside the rubric, where no engine but native"):
        export_for_vllm(tmp_path / "ours", tmp_path / "export")
    with pytest.raises(ConfigError, match="expected one for each dimension of a discriminative model"):
        CheckpointSettings(paradigm="discriminative", queries=("<|VQ_reward|>", "<|MQ_reward|>"))
    (tmp_path / "ours" / "rubric.txt").write_text("See {prompt}.")
    with pytest.raises(ConfigError, match=r"found 0 times <\|VQ_reward\|>; expected each query once"):
        DescoreModel.from_pretrained(tmp_path / "ours", device="cpu")


def test_the_released_text_has_each_query_once():
    rubric = read_released("videoalign").rubric
    assert [rubric.count(token) for token in (*QUERIES, "{prompt}")] == [1, 1, 1, 1]
    assert [rubric.index(token) for token in QUERIES] == sorted(rubric.index(token) for token in QUERIES)
    assert (rubric[:9], rubric[-5:]) == ("\nYou are ", "\nEND\n")
    with pytest.raises(ConfigError, match=r"rubric: found 'other', expected one of .*videoalign"):
        read_released("other")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "options", "fault"),
    [
        ({"model_config": {"use_special_tokens": False, "reward_token": "last"}}, {}, "reads its reward at 'last'"),
        ({"data_config": {"sample_type": "multi_pts"}}, {}, "sample_type is 'multi_pts', expected 'uniform'"),
        ({"data_config": {"prompt_template_type": "simple"}}, {"rubric": None}, "trained with the prompt 'simple'"),
        ({"moments": {"VQ_mean": 1.0}}, {}, "model_config.json: cannot be used: 'VQ_std'"),
        ({"outputs": 2}, {}, "rm_head.weight is (2, 64); expected a matrix of 1 or 3 rows"),
        ({}, {"base": "no/such/folder"}, "no/such/folder: no such folder"),
        ({}, {"rubric": TEXT.replace("{prompt}", "")}, "found 0 times {prompt}"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, how, options, fault):
    source = make_source(tmp_path, **how)
    with pytest.raises((CheckpointError, ConfigError)) as error:
        convert_videoalign(source.folder, tmp_path / "ours", **{"rubric": RUBRIC, **options})
    assert fault in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ours").exists()


def test_another_folder_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no model_config.json; expected a checkpoint of VideoAlign's code$"):
        convert_videoalign(tmp_path, tmp_path / "out")


@pytest.mark.slow
def test_weights_that_are_missing_are_one_line(tmp_path):
    source = make_source(tmp_path)
    file = source.folder / "checkpoint-12" / "model.pth"
    state = torch.load(file)
    table = "base_model.model.model.embed_tokens.weight"
    torch.save({**state, table: state[table][:-3]}, file)
    with pytest.raises(
        CheckpointError, match=r"the queries are tokens .*expected an embedding with them, found one of"
    ):
        convert_videoalign(source.folder, tmp_path / "ours", rubric=RUBRIC)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"has neither model.pth nor adapter_model.safetensors with non_lora"):
        convert_videoalign(source.folder, tmp_path / "ours", rubric=RUBRIC)


@pytest.mark.parametrize(
    ("frames", "expected"), [(8, 4), (40, 10), (42, 10), (43, 10), (44, 12), (3, 2), (5, 4), (1, 1)]
)
def test_a_count_of_frames_is_rounded_to_the_nearest_pair(frames, expected):
    """At 8 frames a second, 2 are taken: 5.25 s are 10.5, nearest to 5 pairs; 5.5 s are 11, and halves
    go to the even count of pairs."""
    sampling = VideoSampling(rule="videoalign", fps=2.0, max_frames=768)
    timeline = Timeline(ticks=range(frames), tick=1 / FPS, length=frames)
    chosen = choose_frames(timeline, sampling=sampling)
    assert len(chosen) == expected
    assert chosen[0] == 0
    assert chosen[-1] == frames - 1 or expected == 1
