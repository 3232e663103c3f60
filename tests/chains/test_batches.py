"""Batch files: written, run by a stand-in for the service, and read back."""

import json

import pytest

from descore.chains import batches
from descore.chains.collect import collect_chains
from descore.errors import DataError
from tests.chains.conftest import make_config
from tests.chains.made import read_candidates
from tests.chains.stub_teacher import GOOD, TOKENS_IN, TOKENS_OUT, StubTeacher, right

BATCH = {"kind": "openai-batch", "price_in": 10.0, "price_out": 100.0}
HALF = (10 * TOKENS_IN + 100 * TOKENS_OUT) / 2e6
UNLIKE = 5


def collect(folder, table, *overrides, **groups):
    teacher = BATCH | groups.pop("teacher", {})
    return collect_chains(make_config(folder, table, None, *overrides, teacher=teacher, **groups))


def requests_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def answer(request, text=GOOD):
    message = {"role": "assistant", "content": text, "reasoning_content": "hm"}
    usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT}
    body = {"model": "stub-1", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    response = {"status_code": 200, "body": body}
    return {"id": "r", "custom_id": request["custom_id"], "response": response, "error": None}


def expire(request):
    error = {"code": "batch_expired", "message": "too late"}
    return {"id": "r", "custom_id": request["custom_id"], "response": None, "error": error}


def write_results(folder, results, name="output.jsonl"):
    (folder / "run" / "batches" / name).write_text("".join(json.dumps(result) + "\n" for result in results))


def test_a_batch_is_written_waited_for_and_read(tmp_path, pairs):
    written = collect(tmp_path, pairs)
    [path] = written.batch.written
    requests = requests_of(path)
    assert (path.name, len(requests), written.left) == ("requests-0001.jsonl", UNLIKE, UNLIKE)
    assert {(r["method"], r["url"]) for r in requests} == {("POST", "/v1/chat/completions")}
    assert requests[0]["body"]["messages"][0]["content"][2]["type"] == "image_url"

    waited = collect(tmp_path, pairs)
    assert (waited.batch.written, waited.batch.waiting, waited.asked) == ([], UNLIKE, 0)

    write_results(tmp_path, map(answer, requests))
    read = collect(tmp_path, pairs)
    assert (read.answered, read.left, read.batch.written, read.batch.waiting) == (UNLIKE, 0, [], 0)
    assert (
        read.totals.cost
        == pytest.approx(UNLIKE * HALF)
        == pytest.approx(sum(c.cost for c in read_candidates(read.folder)))
    )
    assert {(c.text, c.thinking, c.teacher) for c in read_candidates(read.folder)} == {(GOOD, "hm", "stub-1")}
    assert collect(tmp_path, pairs).asked == 0


def test_what_failed_in_a_batch_is_written_anew(tmp_path, pairs):
    requests = requests_of(collect(tmp_path, pairs).batch.written[0])
    write_results(tmp_path, [*map(answer, requests[:3]), expire(requests[3])])
    second = collect(tmp_path, pairs)
    assert (second.answered, second.batch.waiting) == (3, 1)
    [path] = second.batch.written
    [again] = requests_of(path)
    assert again["body"] == requests[3]["body"]
    assert again["custom_id"] != requests[3]["custom_id"]
    assert collect(tmp_path, pairs).asked == 0  # the old error is not that of the new request
    write_results(tmp_path, [answer(again), answer(requests[4])], name="second.jsonl")
    last = collect(tmp_path, pairs)
    assert (last.answered, dict(last.failed), last.left) == (UNLIKE, {}, 0)


@pytest.mark.parametrize(("text", "finish", "kind"), [("", "stop", "empty"), ("no", "content_filter", "refused")])
def test_a_result_without_an_answer_is_asked_again(tmp_path, pairs, text, finish, kind):
    [request, *_] = requests_of(collect(tmp_path, pairs).batch.written[0])
    result = answer(request, text)
    result["response"]["body"]["choices"][0]["finish_reason"] = finish
    write_results(tmp_path, [result])
    read = collect(tmp_path, pairs)
    assert (read.answered, dict(read.failed), read.batch.requests) == (0, {kind: 1}, 1)
    assert read.totals.cost == pytest.approx(HALF)


OF_VLLM = {"error": {"message": "at most 8 images", "type": "BadRequestError", "param": None, "code": 400}}


@pytest.mark.parametrize("error", [OF_VLLM, OF_VLLM["error"], "at most 8 images"], ids=["nested", "flat", "text"])
def test_the_reason_of_a_refused_request_is_kept(tmp_path, pairs, error):
    [request, *_] = requests_of(collect(tmp_path, pairs).batch.written[0])
    refused = {"custom_id": request["custom_id"], "response": {"status_code": 400, "body": None}, "error": error}
    write_results(tmp_path, [refused])
    collect(tmp_path, pairs)
    reasons = {candidate.error.message for candidate in read_candidates(tmp_path / "run")}
    assert reasons == {"the batch has no answer to it: at most 8 images"}


def test_a_file_that_is_removed_is_asked_again_at_no_cost(tmp_path, pairs):
    collect(tmp_path, pairs).batch.written[0].unlink()
    again = collect(tmp_path, pairs)
    assert (again.batch.requests, again.batch.waiting, again.totals.cost) == (UNLIKE, 0, 0)


def test_a_batch_stops_before_the_budget(tmp_path, pairs):
    teacher = {"price_in": 0.0, "price_out": 100.0, "max_completion_tokens": 100}
    most = 100 * 100 / 2e6
    summary = collect(tmp_path, pairs, teacher=teacher, limits={"budget": 2.5 * most})
    assert summary.stopped.startswith("the budget of")
    assert summary.batch.requests == 2


def test_long_batches_are_several_files(tmp_path, pairs, monkeypatch):
    monkeypatch.setattr(batches, "MOST_REQUESTS", 2)
    written = collect(tmp_path, pairs).batch.written
    assert [len(requests_of(path)) for path in written] == [2, 2, 1]
    monkeypatch.setattr(batches, "MOST_BYTES", 1)
    assert [len(requests_of(path)) for path in collect(tmp_path, pairs, out="small").batch.written] == [1] * 5


def test_a_server_may_finish_what_a_batch_has_begun(tmp_path, pairs):
    requests = requests_of(collect(tmp_path, pairs).batch.written[0])
    write_results(tmp_path, map(answer, requests[:2]))
    collect(tmp_path, pairs)
    with StubTeacher(lambda _: right()) as stub:
        summary = collect_chains(make_config(tmp_path, pairs, stub, teacher=BATCH | {"kind": "openai"}))
    assert (len(stub.requests), summary.answered) == (3, UNLIKE)


@pytest.mark.parametrize(
    ("result", "message"),
    [({"id": "x"}, "is no result of a batch"), ({"response": {"status_code": 200, "body": {}}}, "no chat completion")],
)
def test_a_line_that_is_no_result_names_its_place(tmp_path, pairs, result, message):
    [request, *_] = requests_of(collect(tmp_path, pairs).batch.written[0])
    name = {"custom_id": request["custom_id"]} if "response" in result else {}
    write_results(tmp_path, [result | name])
    with pytest.raises(DataError, match=rf"output\.jsonl:1: .*{message}"):
        collect(tmp_path, pairs)
