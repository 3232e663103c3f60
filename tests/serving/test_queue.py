"""Micro-batches, the bounded queue, deadlines, clients that leave, and a graceful stop."""

import asyncio
import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import httpx2
import pytest

from descore.serving.app import create_app
from descore.serving.batching import BatchQueue
from descore.serving.problems import ServiceError
from descore.serving.settings import ServerSettings
from tests.serving.conftest import PROMPT, URL, picture, problem_of, score_of


@asynccontextmanager
async def running(score, **options):
    queue = BatchQueue(score, **{"max_size": 4, "window": 0.05, **options})
    queue.start()
    yield queue
    await queue.close()


def tens(batches):
    """A function of ten times each item, that notes its batches."""

    def score(items):
        batches.append(list(items))
        return [10 * item for item in items]

    return score


def test_items_that_come_together_share_a_batch():
    batches = []

    async def scenario():
        async with running(tens(batches)) as queue:
            return await asyncio.gather(*(queue.result(n, key="a") for n in range(6)))

    assert asyncio.run(scenario()) == [0, 10, 20, 30, 40, 50]
    assert batches == [[0, 1, 2, 3], [4, 5]]


def test_a_queue_rests_where_nothing_waits():
    batches, rests = [], []

    async def scenario():
        score = tens(batches)
        async with running(score, on_rest=lambda: rests.append(len(batches))) as queue:
            await asyncio.gather(*(queue.result(n, key="a") for n in range(6)))
            await queue.result(7, key="a")

    asyncio.run(scenario())
    assert batches == [[0, 1, 2, 3], [4, 5], [7]]
    assert rests == [2, 3]  # not between the first two


def test_only_items_of_one_key_share_a_batch():
    batches = []

    async def scenario():
        async with running(tens(batches)) as queue:
            return await asyncio.gather(*(queue.result(n, key=n % 2) for n in range(4)))

    assert asyncio.run(scenario()) == [0, 10, 20, 30]
    assert batches == [[0, 2], [1, 3]]


def test_a_full_batch_does_not_wait_for_the_window():
    async def scenario():
        async with running(tens([]), window=30) as queue:
            await asyncio.wait_for(asyncio.gather(*(queue.result(n, key=0) for n in range(4))), 5)

    asyncio.run(scenario())


def test_a_cancelled_item_leaves_the_queue_at_once():
    batches, go, entered = [], threading.Event(), threading.Event()

    def score(items):
        entered.set()
        go.wait(10)
        return tens(batches)(items)

    async def scenario():
        async with running(score, window=0) as queue:
            first = asyncio.create_task(queue.result(1, key=0))
            await asyncio.to_thread(entered.wait)
            second, third = (asyncio.create_task(queue.result(n, key=0)) for n in (2, 3))
            await asyncio.sleep(0)
            assert len(queue) == 2
            second.cancel()
            await asyncio.sleep(0)
            assert len(queue) == 1
            go.set()
            return await asyncio.gather(first, third)

    assert asyncio.run(scenario()) == [10, 30]
    assert batches == [[1], [3]]


def test_a_stop_ends_what_runs_and_refuses_what_waits():
    go, entered = threading.Event(), threading.Event()

    def score(items):
        entered.set()
        go.wait(10)
        return items

    async def scenario():
        async with running(score, window=0) as queue:
            runs = asyncio.create_task(queue.result(1, key=0))
            await asyncio.to_thread(entered.wait)
            waits = asyncio.create_task(queue.result(2, key=0))
            await asyncio.sleep(0)
            queue.stop()
            go.set()
            with pytest.raises(ServiceError, match="stopping"):
                await waits
            with pytest.raises(ServiceError, match="stopping"):
                await queue.result(3, key=0)
            assert await runs == 1

    asyncio.run(scenario())


def test_a_fault_of_one_batch_is_not_that_of_the_next():
    def score(items):
        if 0 in items:
            raise RuntimeError("a fault")
        return items

    async def scenario():
        async with running(score, window=0) as queue:
            with pytest.raises(RuntimeError, match="a fault"):
                await queue.result(0, key=0)
            assert queue.alive
            return await queue.result(1, key=0)

    assert asyncio.run(scenario()) == 1


@pytest.fixture
def threads():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def wait_for(condition):
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def waiting(client):
    """Clips that wait for a batch."""
    [line] = [
        x for x in client.get("/metrics").text.splitlines() if x.startswith('descore_queue_clips{state="waiting"')
    ]
    return float(line.split()[-1])


def test_requests_of_many_clients_share_batches(serving, scorer, threads):
    client = serving(window=0.0)
    scorer.open.clear()
    answers = [threads.submit(score_of, client, prompt="first")]
    wait_for(scorer.entered.is_set)
    answers += [threads.submit(score_of, client, prompt=f"{PROMPT} {n}") for n in range(6)]
    wait_for(lambda: waiting(client) == 6)
    scorer.open.set()
    assert {answer.result().status_code for answer in answers} == {200}
    assert sorted(map(len, scorer.batches)) == [1, 2, 4]


def test_beyond_the_queue_the_answer_is_503_at_once(serving, scorer, threads):
    client = serving(max_queue=2)
    scorer.open.clear()
    inside = [threads.submit(score_of, client) for _ in range(2)]
    wait_for(lambda: client.app.state.service.full)
    begin = time.monotonic()
    refused = score_of(client)
    assert time.monotonic() - begin < 1
    assert problem_of(refused)[:2] == (503, "busy")
    assert int(refused.headers["retry-after"]) >= 1
    scorer.open.set()
    assert [answer.result().status_code for answer in inside] == [200, 200]
    assert score_of(client).status_code == 200


def test_a_request_that_never_fits_is_too_large(serving):
    videos = [{"path": "bright.mp4"}] * 3
    assert problem_of(serving(max_queue=2).post("/v1/rank", json={"prompt": PROMPT, "videos": videos}))[0] == 413


def test_a_deadline_ends_the_wait_and_frees_the_place(serving, scorer, threads):
    client = serving(window=0.0)
    scorer.open.clear()
    first = threads.submit(score_of, client)
    wait_for(scorer.entered.is_set)
    assert problem_of(score_of(client, timeout=0.1, prompt="late"))[:2] == (503, "busy")
    assert waiting(client) == 0
    scorer.open.set()
    assert first.result().status_code == 200
    assert score_of(client).status_code == 200
    assert ["late"] not in scorer.batches


def test_cancelled_work_leaves_nothing_in_the_log(serving, scorer, caplog):
    client = serving()
    scorer.open.clear()
    videos = [{"path": "bright.mp4"}, {"frames": [picture(1)] * 4, "fps": 2}]
    for seconds in (1e-9, 0.05):
        body = {"prompt": PROMPT, "videos": videos, "timeout": seconds}
        assert problem_of(client.post("/v1/rank", json=body))[0] == 503
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.slow
def test_a_late_batch_gives_a_line_for_each_item(serving, scorer):
    client = serving()
    assert score_of(client).status_code == 200  # the decoding process has started
    scorer.open.clear()
    items = [{"prompt": PROMPT, "video": {"path": name}} for name in ("bright.mp4", "text.mp4")]
    answer = client.post("/v1/batch", json={"items": items, "timeout": 1.0})
    kinds = {line["index"]: line["error"]["kind"] for line in map(json.loads, answer.text.splitlines())}
    assert kinds == {0: "busy", 1: "no_video"}


def test_a_client_that_leaves_takes_its_clip_along(scorer, media):
    app = create_app({"stub": scorer}, settings=ServerSettings(media_root=media, window=0.0))
    service = app.state.service
    scorer.open.clear()
    body = json.dumps({"prompt": "left", "video": {"path": "bright.mp4"}}).encode()

    async def scenario():
        gone, messages, sent = asyncio.Event(), iter([{"type": "http.request", "body": body}]), []

        async def receive():
            for message in messages:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b"",
            "root_path": "", "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        }  # fmt: skip
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL)
        async with app.router.lifespan_context(app), http as client:
            first = {"prompt": "stays", "video": {"path": "bright.mp4"}}
            stays = asyncio.create_task(client.post("/v1/score", json=first))
            await asyncio.to_thread(scorer.entered.wait, 10)
            leaves = asyncio.create_task(app(scope, receive, send))
            while not len(service._queues["stub"]):
                await asyncio.sleep(0.005)
            gone.set()
            await leaves
            assert service._admitted == 1
            scorer.open.set()
            assert (await stays).status_code == 200
        return sent

    sent = asyncio.run(scenario())
    assert sent[0]["status"] == 499
    assert scorer.batches == [["stays"]]


def test_a_server_that_stops_refuses_and_is_not_ready(client):
    client.app.state.service.stop()
    assert problem_of(score_of(client))[:2] == (503, "busy")
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200
