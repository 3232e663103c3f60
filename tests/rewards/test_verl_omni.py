"""verl-omni's adapter, called as its reward manager does, and the batches that single calls become."""

import asyncio
import inspect
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from descore.errors import ConfigError, VideoError
from descore.rewards import verl_omni
from descore.rewards.batcher import CallBatcher
from descore.rewards.verl_omni import compute_score, compute_score_sync
from tests.rewards.conftest import PROMPTS


class RewardManager:
    """A caller as verl-omni's MultiVisualRewardManager: a function from a path, its keys of the YAML filtered by the
    signature, coroutines awaited and others run in an executor, an error 0 unless the reward is required."""

    def __init__(self, entry, function):
        self.required = entry.get("required", False)
        self.extra = {key: value for key, value in entry.items() if key not in ("path", "name", "weight", "required")}
        self.function, self.signature = function, inspect.signature(function)

    async def run_single(self, video, prompt, extra_info):
        every = {
            "data_source": "videos", "solution_image": video, "ground_truth": prompt, "extra_info": extra_info,
            "reward_router_address": "localhost:1", "model_name": "a policy", **self.extra,
        }  # fmt: skip
        known = {key: value for key, value in every.items() if key in self.signature.parameters}
        try:
            if inspect.iscoroutinefunction(self.function):
                result = await self.function(**known)
            else:
                result = await asyncio.get_running_loop().run_in_executor(None, lambda: self.function(**known))
        except Exception as fault:
            if self.required:
                raise RuntimeError(f"Required sub-reward failed: {fault}") from fault
            return 0.0, {}
        return float(result["score"]), {key: value for key, value in result.items() if key != "score"}


@pytest.fixture
def calls(scorer, monkeypatch):
    """The numbers of clips that the model was asked for at once."""
    seen = []
    original = scorer.score_each

    def score_each(requests, **params):
        seen.append(len(requests))
        return original(requests, **params)

    monkeypatch.setattr(scorer, "score_each", score_each)
    monkeypatch.setattr(verl_omni, "GATHER_SECONDS", 0.2)
    monkeypatch.setattr(verl_omni, "_batchers", {})
    return seen


@pytest.fixture
def clips(unit_videos):
    return list((unit_videos * 255).round().to(torch.uint8))


def gather(manager, clips, prompts=PROMPTS, infos=({}, {}, {})):
    async def every():
        return await asyncio.gather(*map(manager.run_single, clips, prompts, infos))

    return asyncio.run(every())


@pytest.mark.parametrize("function", [compute_score, compute_score_sync])
def test_single_calls_are_gathered(scorer, clips, expected, calls, function):
    manager = RewardManager({"model": scorer, "fps": 8, "batch_size": 8, "weight": 1.0}, function)
    rows = gather(manager, clips)
    assert [score for score, _ in rows] == pytest.approx(expected.tolist(), abs=1e-5)
    assert calls == [3]
    assert all(set(metrics) == set(rows[0][1]) for _, metrics in rows)
    assert rows[0][1]["truncated"] == 1.0  # random weights never end their turn


def test_batches_are_no_larger_than_they_may_be(scorer, clips, expected, calls):
    manager = RewardManager({"model": scorer, "fps": 8, "batch_size": 2}, compute_score)
    rows = gather(manager, clips * 2, PROMPTS * 2, [{}] * 6)
    assert [score for score, _ in rows] == pytest.approx(expected.tolist() * 2, abs=1e-5)
    assert calls == [2, 2, 2]


def test_several_event_loops_share_a_batch(scorer, clips, expected, calls):
    def one(index):
        call = compute_score(None, clips[index], PROMPTS[index], {}, model=scorer, fps=8, batch_size=8)
        return asyncio.run(call)["score"]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, range(3))) == pytest.approx(expected.tolist(), abs=1e-5)
    assert calls == [3]


def test_pictures_and_prompts_of_the_extra_info(scorer, clips, calls):
    info = {"caption": PROMPTS[0], "fps": 8}
    picture = compute_score_sync("videos", clips[0][0], None, info, model=scorer, prompt_key="caption")
    frame = compute_score_sync("videos", clips[0][:1], PROMPTS[0], None, model=scorer, fps=8)
    assert picture == pytest.approx(frame, abs=1e-6, nan_ok=True)
    assert len(calls) == 2


@pytest.mark.slow
def test_fps_by_yaml_before_the_clips_own(scorer, clips, calls, monkeypatch):
    alone = {fps: scorer.score(clips[0], prompt="a dog", fps=fps).score for fps in (2, 4, 8)}
    assert len(set(alone.values())) == 3
    monkeypatch.setenv("DESCORE_FPS", "2")

    def score(**settings):
        return compute_score_sync(None, clips[0], "a dog", settings.pop("info", {}), model=scorer, **settings)["score"]

    assert score(info={"fps": 4}, fps=8) == pytest.approx(alone[8], abs=1e-5)
    assert score(info={"fps": 4}) == pytest.approx(alone[4], abs=1e-5)
    assert score() == pytest.approx(alone[2], abs=1e-5)
    assert calls


@pytest.mark.usefixtures("calls")
def test_a_caller_inside_a_running_loop_may_wait(scorer, clips, expected):
    async def inside():
        return compute_score_sync(None, clips[0], PROMPTS[0], {}, model=scorer, fps=8)["score"]

    assert asyncio.run(inside()) == pytest.approx(float(expected[0]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("calls")
@pytest.mark.filterwarnings("ignore::descore.errors.DescoreWarning")
def test_a_failed_clip_fails_alone(scorer, clips, expected):
    odd = clips[1].to(torch.int64)  # refused as a type, which a batch is as a whole
    manager = RewardManager({"model": scorer, "fps": 8, "batch_size": 8}, compute_score)
    broken = clips[0].float() / 255
    broken[0, 0, 0, 0] = math.nan
    rows = gather(manager, [clips[0], odd, clips[2], broken], [*PROMPTS, "a cat"], [{}] * 4)
    assert [rows[0][0], rows[2][0]] == pytest.approx(expected[[0, 2]].tolist(), abs=1e-5)
    assert rows[1] == rows[3] == (0.0, {})  # what the trainer makes of an error unless the reward is required
    with pytest.raises(ConfigError, match=r"frames of type torch\.int64"):
        compute_score_sync(None, odd, "a box", {}, model=scorer, fps=8)
    with pytest.raises(VideoError, match="values that are not finite"):
        compute_score_sync(None, broken, "a box", {}, model=scorer, fps=8)
    manager.required = True
    with pytest.raises(RuntimeError, match="frames of type torch"):
        gather(manager, [clips[0], odd])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"fps": None}, "no fps is given; write fps: 16 below reward.reward_functions.descore"),
        ({"model": None}, "no model is given; write model='path/to/checkpoint' below reward.reward_functions.descore"),
        ({"solution_image": None}, "solution_image has nothing; expected a video"),
        ({"solution_image": torch.zeros(8, 8)}, r"solution_image has shape \(8, 8\)"),
        ({"ground_truth": {"x": 1}}, r"ground_truth is \{'x': 1\}; expected the prompt, or write prompt_key"),
        ({"prompt_key": "caption"}, r"extra_info\['caption'\] is None; expected the prompt"),
        ({"fps": None, "extra_info": {"fps": "fast"}}, r"extra_info\['fps'\] is 'fast'; expected frames per second"),
        ({"samples": 0}, "samples must be positive, got 0"),
    ],
)
def test_calls_that_cannot_be_scored(scorer, clips, call, message):
    given = {"solution_image": clips[0], "ground_truth": "a dog", "model": scorer, "fps": 8}
    with pytest.raises(ConfigError, match=message):
        compute_score_sync(**{**given, **call})


def test_a_batch_fills_while_the_model_works():
    sizes, release = [], threading.Event()

    def score(items):
        sizes.append(len(items))
        if len(sizes) == 1:
            release.wait(10)
        return [item * 2 for item in items]

    batcher = CallBatcher(score, window=0, max_size=8)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(batcher.result, 1)
        while not sizes:
            time.sleep(0.001)
        others = [pool.submit(batcher.result, item) for item in range(2, 7)]
        while len((batcher._filling or [None])[0].items if batcher._filling else []) < 5:
            time.sleep(0.001)
        release.set()
        assert [first.result(), *(other.result() for other in others)] == [2, 4, 6, 8, 10, 12]
    assert sizes == [1, 5]


def test_what_the_model_raises_reaches_every_caller():
    def score(items):
        raise RuntimeError(f"out of memory at {len(items)}")

    async def every():
        return await asyncio.gather(*[batcher.result_async(i) for i in range(3)], return_exceptions=True)

    batcher = CallBatcher(score, window=0.2, max_size=3)
    assert [str(fault) for fault in asyncio.run(every())] == ["out of memory at 3"] * 3


def test_a_caller_that_gives_up_takes_nothing_away():
    async def every():
        first = asyncio.create_task(batcher.result_async(1))
        second = asyncio.create_task(batcher.result_async(2))
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.gather(first, second, return_exceptions=True)

    batcher = CallBatcher(lambda items: [item * 2 for item in items], window=0.1, max_size=4)
    cancelled, other = asyncio.run(every())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert other == 4
