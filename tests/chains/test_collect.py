"""Every path between asking and keeping, with a stub teacher over loopback. The pairs of `conftest` have five unlike
clips in six places."""

import dataclasses
import threading
from pathlib import Path

import pytest

from descore.chains import asking
from descore.chains.collect import collect_chains
from descore.chains.config import CollectConfig
from descore.chains.estimate import estimate_collection
from descore.errors import ConfigError, DescoreWarning
from descore.training.config_file import read_config
from tests.chains.conftest import make_config, write_table
from tests.chains.made import read_candidates
from tests.chains.stub_teacher import (
    GOOD,
    TOKENS_IN,
    TOKENS_OUT,
    StubTeacher,
    cut,
    flood,
    hang,
    right,
    rubbish,
    status,
)

PRICES = {"price_in": 10.0, "price_out": 100.0}
ONE = (10 * TOKENS_IN + 100 * TOKENS_OUT) / 1_000_000
"""What one answer costs."""
UNLIKE, PLACES = 5, 6


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(asking, "_FIRST_WAIT", 0.01)


def collect(folder, table, script, *overrides, **groups):
    with StubTeacher(script) as stub:
        summary = collect_chains(make_config(folder, table, stub, *overrides, **groups))
    return summary, stub


def once(first, then=None):
    """The first request of each body gets `first`, a repeated one the answer."""
    return lambda request: (then or right()) if request.attempt else first


def test_each_clip_is_asked_once_and_answers_every_place(tmp_path, pairs):
    summary, stub = collect(tmp_path, pairs, lambda _: right(thinking="I look."), teacher=PRICES)
    assert len(stub.requests) == summary.answered == summary.requests == UNLIKE
    candidates = read_candidates(tmp_path / "run")
    assert len(candidates) == PLACES
    assert {(c.text, c.thinking, c.finish, c.teacher, c.sees) for c in candidates} == {
        (GOOD, "I look.", "stop", "stub-1", "nothing")
    }
    first, last = candidates[0], candidates[4]
    assert (first.row, last.row, first.side, last.side) == (0, 2, "a", "a")
    assert (first.key, last.cost) == (last.key, 0)
    assert sum(c.cost for c in candidates) == pytest.approx(UNLIKE * ONE) == pytest.approx(summary.totals.cost)
    totals = summary.totals
    assert (totals.tokens_in, totals.tokens_out) == (stub.billed["tokens_in"], stub.billed["tokens_out"])
    assert (summary.stopped, summary.left, totals.assumed) == (None, 0, 0)


def test_a_request_has_frames_between_their_times(tmp_path, pairs):
    _, stub = collect(tmp_path, pairs, lambda _: right(), "data.limit=1", "teacher.seed=7", num_chains=2)
    parts = stub.requests[0].body["messages"][0]["content"]
    kinds = [part["type"] for part in parts]
    assert kinds == ["text", *["text", "image_url"] * 4, "text"]
    assert [part["text"] for part in parts if part["type"] == "text"][1:5] == ["0.00 s", "0.25 s", "0.50 s", "0.75 s"]
    assert parts[2]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert '"a red ball"' in parts[-1]["text"]
    assert sorted(request.body["seed"] for request in stub.requests) == [7, 7, 8, 8]
    assert stub.requests[0].body["max_completion_tokens"] == 2048


def test_a_video_goes_as_a_file_where_the_server_takes_it(tmp_path, pairs):
    options = {"video": "video", "extra_body": {"top_k": 3}, "temperature": None, "send_seed": False}
    _, stub = collect(tmp_path, pairs, lambda _: right(), "data.limit=1", teacher=options)
    body = stub.requests[0].body
    assert body["messages"][0]["content"][0]["video_url"]["url"].startswith("data:video/mp4;base64,")
    assert body["top_k"] == 3
    assert not {"temperature", "seed"} & body.keys()


@pytest.mark.parametrize(
    ("trouble", "billed"),
    [
        slow(status(500), False),
        (status(429), False),
        slow(status(503, headers={"Retry-After": "0.05"}), False),
        (cut(), True),
        slow(cut(politely=True), True),
        slow(rubbish(), True),
        (rubbish(b"{no json", stream=True), True),
        slow(rubbish(b"[1, 2]", stream=True), True),
        (rubbish(b'{"error": {"message": "overloaded"}}', stream=True), True),
        slow(hang, True),
    ],
    ids=["500", "429", "503", "cut", "cut politely", "html", "no json", "list", "error in stream", "timeout"],
)
def test_what_is_worth_it_is_asked_again(tmp_path, pairs, trouble, billed):
    summary, stub = collect(
        tmp_path, pairs, once(trouble), "data.limit=1", "limits.timeout=3.0", "limits.retries=1", teacher=PRICES
    )
    assert (summary.answered, summary.stopped, sum(summary.failed.values())) == (2, None, 0)
    assert len(stub.requests) == 4
    assert (summary.totals.assumed > 0) == billed
    assert summary.totals.cost == pytest.approx(2 * ONE + summary.totals.assumed)
    spent = sum(candidate.cost for candidate in read_candidates(summary.folder))
    assert spent == pytest.approx(summary.totals.cost)


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (status(400, message="too many images"), "refused"),
        slow(right(finish="content_filter"), "refused"),
        slow(status(500), "server"),
        (status(429), "limited"),
        slow(cut(), "cut"),
        slow(rubbish(b"[1, 2]", stream=True), "format"),
        slow(rubbish(), "format"),
        (right(" \n"), "empty"),
        (flood(), "too_much"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_fails_is_kept_with_its_reason(tmp_path, pairs, trouble, kind):
    def script(request):
        return trouble if "a cat" in request.texts[-1] else right()

    summary, stub = collect(tmp_path, pairs, script, "limits.retries=1", teacher={"max_completion_tokens": 64})
    assert (summary.answered, dict(summary.failed), summary.left) == (3, {kind: 2}, 0)
    faults = [candidate.error for candidate in read_candidates(summary.folder) if candidate.error]
    assert {fault.kind for fault in faults} == {kind}
    again = kind in ("server", "limited", "cut", "format", "empty")
    assert len(stub.requests) == 3 + 2 * (1 + again)


@pytest.mark.parametrize("nothing", [right(""), right("no", finish="content_filter")], ids=["empty", "filter"])
def test_no_answer_costs_what_the_server_states(tmp_path, pairs, nothing):
    summary, stub = collect(tmp_path, pairs, lambda r: nothing if r.number == 1 else right(), teacher=PRICES)
    assert (summary.totals.cost, summary.totals.assumed) == (pytest.approx(len(stub.requests) * ONE), 0)


def test_an_answer_that_is_all_reasoning_is_not_asked_again(tmp_path, pairs):
    """Its limit cut it off, as it would the next one."""
    summary, stub = collect(tmp_path, pairs, lambda _: right("", thinking="I look.", finish="length"))
    assert (len(stub.requests), summary.answered, summary.filtered["rejected"]["format"]) == (UNLIKE, UNLIKE, PLACES)


def test_a_page_in_place_of_a_stream_names_the_address(tmp_path, pairs):
    with pytest.raises(ConfigError, match=r"a request failed, since no piece .*is teacher\.base_url the address"):
        collect(tmp_path, pairs, lambda _: rubbish(), limits={"retries": 0, "max_failures": 1})


def test_failed_requests_are_asked_again_by_the_same_command(tmp_path, pairs):
    collect(tmp_path, pairs, lambda r: status(400) if "a cat" in r.texts[-1] else right())
    summary, stub = collect(tmp_path, pairs, lambda _: right())
    assert (len(stub.requests), summary.answered, dict(summary.failed)) == (2, UNLIKE, {})


def test_a_video_that_cannot_be_read_is_no_request(tmp_path, pairs):
    text = pairs.read_text().replace("2.mp4", "none.mp4")
    pairs.write_text(text)
    summary, stub = collect(tmp_path, pairs, lambda _: right())
    assert len(stub.requests) == 4
    assert dict(summary.failed) == {"unreadable": 1}
    assert "none.mp4" in summary.first_failure


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (status(401, message="bad key"), r"refuses the key \(401\): bad key"),
        slow(status(404, message="no model stub"), r"has no such model or address \(404\)"),
        (status(429, message="pay", kind="insufficient_quota"), "has no credit left"),
    ],
    ids=["401", "404", "quota"],
)
def test_what_every_request_would_get_costs_one(tmp_path, pairs, trouble, message):
    with pytest.raises(ConfigError, match=message), StubTeacher(lambda _: trouble) as stub:
        collect_chains(make_config(tmp_path, pairs, stub))
    assert len(stub.requests) == 1


def test_a_run_without_an_answer_may_begin_anew(tmp_path, pairs):
    with StubTeacher(lambda _: status(404)) as stub, pytest.raises(ConfigError, match="no such model"):
        collect_chains(make_config(tmp_path, pairs, stub))
    summary, _ = collect(tmp_path, pairs, lambda _: right(), "teacher.model=other")
    assert (summary.answered, summary.totals.requests) == (UNLIKE, UNLIKE + 1)


def test_a_server_that_is_gone_stops_the_run(tmp_path, pairs):
    with StubTeacher(lambda _: right()) as stub:
        config = make_config(tmp_path, pairs, stub, "limits.retries=1")
    with pytest.raises(ConfigError, match=r"cannot be reached .*is teacher\.base_url right"):
        collect_chains(config)


def test_failures_in_a_row_stop_the_run(tmp_path, pairs):
    with pytest.raises(ConfigError, match=r"2 requests in a row failed, the last one since .*\(400\): no"):
        collect(tmp_path, pairs, lambda _: status(400), "limits.max_failures=2")


def test_requests_are_alone_until_the_first_answer(tmp_path, pairs):
    """And then as many as are allowed: the stub answers three together, or none."""
    before, three = [], threading.Barrier(3)

    def script(request):
        before.append(len(stub.answered))
        if request.number:
            three.wait(timeout=60)
        return right()

    with StubTeacher(script) as stub:
        limits = {"concurrency": 3, "retries": 0}
        summary = collect_chains(make_config(tmp_path, pairs, stub, "data.limit=2", num_chains=4, limits=limits))
    assert before[0] == 0 < min(before[1:])
    assert all(number - answered < 3 for number, answered in enumerate(before))
    assert summary.answered == 16


def test_retry_after_holds_all_requests_back(tmp_path, pairs, monkeypatch):
    slept = []
    real = asking.asyncio.sleep

    async def sleep(seconds):
        slept.append(seconds)
        await real(0)
        clock[0] += seconds

    clock = [100.0]
    monkeypatch.setattr(asking.asyncio, "sleep", sleep)
    monkeypatch.setattr(asking, "monotonic", lambda: clock[0])
    script = once(status(429, headers={"Retry-After": "30"}))
    summary, _ = collect(tmp_path, pairs, script, "data.limit=1", limits={"concurrency": 1})
    assert summary.answered == 2
    assert max(slept) == pytest.approx(30, abs=0.1)
    script = once(status(429, headers={"Retry-After": "3600"}))
    with pytest.warns(DescoreWarning, match=r"the server asks to wait 3,600 s: .*limits\.deadline"):
        collect(tmp_path, pairs, script, "data.limit=1", limits={"concurrency": 1}, out="long")


def test_requests_and_tokens_a_minute_are_kept(tmp_path, pairs, monkeypatch):
    acquired = {}

    class Limiter:
        def __init__(self, most, seconds):
            self.max_rate = most
            assert seconds == 60

        async def acquire(self, amount=1):
            acquired.setdefault(self.max_rate, []).append(amount)

    monkeypatch.setattr("aiolimiter.AsyncLimiter", Limiter)
    collect(tmp_path, pairs, lambda _: right(), limits={"requests_per_minute": 30, "tokens_per_minute": 4000})
    assert acquired[30] == [1] * UNLIKE
    assert len(acquired[4000]) == UNLIKE
    assert acquired[4000][0] > 2048 > max(acquired[4000][1:])  # the limit, and then the mean of what came


def test_a_deadline_stops_and_says_what_is_left(tmp_path, pairs):
    summary, stub = collect(tmp_path, pairs, lambda _: right(seconds=0.3), "limits.deadline=0.003")
    assert summary.stopped == "the deadline of 0.003 minutes"
    assert summary.left == UNLIKE - len(stub.requests) > 0
    assert summary.answered == len(stub.requests)


def test_a_budget_is_never_passed_and_is_used_up(tmp_path, pairs):
    teacher = {**PRICES, "max_completion_tokens": 64, "price_in": 0.0, "frame_tokens": 1}
    one, most = 100 * TOKENS_OUT / 1e6, 100 * 64 / 1e6
    budget = 6 * one + most
    summary, stub = collect(
        tmp_path,
        pairs,
        lambda _: right(seconds=0.05),
        num_chains=8,
        teacher=teacher,
        limits={"budget": budget, "concurrency": 8},
    )
    billed = 100 * stub.billed["tokens_out"] / 1e6
    assert summary.stopped.startswith("the budget of ")
    assert billed == pytest.approx(summary.totals.cost)
    assert billed <= budget < billed + most + one
    assert summary.left == 8 * UNLIKE - len(stub.requests)
    again, stub = collect(
        tmp_path, pairs, lambda _: right(), num_chains=8, teacher=teacher, limits={"budget": budget, "concurrency": 8}
    )
    assert len(stub.requests) == 0
    assert again.answered == summary.answered


def test_an_answer_without_usage_counts_as_reserved(tmp_path, pairs):
    summary, _ = collect(tmp_path, pairs, lambda _: right(usage=False), teacher=PRICES)
    assert summary.totals.assumed == summary.totals.cost > UNLIKE * ONE


def test_nothing_is_asked_twice(tmp_path, pairs):
    collect(tmp_path, pairs, lambda _: right(), "data.limit=1")
    summary, stub = collect(tmp_path, pairs, lambda _: right(), num_chains=2)
    assert len(stub.requests) == summary.asked == 2 * UNLIKE - 2
    assert len(read_candidates(summary.folder)) == 2 * PLACES


def test_another_run_lends_its_answers(tmp_path, pairs):
    collect(tmp_path, pairs, lambda _: right(), teacher=PRICES)
    rows = pairs.read_text().splitlines()
    longer = tmp_path / "longer.csv"
    longer.write_text("\n".join([rows[0], rows[2], *rows[1:]]) + "\n")
    config = {"teacher": PRICES, "out": "more", "run": {"reuse": [str(tmp_path / "run")]}}
    summary, stub = collect(tmp_path, longer, lambda _: right(), **config)
    assert len(stub.requests) == 0
    assert (summary.answered, len(read_candidates(summary.folder)), summary.totals.cost) == (UNLIKE, PLACES + 2, 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.model=other", "teacher.model is stub there, other here"),
        slow("teacher.seed=1", "teacher.seed is 0 there, 1 here"),
        slow("sees=label", "sees is nothing there, label here"),
        ("teacher.extra_body={top_k: 2}", "teacher.extra_body.top_k is None there, 2 here"),
        ("data.sampling={fps: 1.0}", "sampling was "),
        slow("teacher.max_completion_tokens=9", "max_completion_tokens"),
    ],
)
def test_a_changed_config_never_mixes(tmp_path, pairs, override, message):
    collect(tmp_path, pairs, lambda _: right(), "data.limit=1")
    with StubTeacher(lambda _: right()) as stub, pytest.raises(ConfigError, match=f"run.out: .*{message}"):
        collect_chains(make_config(tmp_path, pairs, stub, override))
    assert not stub.requests


def test_a_changed_table_never_mixes(tmp_path, pairs):
    collect(tmp_path, pairs, lambda _: right())
    pairs.write_text(pairs.read_text().replace("tie", "a"))
    with pytest.raises(ConfigError, match=r"table was .*bring it back, or choose another run\.out"):
        collect(tmp_path, pairs, lambda _: right())


def test_a_folder_of_something_else_is_refused(tmp_path, pairs):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"is no run's folder, it holds thesis\.tex"):
        collect(tmp_path, pairs, lambda _: right())


def test_a_teacher_is_blind_unless_it_is_not(tmp_path, pairs):
    _, blind = collect(tmp_path, pairs, lambda _: right())
    assert not any("prefer" in text for request in blind.requests for text in request.texts)
    summary, stub = collect(tmp_path, pairs, lambda _: right(), sees="label", out="seen")
    assert len(stub.requests) == PLACES  # the clip of two pairs has two labels
    notes = sorted(request.texts[-1].rpartition("- ")[2] for request in stub.requests)
    assert notes == sorted(
        ["overall: they prefer it to another video of the same prompt"] * 2
        + ["overall: they prefer another video of the same prompt"] * 2
        + ["overall: to them it is as good as another video of the same prompt"] * 2
    )
    assert {candidate.sees for candidate in read_candidates(summary.folder)} == {"label"}


def test_comments_are_shown_where_there_are_some(tmp_path, clips):
    rows = [
        {"prompt": "a ball", "video": clips / "0.mp4", "comments": "it {video} flickers"},
        {"prompt": "a ball", "video": clips / "1.mp4", "comments": ""},
    ]
    table = write_table(tmp_path / "clips.csv", rows)
    summary, stub = collect(tmp_path, table, lambda _: right(), sees="comments")
    assert [candidate.sees for candidate in read_candidates(summary.folder)] == ["comments", "nothing"]
    assert sum(request.texts[-1].endswith("- it {video} flickers") for request in stub.requests) == 1
    with pytest.raises(ConfigError, match=r"sees is label, and .* has no column preference or rating"):
        collect(tmp_path, table, lambda _: right(), sees="label", out="other")


def test_an_estimate_asks_nothing(tmp_path, pairs):
    with StubTeacher(lambda _: right()) as stub:
        config = make_config(
            tmp_path, pairs, stub, num_chains=2, teacher=PRICES, limits={"requests_per_minute": 10, "concurrency": 64}
        )
        estimate = estimate_collection(config)
        assert not stub.requests
        assert not (tmp_path / "run").exists()
        assert (estimate.clips, estimate.requests, estimate.missing, estimate.read) == (5, 10, 10, 5)
        assert estimate.tokens_out == 10 * 2048
        assert estimate.cost < estimate.most
        assert estimate.hours == pytest.approx(1 / 60)
        summary = collect_chains(config.model_copy(update={"num_chains": 1}))
        after = estimate_collection(config)
    assert (after.missing, after.tokens_out) == (5, 5 * TOKENS_OUT)
    assert dataclasses.asdict(summary.totals)["cost"] <= estimate.most


def test_answers_cost_no_more_than_the_estimate_says(tmp_path, pairs):
    with StubTeacher(lambda _: right()) as stub:
        config = make_config(tmp_path, pairs, stub, teacher=PRICES)
        most = estimate_collection(config).most
        collect_chains(config)
    assert 10 * stub.billed["tokens_in"] / 1e6 + 100 * stub.billed["tokens_out"] / 1e6 <= most


def test_the_config_of_the_guide_is_one(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "chains.md").read_text(encoding="utf-8")
    file = tmp_path / "chains.yaml"
    file.write_text(guide.partition("```yaml\n")[2].partition("```")[0])
    config = read_config(file, CollectConfig)
    assert (config.num_chains, config.sees, config.teacher.api_key_env) == (4, "nothing", "TEACHER_KEY")
