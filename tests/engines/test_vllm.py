"""vLLM in this process, by a fake module that continues tokens as transformers' own model does: rewards and greedy
chains are those of our own engine. Sums in another order differ by a few 1e-6; 1e-5 is asked."""

import json
import shutil
import sys
import warnings

import pytest
from tests.engines.conftest import CLIPS, NAMES
from tests.engines.fakes import fake_vllm

from descore.engines.exports import export_cache, open_export
from descore.engines.two_requests import chain_seed, suppressed_ids
from descore.errors import CheckpointError, ConfigError, DescoreWarning, VideoError
from descore.model.checkpoint import read_settings
from descore.rewards.differentiable import DifferentiableReward
from descore.scorer import Scorer

REFUSED = "a prompt of another length, which the fake refuses"


@pytest.fixture
def vllm(export_folder, monkeypatch):
    module = fake_vllm(export_folder)
    for name, one in {"": module, ".platforms": module.platforms, ".exceptions": module.exceptions}.items():
        monkeypatch.setitem(sys.modules, f"vllm{name}", one)
    return module


@pytest.fixture
def scorer(vllm, export_folder):  # noqa: ARG001  # vllm is there before it is opened
    return Scorer.from_pretrained(export_folder, engine="vllm")


def test_chains_and_rewards_are_those_of_our_own(scorer, native):
    for ours, theirs in zip(native.score_batch(CLIPS), scorer.score_batch(CLIPS), strict=True):
        assert [c.token_ids for c in theirs.completions] == [c.token_ids for c in ours.completions]
        assert theirs.rewards == pytest.approx(ours.rewards, abs=1e-5)
        assert (theirs.prompt_tokens, theirs.truncated) == (ours.prompt_tokens, ours.truncated)


def test_it_reads_at_once_without_thinking(scorer, native, vllm):
    [ours], [theirs] = (one.score_batch(CLIPS[:1], think="off") for one in (native, scorer))
    assert theirs.rewards == pytest.approx(ours.rewards, abs=1e-5)
    assert theirs.completions[0].token_ids == ours.completions[0].token_ids
    assert len(vllm.calls) == 1  # one request, and not two


def test_the_second_request_is_the_first_and_more(scorer, vllm, export_folder):
    [result] = scorer.score_batch(CLIPS[:1], max_chain_tokens=5)
    [[(first, write)], [(second, read)]] = vllm.calls
    rows, chat = read_settings(export_folder).vocabulary_rows, scorer.chat
    assert second["prompt_token_ids"] == [*first["prompt_token_ids"], *result.completions[0].token_ids, rows.query]
    assert second["multi_modal_uuids"] == first["multi_modal_uuids"]
    assert (write.temperature, write.max_tokens, write.stop_token_ids) == (0.0, 5, [chat.end_id])
    assert {*rows.ids, rows.query, *chat.forbidden_ids} <= write.logit_bias.keys()
    assert chat.end_id not in write.logit_bias
    assert (read.max_tokens, sorted(read.logprob_token_ids)) == (1, sorted(rows.ids))


def test_every_setting_is_ours(scorer, vllm, export_folder):
    [made] = vllm.made
    assert made["model"] == str(export_folder)
    assert (made["dtype"], made["logprobs_mode"]) == ("float32", "raw_logits")
    assert made["hf_overrides"] == {"head_dtype": "float32"}
    assert (made["enable_prefix_caching"], made["generation_config"]) == (True, "vllm")
    assert made["mm_processor_kwargs"] == {"do_resize": False, "do_sample_frames": False}
    assert made["limit_mm_per_prompt"] == {"video": 1, "image": 0}
    assert made["max_model_len"] == scorer.engine.max_model_len == 8192


def test_on_a_gpu_it_runs_in_bfloat16(export_folder, monkeypatch):
    module = fake_vllm(export_folder, on_cpu=False)
    for name, one in {"": module, ".platforms": module.platforms}.items():
        monkeypatch.setitem(sys.modules, f"vllm{name}", one)
    assert str(Scorer.from_pretrained(export_folder, engine="vllm").engine.dtype) == "torch.bfloat16"
    assert module.made[0]["dtype"] == "bfloat16"
    assert "kv_cache_memory_bytes" not in module.made[0]


def test_samples_have_seeds_of_their_own(scorer, vllm):
    [three] = scorer.score_batch(CLIPS[:1], samples=3, seed=5)
    assert [params.seed for _, params in vllm.calls[0]] == [chain_seed(5, sample) for sample in range(3)]
    assert len({chain_seed(seed, sample) for seed in range(9) for sample in range(9)}) == 81
    [two] = scorer.score_batch(CLIPS[:1], samples=2, seed=5)
    assert [c.token_ids for c in two.completions] == [c.token_ids for c in three.completions[:2]]
    assert three.std > 0


def test_what_cannot_be_scored_is_that_clips_error(scorer, vllm):
    vllm.refuse = len(scorer.chat.tokenizer(scorer.chat.user_turn(REFUSED), add_special_tokens=False)["input_ids"])
    requests = [("no.mp4", "a ball"), CLIPS[0], (CLIPS[0][0], REFUSED), (CLIPS[0][0], "long " * 4000)]
    no_file, good, refused, long = scorer.score_each(requests)
    assert good.rewards.keys() == set(NAMES)
    assert all(isinstance(one, VideoError) for one in (no_file, refused, long))
    assert str(refused).endswith("vllm refuses it: The decoder prompt is too long")
    assert "reads 8192 in all" in str(long)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda output: output.prompt_token_ids.pop(3), "they differ from number 3 on"),
        (lambda output: output.outputs[0].token_ids.insert(0, 0), "tokens that no chain has"),
        (lambda output: setattr(output.outputs[0], "finish_reason", "abort"), "neither ended the chain"),
    ],
)
def test_a_wrong_answer_is_an_error_and_no_reward(scorer, vllm, spoil, reason):
    vllm.spoil = lambda output: (spoil(output) and output) or output
    if "neither" in reason:
        vllm.spoil = lambda output: (spoil(output), output.outputs[0].token_ids.pop())[0] or output
    [result] = scorer.score_each(CLIPS[:1])
    assert isinstance(result, VideoError)
    assert reason in str(result)


def test_a_logit_that_is_no_number_is_an_error(scorer, vllm):
    def spoil(output):
        for one in (output.outputs[0].logprobs or [{}])[0].values():
            one.logprob = float("nan")
        return output

    vllm.spoil = spoil
    [result] = scorer.score_each(CLIPS[:1])
    assert "gives no finite logits" in str(result)


def test_a_checkpoint_is_exported_once_into_the_cache(vllm, micro_folder, native, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(DescoreWarning, match="is exported for the engine, once, to"):
        scorer = Scorer.from_pretrained(micro_folder, engine="vllm")
    assert scorer.name == str(micro_folder)
    [folder] = export_cache().iterdir()
    assert (export_cache(), vllm.made[0]["model"]) == (tmp_path / "descore" / "exports", str(folder))
    theirs, ours = scorer.score(CLIPS[0][0], prompt="a ball"), native.score(CLIPS[0][0], prompt="a ball")
    assert theirs.rewards == pytest.approx(ours.rewards, abs=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scorer.from_pretrained(micro_folder, engine="vllm")
    (micro_folder / "descore.json").touch()
    with pytest.warns(DescoreWarning, match="is exported"):
        Scorer.from_pretrained(micro_folder, engine="vllm")


def test_a_generative_model_needs_no_export_and_no_query(vllm, micro_folder):
    scorer = Scorer.from_pretrained(micro_folder, engine="vllm", paradigm="generative")
    [result] = scorer.score_each(CLIPS[:1])
    assert isinstance(result, VideoError)
    assert "the chain gives no reward" in str(result)  # noise ends with no answer
    assert (len(vllm.calls), vllm.made[0]["model"]) == (1, str(micro_folder))


def test_what_no_chain_holds_is_all_that_is_no_text(export_folder):
    checkpoint = open_export(export_folder, paradigm=None)
    rest = set(range(checkpoint.vocabulary)) - set(suppressed_ids(checkpoint))
    assert checkpoint.chat.end_id in rest
    assert not rest & {checkpoint.chat.query_id, *checkpoint.settings.vocabulary_rows.ids}


def test_gradients_and_devices_are_refused(scorer, export_folder):
    with pytest.raises(ConfigError, match="engine vllm gives no model"):
        DifferentiableReward(scorer, normalize="none")
    with pytest.raises(ConfigError, match="engine vllm has its own"):
        Scorer.from_pretrained(export_folder, engine="vllm", device="cuda:1")
    with pytest.raises(ConfigError, match="expected native, vllm, or a server's address"):
        Scorer.from_pretrained(export_folder, engine="vlmm")


def test_a_start_that_fails_is_one_line(vllm, export_folder):
    vllm.refuse = "start"
    with pytest.raises(ConfigError, match=r"vllm cannot open .*: Engine core initialization failed\.$"):
        Scorer.from_pretrained(export_folder, engine="vllm")


def test_without_vllm_it_says_what_to_install(export_folder):
    with pytest.raises(ConfigError, match=r"engine vllm needs vllm; .*\[vllm\].*make vllm"):
        Scorer.from_pretrained(export_folder, engine="vllm")


def test_what_no_vllm_runs_is_said_before_it_is_installed():
    with pytest.raises(ConfigError, match=r"^tiny: efficient_vl was tried with no engine but native; open it with"):
        Scorer.from_pretrained("tiny", engine="vllm")


@pytest.mark.usefixtures("vllm")
def test_a_config_that_vllm_reads_otherwise_is_refused(micro_folder, tmp_path):
    folder = shutil.copytree(micro_folder, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]["rope_parameters"]["mrope_interleaved"]
    (folder / "config.json").write_text(json.dumps(config))
    for paradigm in (None, "generative"):
        with pytest.raises(CheckpointError, match="mrope_interleaved"):
            Scorer.from_pretrained(folder, engine="vllm", paradigm=paradigm)
