"""Released generative judges: their text, their answers, and their scores, written or from probabilities."""

import json
import math
from pathlib import Path

import pytest
import torch
from tests.conftest import noise_clip
from tests.judges.conftest import ALIGNMENT, PHYSICS, VISUAL
from tests.model.families import build, qwen2_5_vl

from descore import Scorer
from descore.config_model import SettingsError
from descore.errors import AnswerError, ConfigError, VideoError
from descore.evaluation.judges import ModelJudge
from descore.judges.soft_scores import likeliest, token_at
from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel
from descore.model.small import small_tokenizer
from descore.rubric import AnswerForm, read_released, released_rubrics
from descore.scorer import SamplingParams
from descore.video.sampling import VideoSampling

PROMPT = "a red ball"
LABELS = {"visual_quality": 0, "text_alignment": 1, "physical_consistency": 2}


def share(best, *others):
    """Of the likeliest number, at the temperature of .7 that VideoScore2 writes with. The last norm makes a little less
    than it should of the scripted logits: its epsilon is 1e-5, and a mean square 1/64."""
    powers = [p ** (1 / math.sqrt(1 + 64e-5) / 0.7) for p in (best, *others)]
    return powers[0] / sum(powers)


SOFT = {"visual_quality": 4 * share(0.6, 0.4), "text_alignment": 3 * share(0.9, 0.1), "physical_consistency": 5.0}


@pytest.fixture(scope="module")
def judge(videoscore2):
    return Scorer.from_pretrained(videoscore2, rubric="videoscore2", device="cpu")


def test_scores_are_the_likeliest_numbers_times_their_shares(judge):
    """Two clips in a batch: float32 logits of 30 give shares within 1e-6."""
    for result in judge.score_batch([(noise_clip(0), PROMPT), (noise_clip(1, frames=6), "a longer prompt")]):
        assert result.rewards == pytest.approx(SOFT, abs=1e-5)
        assert result.reward == pytest.approx(sum(SOFT.values()) / 3, abs=1e-5)
        assert result.thinking == f"{VISUAL}4{ALIGNMENT}3{PHYSICS}5"
        assert (result.verdict, result.score, result.left_out) == (None, None, ())


@pytest.mark.slow
def test_each_chain_has_the_likeliest_number_whatever_it_wrote(judge):
    """Where a chain says 2 the likeliest number at that place is 4 all the same, as the authors' code has it."""
    result = judge.score(noise_clip(0), prompt=PROMPT, samples=12, seed=3)
    assert {c.text.split("\n")[0] for c in result.completions} == {f"{VISUAL}4", f"{VISUAL}2"}
    assert all(c.rewards == pytest.approx(SOFT, abs=1e-5) for c in result.completions)


def test_its_text_and_its_frames_are_the_authors(judge):
    settings = judge.settings
    assert (settings.paradigm, settings.max_chain_tokens) == ("generative", 1024)
    assert settings.dimensions == tuple(LABELS)
    assert settings.sampling.rule == "qwen_vl_utils"
    assert judge.chat.rubric == read_released("videoscore2").rubric
    assert "Video prompt: a red ball\n" in judge.chat.user_turn(PROMPT)


@pytest.mark.parametrize(("patch", "multiple"), [(8, 32), (14, 28)])
def test_its_frames_are_whole_patches(patch, multiple):
    """Qwen2.5-VL's own patches have 14 pixels and are merged 2 by 2."""
    processor, config = qwen2_5_vl(small_tokenizer(["a"], vocabulary=280), patch=patch)
    released = VideoSampling(**read_released("videoscore2").sampling)
    answer = read_released("videoscore2").answer
    settings = CheckpointSettings(paradigm="generative", dimensions=tuple(LABELS), answer=answer, sampling=released)
    model = DescoreModel.from_backbone(config, processor=processor, settings=settings)
    assert model.settings.sampling == released.model_copy(update={"size_multiple": multiple})


@pytest.mark.slow
def test_a_saved_judge_needs_no_rubric_again(judge, tmp_path):
    judge.model.save_pretrained(tmp_path / "judge")
    saved = json.loads((tmp_path / "judge" / "descore.json").read_text())
    assert saved["answer"]["parser"] == "labelled_scores"
    again = Scorer.from_pretrained(tmp_path / "judge", device="cpu")
    assert again.settings == judge.settings
    assert again.score(noise_clip(0), prompt=PROMPT).rewards == pytest.approx(SOFT, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "chain", "expected"),
    [
        ("unifiedreward", ("visual quality: 3\nFinal Score: ", "7"), {"overall": 7.0}),
        (
            "unifiedreward2",
            ("Alignment Score (1-5): 2.4036\nPhysics Score (1-5): 3.0987\nStyle Score (1-5): ", "3.3889"),
            {"alignment": 2.4036, "physics": 3.0987, "style": 3.3889},
        ),
    ],
)
@pytest.mark.slow
def test_unifiedreward_scores_as_it_writes(told, name, chain, expected):
    scorer = Scorer.from_pretrained(told(name, {chain: 1.0}), rubric=name, device="cpu")
    assert scorer.score(noise_clip(0), prompt=PROMPT).rewards == expected


@pytest.mark.slow
def test_a_chain_without_a_number_has_no_reward(told):
    scorer = Scorer.from_pretrained(told("silent", {("visual quality: ", "good"): 1.0}), rubric="videoscore2")
    [fault] = scorer.score_each([(noise_clip(0), PROMPT)])
    assert isinstance(fault, VideoError)
    assert "no number behind 'visual quality:' in the chain; it ends 'visual quality: good'" in str(fault)


@pytest.mark.slow
def test_a_number_of_several_tokens_has_no_share(told):
    chain = (VISUAL, "4.5", ALIGNMENT, "3", PHYSICS, "5")
    scorer = Scorer.from_pretrained(told("decimals", {chain: 1.0}), rubric="videoscore2")
    [fault] = scorer.score_each([(noise_clip(0), PROMPT)])
    assert "the score behind 'visual quality:' begins with another token than a number of the range" in str(fault)


FORM = AnswerForm(parser="labelled_scores", labels={"a": "A:", "b": "B (1-5):"}, lowest=1, highest=5)


def test_numbers_stand_right_behind_their_labels_and_in_order():
    chain = "b (1-5): 2, then A: good. a:\n 4.5 and B (1-5):3"
    scores = FORM.read(chain)
    assert {name: score.value for name, score in scores.items()} == {"a": 4.5, "b": 3.0}
    assert chain[scores["a"].start :].startswith("4.5")
    for chain, fault in [
        ("A: 4", "no number behind 'B (1-5):' in the chain"),
        ("B (1-5): 3, A: 4", "no number behind 'B (1-5):' in the chain"),
        ("A: 6, B (1-5): 3", "'A:' is 6; expected 1 to 5"),
        ("A: -1, B (1-5): 3", "'A:' is -1; expected 1 to 5"),
    ]:
        with pytest.raises(AnswerError) as error:
            FORM.read(chain)
        assert str(error.value) == fault


def test_a_long_chain_is_read_at_once():
    """Labels without end, and the last one missing: a pattern that goes back would take minutes."""
    with pytest.raises(AnswerError, match="no number behind 'B"):
        FORM.read("A: 1 " * 100_000)


def test_the_likeliest_number_by_hand():
    form = FORM.model_copy(update={"temperature": 0.5})
    logits = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15]).log()
    squares = [p**2 for p in (0.1, 0.2, 0.3, 0.25, 0.15)]
    assert likeliest(logits, form) == pytest.approx(3 * 0.09 / math.fsum(squares), abs=1e-6)


def test_a_character_is_in_the_token_that_has_it(judge):
    chat = judge.chat
    chain = chat.encode_chain(" ½ visual quality: 4")
    text = chat.decode_chain(chain)
    at = token_at(chat, chain, text.index("4"))
    assert chat.tokenizer.decode(chain[: at + 1], skip_special_tokens=True).endswith("4")
    assert not chat.tokenizer.decode(chain[:at], skip_special_tokens=True).endswith("4")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"parser": "eval"}, "parser must be|parser is 'eval', expected one of labelled_scores"),
        ({"labels": {}}, "labels is empty"),
        ({"lowest": 5}, "highest is 5, expected more than lowest"),
        ({"highest": 10, "read_out": "likeliest"}, "needs a range of single digits"),
    ],
)
def test_a_form_that_cannot_be_is_refused(changes, fault):
    with pytest.raises(SettingsError, match=fault):
        AnswerForm(**{**FORM.model_dump(), **changes})


@pytest.mark.slow
def test_a_rubric_of_ones_own(told, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        "rubric = 'Rate {prompt}.'\nmax_chain_tokens = 9\n"
        "[sampling]\nmax_frames = 4\nmax_pixels = 4096\nmin_pixels = 256\n"
        "[answer]\nparser = 'labelled_scores'\nlowest = 0\nhighest = 100\n[answer.labels]\noverall = 'I give'\n"
    )
    scorer = Scorer.from_pretrained(told("mine", {("I give ", "87"): 1.0}), rubric=str(file), device="cpu")
    assert scorer.score(noise_clip(0), prompt=PROMPT).reward == 87
    assert (scorer.chat.rubric, scorer.settings.max_chain_tokens) == ("Rate {prompt}.", 9)


@pytest.mark.parametrize(
    ("rubric", "paradigm", "fault"),
    [
        (
            "videoscore",
            None,
            r"found .videoscore., expected one of unifiedreward, .*unifiedreward-think, .* or a .toml file",
        ),
        ("videoalign", None, "videoalign is of a model with a head"),
        ("videoscore2", "descore", "is for a generative judge, and the paradigm is descore"),
        ("absent.toml", None, "absent.toml cannot be read"),
    ],
)
def test_a_rubric_that_cannot_be_used_is_one_line(videoscore2, rubric, paradigm, fault):
    with pytest.raises(ConfigError, match=fault) as error:
        DescoreModel.from_pretrained(videoscore2, paradigm=paradigm, rubric=rubric)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("labelled_scores", "regex", r"mine.toml: answer: parser is 'regex', expected one of labelled_scores, "),
        ("max_frames", "max_frame", r"mine.toml: video sampling: max_frame unknown key; did you mean "),
        ("{prompt}", "it", r"mine.toml: .*found 0 times \{prompt\}"),
    ],
)
def test_a_fault_in_a_file_names_the_file(tmp_path, monkeypatch, old, new, fault):
    monkeypatch.chdir(tmp_path)
    text = (
        "rubric = 'Rate {prompt}.'\n[sampling]\nmax_frames = 4\n[answer]\nparser = 'labelled_scores'\n"
        "lowest = 0\nhighest = 9\n[answer.labels]\noverall = 'Score:'\n"
    )
    Path("mine.toml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=fault) as error:
        DescoreModel.from_pretrained("tiny", paradigm="generative", rubric="mine.toml")
    assert "\n" not in str(error.value)


def test_every_rubric_says_where_it_is_from():
    for name in released_rubrics():
        released = read_released(name)
        assert released.source.startswith("https://github.com/")
        assert released.licence.startswith(("MIT", "Apache-2.0"))
        assert released.rubric.count("{prompt}") == 1


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("Video 2 is better in motion. Overall, Video 1 is better.", 1.0),
        ("<think>Video 1 is better?</think><answer>Video 2 is better</answer>", -1.0),
        ("video 1 is BETTER, no: Both videos are equally good.", 0.0),
    ],
)
def test_the_last_preference_counts(chain, expected):
    form = read_released("unifiedreward-think").answer
    assert form.read(chain)["overall"].value == expected


def test_a_chain_without_a_preference_is_no_tie():
    form = read_released("unifiedreward-pair").answer
    with pytest.raises(AnswerError, match="says neither 'Video 1 is better' nor 'Video 2 is better'"):
        form.read("<answer>neither</answer> Video 3 is better")
    with pytest.raises(SettingsError, match="where the number of the preferred video stands"):
        AnswerForm(**{**form.model_dump(), "labels": {"overall": "better"}})


def prefers_first(told, name):
    chain = ("<think> two </think>", "<answer>", "Video 1 is better", "</answer>")
    return Scorer.from_pretrained(told(name, {chain: 1.0}), rubric="unifiedreward-think", device="cpu")


@pytest.mark.slow
def test_a_judge_of_pairs_compares_both_orders(told):
    """One that prefers the first clip whatever it is prefers neither; each chain counts for both clips."""
    comparison = prefers_first(told, "think").compare(noise_clip(0), noise_clip(1, frames=6), prompt=PROMPT)
    assert (comparison.a.reward, comparison.b.reward, comparison.probability) == (0.0, 0.0, 0.5)
    assert [c.rewards["overall"] for c in comparison.a.completions] == [1.0, -1.0]
    assert [c.rewards["overall"] for c in comparison.b.completions] == [-1.0, 1.0]


@pytest.mark.slow
def test_a_judge_of_pairs_gives_no_clip_a_reward(told):
    scorer = prefers_first(told, "think-alone")
    with pytest.raises(ConfigError, match="judges two clips of one prompt at a time, found 1; use compare"):
        scorer.score(noise_clip(0), prompt=PROMPT)
    with pytest.raises(ConfigError, match="compares two clips, and gives no clip a reward"):
        ModelJudge(scorer=scorer, sampling_params=SamplingParams())


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"])
def test_two_clips_stand_in_one_turn_in_their_order(model_type):
    """Positions of the first are those of a turn with it alone; the second's begin behind the first, as transformers
    has them where no frame is later than the picture is wide."""
    model = build(model_type)
    a, b = noise_clip(0, width=96, height=64), noise_clip(1, width=96, height=48)
    both, swapped = (model.chat.lay_out_pairs([pair], [PROMPT]) for pair in ((a, b), (b, a)))
    alone = model.chat.lay_out_prompts([a], [PROMPT])
    assert both["video_grid_thw"].tolist() == swapped["video_grid_thw"].tolist()[::-1]
    assert not torch.equal(both["pixel_values_videos"], swapped["pixel_values_videos"])
    position_3BT = model.family.positions(model.backbone, both)
    names = ("mm_token_type_ids", "attention_mask", "video_grid_thw", "second_per_grid_ts")
    told_3BT, _ = model.backbone.model.get_rope_index(both["input_ids"], **{n: both[n] for n in names if n in both})
    assert torch.equal(position_3BT, told_3BT)
    first = int(alone["mm_token_type_ids"][0].nonzero()[-1]) + 1
    assert torch.equal(position_3BT[:, :, :first], model.family.positions(model.backbone, alone)[:, :, :first])
