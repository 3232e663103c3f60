"""With flash attention a model scores and learns as it does with sdpa; only packs of chains are refused."""

import json
import shutil

import pytest
import torch

from descore.errors import ConfigError
from descore.model.modeling import DescoreModel
from descore.scorer import Scorer
from descore.training.cold_start import train_cold_start
from descore.training.rl.run import train_rl
from descore.training.sft import train_sft
from tests.conftest import noise_clip
from tests.robustness import flash
from tests.training.conftest import curve, make_cold_config, make_config, make_data, write_table
from tests.training.rl_case import make_rl_config, marked_rows

TOLERANCE = 1e-5
"""Float32 sums in another order."""
CLIPS = [noise_clip(seed, frames=frames) for seed, frames in ((1, 4), (2, 8), (3, 4))]
SAMPLED = {"samples": 4, "seed": 1, "temperature": 3.0, "max_chain_tokens": 80}
PROMPTS = ["a red ball", "a red ball rolls to the left, and a red ball rolls to the left", "left"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders with the same model and films; the model of the second has flash attention in its config.json."""
    plain, flashed = make_data(tmp_path_factory.mktemp("sdpa")), tmp_path_factory.mktemp("flash")
    write_table(plain / "marked.csv", marked_rows())
    shutil.copytree(plain, flashed, dirs_exist_ok=True)
    file = flashed / "micro" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "attn_implementation": "flash_attention_2"}))
    return plain, flashed


@pytest.fixture
def kernels(monkeypatch):
    return flash.install(monkeypatch)


def completions_of(folder, count, params):
    scorer = Scorer(DescoreModel.from_pretrained(folder / "micro", device="cpu"), name="micro")
    scores = scorer.score_batch(list(zip(CLIPS, PROMPTS, strict=True))[:count], **params)
    return [completion for score in scores for completion in score.completions]


@pytest.mark.filterwarnings("ignore:.*never trained")
@pytest.mark.parametrize("params", [{}, SAMPLED, {"think": "off"}], ids=["one chain", "K", "off"])
@pytest.mark.parametrize(("count", "way"), [(1, "equal lengths"), (3, "without padding")])
def test_scores_are_those_of_sdpa(folders, kernels, count, way, params):
    expected, found = (completions_of(folder, count, params) for folder in folders)
    assert kernels.calls[way] > 0
    assert len({c.num_tokens for c in found}) > 1 or count == 1 or params != SAMPLED  # shorter chains have padding
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
    assert [c.reward for c in found] == pytest.approx([c.reward for c in expected], abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "config_of"), [(train_sft, make_config), (train_cold_start, make_cold_config)])
def test_a_stage_learns_as_with_sdpa(folders, kernels, tmp_path, stage, config_of):
    losses = []
    for folder in folders:
        out = tmp_path / folder.name
        torch.manual_seed(99)
        stage(config_of(folder, out, "optim.max_steps=2", "trainable.lora.lora_dropout=0"))
        losses.append(list(curve(out).values()))
    assert kernels.calls["without padding"] > 0
    assert losses[1] == pytest.approx(losses[0], abs=TOLERANCE)


def test_stage_2_is_refused_before_it_writes(folders, kernels, tmp_path):
    with pytest.raises(ConfigError, match=r"^attn_implementation is flash_attention_2, which .*; set it to sdpa$"):
        train_rl(make_rl_config(folders[1], tmp_path / "run"))
    assert kernels.calls == {"equal lengths": 0, "without padding": 0}
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.usefixtures("kernels")
def test_a_scorer_without_its_kernels_is_one_line(folders):
    with pytest.raises(ConfigError, match=r"flash_attention_2, which has no kernel for float32 on cpu; set it to"):
        Scorer.from_pretrained(folders[1] / "micro", device="cpu")
