"""The generative paradigm: the reward is the overall score that a chain ends with, and without one there is none."""

import json
import shutil
from statistics import fmean, stdev

import pytest

from descore import Scorer
from descore.errors import CheckpointError, ConfigError, VideoError
from descore.model import checkpoint
from descore.model.checkpoint import CheckpointSettings
from descore.model.modeling import DescoreModel
from descore.rubric import DEFAULT_RUBRIC
from tests.conftest import build_micro, noise_clip
from tests.scripted_backbone import save_told

PROMPT = "a red ball"
HEAD = (
    'I see noise. <answer>{"dimensional_scores": {"subject": 2, "dynamics": 1, "camera": "N/A", "environment": 0, '
    '"style": 2}, "overall_score": '
)
BEST, GOOD, NONE = (HEAD, "4.50", "}</answer>"), (HEAD, "3.25", "}</answer>"), ("I see nothing",)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A Qwen3-VL directory without anything of ours: half of its chains say 4.50, some 3.25, and some nothing."""
    return save_told(tmp_path_factory.mktemp("plain") / "qwen", {BEST: 0.5, GOOD: 0.25, NONE: 0.25})


@pytest.fixture(scope="module")
def judge(plain):
    return Scorer.from_pretrained(plain, paradigm="generative", device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    return save_told(tmp_path_factory.mktemp("silent") / "qwen", {NONE: 1.0})


def test_a_plain_backbone_judges_by_what_it_writes(judge):
    result = judge.score(noise_clip(0), prompt=PROMPT)
    assert result.thinking == "".join(BEST)
    assert result.reward == result.verdict.overall == 4.5
    assert result.rewards == {"overall": 4.5}
    assert (result.score, result.std, result.left_out) == (None, None, ())
    assert result.verdict.marks["camera"] is None
    assert judge.model.chat.rubric == DEFAULT_RUBRIC


def test_it_judges_without_a_warning(plain, recwarn):
    Scorer.from_pretrained(plain, paradigm="generative", device="cpu")
    assert not [warning for warning in recwarn if "never trained" in str(warning.message)]


def test_mean_and_deviation_are_over_the_chains_that_can_be_read(judge):
    result = judge.score(noise_clip(0), prompt=PROMPT, samples=32, seed=1)
    rewards = [c.reward for c in result.completions]
    assert set(rewards) == {4.5, 3.25}
    assert 0 < len(result.left_out) == 32 - len(rewards)
    assert result.left_out[0] == "no <answer>...</answer> block in the chain; it ends 'I see nothing'"
    assert result.reward == pytest.approx(fmean(rewards))
    assert result.std == pytest.approx(stdev(rewards))
    assert all(c.reward == c.verdict.overall for c in result.completions)


def test_chains_are_drawn_as_likely_as_the_backbone_has_them(judge):
    result = judge.score(noise_clip(0), prompt=PROMPT, samples=400)
    best = sum(c.reward == 4.5 for c in result.completions)
    # Binomial(400, p) lies within four deviations (40 and 35) of its mean in all but one seed of 10,000.
    assert abs(best - 200) < 40
    assert abs(len(result.left_out) - 100) < 35


def test_a_chain_that_cannot_be_read_is_an_error_in_its_place(silent):
    scorer = Scorer.from_pretrained(silent, paradigm="generative", device="cpu")
    [fault] = scorer.score_each([(noise_clip(0), PROMPT)])
    assert isinstance(fault, VideoError)
    assert str(fault) == (
        "<noise 0>: the chain gives no reward: no <answer>...</answer> block in the chain; it ends 'I see nothing'"
    )
    [several] = scorer.score_each([(noise_clip(0), PROMPT)], samples=3)
    assert "none of 3 chains gives a reward: no <answer>" in str(several)
    with pytest.raises(VideoError, match="gives no reward"):
        scorer.compare(noise_clip(0), noise_clip(1), prompt=PROMPT)


def test_a_chain_that_is_cut_off_says_what_to_raise(judge):
    [fault] = judge.score_each([(noise_clip(0), PROMPT)], max_chain_tokens=1)
    assert "cut off at the limit of 1: raise max_chain_tokens" in str(fault)


def test_one_that_is_left_out_does_not_move_its_neighbours(judge):
    clips = [noise_clip(seed) for seed in range(5)]
    results = list(judge.score_each([(clip, PROMPT) for clip in clips], temperature=1.0, seed=7))
    alone = [next(judge.score_each([(clip, PROMPT)], temperature=1.0, seed=7)) for clip in clips]
    assert [str(r) if isinstance(r, VideoError) else r.reward for r in results] == [
        str(r) if isinstance(r, VideoError) else r.reward for r in alone
    ]


def test_without_thinking_there_is_nothing_to_read(judge):
    with pytest.raises(ConfigError, match="it cannot score with think off"):
        judge.score(noise_clip(0), prompt=PROMPT, think="off")


def test_the_paradigm_survives_saving(judge, tmp_path):
    judge.model.save_pretrained(tmp_path / "ours")
    assert not (tmp_path / "ours" / "reward_head.safetensors").exists()
    assert json.loads((tmp_path / "ours" / "descore.json").read_text())["paradigm"] == "generative"
    again = Scorer.from_pretrained(tmp_path / "ours", device="cpu")
    assert again.model.settings == judge.model.settings == CheckpointSettings(paradigm="generative")
    assert again.score(noise_clip(0), prompt=PROMPT).thinking == "".join(BEST)
    before, after = judge.model.backbone.state_dict(), again.model.backbone.state_dict()
    assert all(before[name].equal(after[name]) for name in before)


def test_a_calibrated_one_has_a_score(plain, tmp_path):
    settings = CheckpointSettings(paradigm="generative", reward_mean={"overall": 3.5}, reward_std={"overall": 0.5})
    DescoreModel.from_backbone(plain, settings=settings).save_pretrained(tmp_path / "ours")
    assert Scorer.from_pretrained(tmp_path / "ours", device="cpu").score(noise_clip(0), prompt=PROMPT).score == 2.0


def test_a_rubric_beside_a_plain_backbone_is_its_rubric(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "qwen")
    (tmp_path / "qwen" / "rubric.txt").write_text("Judge {prompt}")
    model = DescoreModel.from_pretrained(tmp_path / "qwen", paradigm="generative", device="cpu")
    assert model.chat.rubric == "Judge {prompt}"


def test_a_hub_id_is_opened_like_a_folder(plain, monkeypatch):
    monkeypatch.setattr(checkpoint, "_fetch", lambda repo: {"owner/qwen": plain}[repo])
    scorer = Scorer.from_pretrained("owner/qwen", paradigm="generative", device="cpu")
    assert scorer.score(noise_clip(0), prompt=PROMPT).reward == 4.5


def test_without_the_paradigm_one_line_says_what_to_do(plain):
    with pytest.raises(CheckpointError) as fault:
        Scorer.from_pretrained(plain)
    assert "has no descore.json; a plain backbone judges as it is with --paradigm generative" in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.fixture
def trained(tmp_path):
    """A checkpoint with a head of two dimensions."""
    model = build_micro(dimensions=("look", "motion"))
    by_name = {"look": 1.0, "motion": 1.0}
    model.settings = model.settings.model_copy(
        update={"reward_mean": by_name, "reward_std": by_name, "trained_on": "a test"}
    )
    model.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


def test_any_checkpoint_opens_as_generative_and_forgets_its_head(trained):
    settings = DescoreModel.from_pretrained(trained).settings
    model = DescoreModel.from_pretrained(trained, paradigm="generative", device="cpu")
    assert model.settings == CheckpointSettings(
        paradigm="generative", sampling=settings.sampling, max_chain_tokens=settings.max_chain_tokens
    )
    assert model.head.weight.shape == (0, 64)
    assert model.chat.rubric == DescoreModel.from_pretrained(trained).chat.rubric
    assert DescoreModel.from_pretrained(trained, paradigm="descore").settings == settings


def test_a_generative_one_has_no_head_to_open(plain, tmp_path):
    DescoreModel.from_pretrained(plain, paradigm="generative", device="cpu").save_pretrained(tmp_path / "ours")
    with pytest.raises(CheckpointError, match="is generative and has no head"):
        DescoreModel.from_pretrained(tmp_path / "ours", paradigm="descore")


def test_a_checkpoint_from_before_paradigms_had_names_has_a_head(trained):
    path = trained / "descore.json"
    settings = json.loads(path.read_text())
    assert settings.pop("paradigm") == "descore"
    path.write_text(json.dumps(settings))
    assert DescoreModel.from_pretrained(trained).settings.paradigm == "descore"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"paradigm": "generativ"},
            "paradigm expected one of descore, discriminative, generative, found 'generativ'",
        ),
        ({"paradigm": "generative", "dimensions": ("look",)}, "a generative model has ('overall',) alone"),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    with pytest.raises(ConfigError) as fault:
        CheckpointSettings(**changes)
    assert message in str(fault.value)


@pytest.mark.slow
def test_the_written_score_differs_from_the_heads_reward():
    """Its chains are the same in both paradigms; a generative reward is what the verdict says."""
    clip, prompt = noise_clip(3, width=128, height=128), "a red circle moving to the left"
    by_head = Scorer.from_pretrained("tiny", device="cpu").score(clip, prompt=prompt)
    by_words = Scorer.from_pretrained("tiny", paradigm="generative", device="cpu").score(clip, prompt=prompt)
    assert by_words.thinking == by_head.thinking
    assert by_words.reward == by_head.verdict.overall != by_head.reward
