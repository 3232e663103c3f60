"""A server in OpenAI's form, by a stub that continues tokens as transformers' own model does: rewards by
log-probabilities are those of our own engine. These are larger numbers, and their rounding is multiplied by 64: 1e-4 is
asked."""

import httpx2
import numpy as np
import pytest
from tests.conftest import noise_clip
from tests.engines.conftest import CLIPS
from tests.engines.fakes import StubServer, open_frames

from descore.engines.exports import open_export
from descore.engines.server import API_KEY, ServerBackend, is_said, times_in_tenths
from descore.engines.two_requests import TwoRequestEngine
from descore.errors import ConfigError, VideoError
from descore.scorer import Scorer

ADDRESS = "http://stub/v1"
SAID = {"max_chain_tokens": 1}
"""One token is its text's own; noise of more tokens seldom is."""


@pytest.fixture
def stub(export_folder):
    return StubServer(export_folder)


def opened(export_folder, stub, **options):
    checkpoint = open_export(export_folder, paradigm=None)
    backend = ServerBackend(ADDRESS, checkpoint, transport=stub, waits=(0.0, 0.0), **options)
    engine = TwoRequestEngine(checkpoint, backend, max_model_len=backend.max_model_len, dtype=checkpoint.dtype)
    return Scorer(engine, name="micro")


def top_logprobs(answer):
    return answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]


@pytest.fixture
def scorer(export_folder, stub):
    return opened(export_folder, stub)


def test_chains_and_rewards_are_those_of_our_own(scorer, native):
    [ours], [theirs] = (one.score_batch(CLIPS[:1], **SAID) for one in (native, scorer))
    assert [c.token_ids for c in theirs.completions] == [c.token_ids for c in ours.completions]
    assert theirs.rewards == pytest.approx(ours.rewards, abs=1e-4)


def test_it_reads_at_once_without_thinking(scorer, native, stub):
    [ours], [theirs] = (one.score_batch(CLIPS[:1], think="off") for one in (native, scorer))
    assert theirs.rewards == pytest.approx(ours.rewards, abs=1e-4)
    assert len(stub.bodies) == 1


def test_frames_travel_once_and_without_loss(scorer, stub):
    scorer.score_batch(CLIPS[:1], **SAID)
    urls = [body["messages"][0]["content"][0]["video_url"] for body in stub.bodies]
    assert [url is None for url in urls] == [False, True]
    assert np.array_equal(open_frames(urls[0]["url"]), CLIPS[0][0].frames)


def test_a_clip_that_is_gone_is_sent_again(scorer, stub, native):
    scorer.score_batch(CLIPS[:1], think="off")
    stub.videos.clear()
    [ours], [theirs] = (one.score_batch(CLIPS[:1], think="off") for one in (native, scorer))
    assert theirs.rewards == pytest.approx(ours.rewards, abs=1e-4)
    assert [body["messages"][0]["content"][0]["video_url"] is None for body in stub.bodies] == [False, True, False]


def test_nothing_is_left_to_the_servers_own_settings(scorer, stub):
    scorer.score_batch(CLIPS[:1], **SAID, seed=7)
    write, read = stub.bodies
    plain = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    plain |= {"presence_penalty": 0.0, "frequency_penalty": 0.0, "max_tokens": 1}
    assert write.items() >= plain.items()
    assert read.items() >= plain.items()
    assert write["stop_token_ids"] == [scorer.chat.end_id]
    assert set(write["logit_bias"].values()) == {-100}
    assert (read["logprobs"], read["continue_final_message"]) == (True, True)


def test_times_are_those_that_the_model_reads(native):
    clip = noise_clip(3, frames=5)
    ids = native.chat.lay_out_prompts([clip], ["a ball"])["input_ids"][0].tolist()
    assert times_in_tenths(native.chat, ids, frames=5) == [5, 5, 25, 25, 40]  # of 0 to 4 s, by two; the last by itself


@pytest.mark.slow
def test_a_chain_that_text_cannot_carry_is_left_out(scorer, native):
    chat = native.chat
    a, b = chat.encode_chain("re")[:-1], chat.encode_chain("r")[:-1] + chat.encode_chain("e")[:-1]
    assert is_said(chat, [*a, chat.end_id])
    assert not is_said(chat, [*b, chat.end_id]) or a == b
    results = list(scorer.score_each(CLIPS, samples=8, max_chain_tokens=4))
    for result in results:
        if isinstance(result, VideoError):
            assert "its text has other tokens" in str(result)
        else:
            assert len(result.completions) + len(result.left_out) == 8
            assert all("its text has other tokens" in reason for reason in result.left_out)


BUSY = [429, 500, 503, httpx2.ReadTimeout("slow"), httpx2.ConnectError("refused")]


@pytest.mark.parametrize("fault", BUSY, ids=str)
def test_a_busy_server_is_asked_again(scorer, stub, fault):
    stub.faults = [fault, fault]
    assert scorer.score_batch(CLIPS[:1], think="off")
    stub.faults = [fault, fault, fault]
    [result] = scorer.score_each(CLIPS[:1], think="off")
    assert isinstance(result, VideoError)
    assert str(result).startswith(f"<noise 0>: {ADDRESS}: ")


def test_a_cut_answer_is_asked_for_again(scorer, stub):
    stub.faults = [lambda answer: httpx2.Response(200, content=str(answer)[:40])] * 2
    assert scorer.score_batch(CLIPS[:1], think="off")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda answer: top_logprobs(answer).pop(), "logprob_token_ids"),
        (lambda answer: answer["choices"][0].update(logprobs=None), "logprob_token_ids"),
        (lambda answer: answer.pop("prompt_token_ids"), "return_token_ids"),
    ],
)
def test_a_server_without_log_probabilities_is_refused(scorer, stub, spoil, reason):
    stub.faults = [lambda answer: (spoil(answer), httpx2.Response(200, json=answer))[1]]
    with pytest.raises(ConfigError, match=f"does not .*{reason}.*vLLM 0.32"):
        scorer.score_batch(CLIPS[:1], think="off")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda answer: answer["prompt_token_ids"].pop(5), "they differ from number 5 on"),
        (lambda answer: answer["choices"][0].update(finish_reason="abort"), "ended with 'abort'"),
        (lambda answer: answer.update(choices=[]), "answers without a choice"),
        (
            lambda answer: answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0].update(logprob=-9999.0),
            "no fin",
        ),
    ],
)
def test_a_wrong_answer_is_an_error_and_no_reward(scorer, stub, spoil, reason):
    stub.faults = [lambda answer: (spoil(answer), httpx2.Response(200, json=answer))[1]]
    [result] = scorer.score_each(CLIPS[:1], think="off")
    assert isinstance(result, VideoError)
    assert reason in str(result)


def test_a_refusal_is_that_clips_error(scorer, stub):
    stub.faults = [400]
    bad, good = scorer.score_each([CLIPS[0], CLIPS[1]], think="off")
    if not isinstance(bad, VideoError):  # the requests go side by side
        bad, good = good, bad
    assert str(bad).endswith("answers 400 as it was asked")
    assert good.rewards


def test_a_server_that_takes_no_times_is_refused(scorer, stub):
    stub.trusts = False
    with pytest.raises(ConfigError, match=r"takes no times of frames; .* --trust-request-mm-kwargs"):
        scorer.score_batch(CLIPS[:1], think="off")


def test_another_model_is_refused(export_folder):
    with pytest.raises(ConfigError, match=r"serves other, expected vllm; .*--served-model-name vllm"):
        opened(export_folder, StubServer(export_folder, name="other"))


def test_what_is_no_server_is_refused(export_folder, stub, monkeypatch):
    for fault, reason in ((401, f"set its token in {API_KEY}"), (httpx2.ConnectError("no"), "cannot be reached")):
        stub.faults = [fault] * 3
        with pytest.raises(ConfigError, match=reason):
            opened(export_folder, stub)
    stub.faults.clear()
    monkeypatch.setattr(StubServer, "_answer", lambda *_: httpx2.Response(404, text="Not Found"))
    with pytest.raises(ConfigError, match="is no OpenAI-compatible address"):
        opened(export_folder, stub)


def test_its_token_goes_along(export_folder, stub, monkeypatch):
    monkeypatch.setenv(API_KEY, "secret")
    opened(export_folder, stub)
    assert stub.headers[0]["authorization"] == "Bearer secret"


def test_only_an_export_can_be_asked_for(micro_folder, export_folder):
    with pytest.raises(ConfigError, match="is no export; give the folder that descore export"):
        Scorer.from_pretrained(micro_folder, engine=ADDRESS)
    with pytest.raises(ConfigError, match="has its own; leave it out"):
        Scorer.from_pretrained(export_folder, engine=ADDRESS, device="cpu")
