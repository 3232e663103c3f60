"""The model that ships with the package: its size, and the bars that it must not fall below. And the one before, which
other engines run."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.measure import FORMER_TINY

from descore import Scorer
from descore.model.export import export_for_vllm
from descore.stats.agreement import accuracy_without_ties
from descore.synthetic.splits import Split, draw_pair

TINY = Path(str(files("descore") / "bundled" / "tiny"))
RABBIT = TINY.parent / "clips" / "rabbit.mp4"
CLIP_NORMALIZATION = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""What the former model's image part had, as CLIP's."""


@pytest.fixture(scope="module")
def tiny():
    return Scorer.from_pretrained("tiny", batch_size=32)


def test_its_size(tiny):
    assert sum(p.numel() for p in tiny.model.parameters()) <= 20_000_000
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 45_000_000


def test_it_says_what_it_is(tiny):
    settings = tiny.model.settings
    assert "drawn scenes" in settings.trained_on
    assert settings.dimensions == ("overall",)
    assert settings.reward_std["overall"] > 0


@pytest.fixture(scope="module")
def in_domain():
    return [draw_pair(Split.IN_DOMAIN, index, size=(128, 128)) for index in range(200)]


@pytest.fixture(scope="module")
def former():
    return Scorer.from_pretrained(FORMER_TINY)


def test_engines_read_the_formers_config_as_transformers(former, tmp_path):
    """Its files were mended for engines; with those before its rewards are the same to the bit."""
    unmended = tmp_path / "tiny"
    shutil.copytree(FORMER_TINY, unmended)
    config, processor = (json.loads((unmended / name).read_text()) for name in ("config.json", "processor_config.json"))
    assert config["text_config"]["rope_parameters"].pop("mrope_interleaved") is True
    image, video = processor["image_processor"], processor["video_processor"]
    for name, numbers in CLIP_NORMALIZATION.items():
        assert image[name] == video[name] == [0.5, 0.5, 0.5]
        image[name] = numbers
    (unmended / "config.json").write_text(json.dumps(config))
    (unmended / "processor_config.json").write_text(json.dumps(processor))
    [now], [before] = (
        scorer.score_batch([(RABBIT, "a rabbit sniffs a flower")], max_chain_tokens=8)
        for scorer in (former, Scorer.from_pretrained(unmended))
    )
    assert now.completions == before.completions


@pytest.mark.slow
def test_the_formers_export_has_its_rewards(former, tmp_path):
    """In float32 to the bit; in bfloat16, in which its weights are stored, query and head are rounded too."""
    exported = {
        dtype: export_for_vllm(FORMER_TINY, tmp_path / str(dtype), dtype=dtype) for dtype in (None, torch.float32)
    }
    assert exported[None].dtype == torch.bfloat16
    reward, rounded, exact = (
        scorer.score(RABBIT, prompt="a rabbit sniffs a flower", max_chain_tokens=8).reward
        for scorer in (former, *(Scorer.from_pretrained(each.folder) for each in exported.values()))
    )
    assert exact == reward
    assert rounded == pytest.approx(reward, abs=0.01)  # .0006; the rewards' deviation is 14


def accuracy(scorer, pairs, think):
    clips = [(made.clip, made.prompt) for two in pairs for made in (two.a, two.b)]
    reward_a, reward_b = np.array([s.reward for s in scorer.score_batch(clips, think=think)]).reshape(-1, 2).T
    truth = np.array([{"a": 1, "b": -1, "tie": 0}[two.preference] for two in pairs])
    return accuracy_without_ties(reward_a - reward_b, truth, np.arange(len(pairs)))


@pytest.mark.slow
def test_with_thinking_most_unseen_pairs_are_right(tiny, in_domain):
    found = accuracy(tiny, in_domain, "on")  # the first pairs of `make evaluate`
    assert found.n > 150
    assert found.value >= 0.75


@pytest.mark.slow
def test_without_thinking_it_looks_too(tiny, in_domain):
    assert accuracy(tiny, in_domain, "off").low > 0.5


@pytest.mark.slow
def test_its_chains_can_be_read(tiny, in_domain):
    scores = tiny.score_batch((two.a.clip, two.a.prompt) for two in in_domain[:64])
    assert sum(s.verdict is not None for s in scores) >= 62
