"""The monitor's figures by hand, its memory of earlier steps, and what it warns of."""

import json
import math
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from descore import RewardFunction
from descore.errors import ConfigError, DescoreWarning, VideoError
from descore.rewards import RewardMonitor, Rewards, WarningLimits
from descore.rewards.flow_grpo import descore_scorer
from descore.rewards.monitor import distance_to, variance_split
from descore.types import DIMENSIONS, Completion, Score, Verdict
from tests.conftest import noise_clip
from tests.rewards.test_frames import made_videos

SILENT = WarningLimits(least_clips=1000)


def score(reward, *, prompt="a dog", text="", tokens=4, truncated=False, marks=None):
    """A score of one chain; `marks` are those of all dimensions, or None for no answer."""
    verdict = None if marks is None else Verdict(marks=dict(zip(DIMENSIONS, marks, strict=True)), overall=3.0)
    chain = Completion(
        token_ids=list(range(tokens)), text=text, truncated=truncated, verdict=verdict, flaw=None,
        rewards={"overall": reward},
    )  # fmt: skip
    return Score(clip=noise_clip(0), prompt=prompt, model="", reward=reward, score=None, std=None, completions=(chain,))


def step(values, *, terms=None, clamped=None, **options):
    """Rewards by hand; each option is a list with a value for each clip, None in `values` a clip that failed."""
    scores = [
        VideoError("x.mp4", "broken")
        if value is None
        else score(value, **{name: column[index] for name, column in options.items()})
        for index, value in enumerate(values)
    ]
    numbers = [math.nan if value is None else value for value in values]
    return Rewards(
        rewards=torch.tensor(numbers),
        scores=tuple(scores),
        terms={name: torch.tensor(column) for name, column in (terms or {}).items()},
        clamped=torch.tensor(clamped or [0] * len(values)),
    )


def test_the_figures_of_a_step_by_hand():
    """Known rewards 1, 3, 6, 10: mean 5, population variance (16 + 4 + 1 + 25) / 4 = 11.5. Of two groups: (1, 3) and
    (6, 10) have variances 1 and 4, so 2.5 within; their means 2 and 8 lie 3 from the mean of all, so 9 between."""
    report = RewardMonitor(limits=SILENT).update(
        step(
            [1.0, 3.0, 6.0, 10.0, None],
            prompt=["a", "a", "b", "b", "b"],
            text=["x", "x", "y", "z", ""],
            tokens=[2, 4, 6, 8, 0],
            truncated=[False, False, False, True, False],
            marks=[(2, 2, None, None, None), (2, 1, None, None, None), (2, 0, 1, 1, 1), None, None],
            terms={"reward": [1.0, 3.0, 6.0, 10.0, math.nan], "own": [0.0, 0.0, 0.0, 0.0, 1.0]},
            clamped=[0, 7, 0, 0, 0],
        )
    )
    assert report == pytest.approx(
        {
            "descore/clips": 5,
            "descore/failed": 1 / 5,
            "descore/clamped": 1 / 5,
            "descore/reward_mean": 5,
            "descore/reward_std": math.sqrt(11.5),
            "descore/reward_min": 1,
            "descore/reward_max": 10,
            "descore/raw_mean": 5,
            "descore/term/reward": 5,
            "descore/term/own": 1 / 5,
            "descore/groups": 2,
            "descore/std_within": math.sqrt(2.5),
            "descore/std_between": 3,
            "descore/within_share": 2.5 / 11.5,
            "descore/undecided_groups": 0,
            "descore/chain_tokens": 5,
            "descore/truncated": 1 / 4,
            "descore/no_answer": 1 / 4,
            "descore/not_applicable": 6 / 15,
            "descore/repeated_chains": 1 / 4,
        }
    )
    assert all(type(value) is float for value in report.values())


def test_the_variance_splits_into_within_and_between():
    """Group a (0, 2) has variance 1, group b (5) none: (2 * 1 + 1 * 0) / 3 within. Means 1, 1, 5 around 7 / 3."""
    within, between = variance_split(torch.tensor([0.0, 5.0, 2.0]).numpy(), ["a", "b", "a"])
    assert within == pytest.approx(2 / 3)
    assert between == pytest.approx((2 * (4 / 3) ** 2 + (8 / 3) ** 2) / 3)
    assert within + between == pytest.approx(torch.tensor([0.0, 5.0, 2.0]).var(correction=0).item())


def test_the_distance_of_shifted_rewards_is_the_shift():
    """-1 and 1 have a deviation of 1, and 0 and 4 one of 2."""
    assert distance_to([-1.0, 1.0], [2.0, 4.0]) == pytest.approx(3)
    assert distance_to([0.0, 4.0], [3.0, 7.0]) == pytest.approx(1.5)
    assert distance_to([0.0, 4.0, 0.0, 4.0], [4.0, 0.0]) == 0
    assert distance_to([-1.0, 1.0], [0.0]) == pytest.approx(1)
    assert all(math.isnan(distance_to(*pair)) for pair in ([[], [1.0]], [[1.0, 2.0], []], [[0.1] * 3, [1.0]]))


def test_the_distance_is_to_the_steps_of_the_window():
    monitor = RewardMonitor(window=2, limits=SILENT)
    assert "descore/distance" not in monitor.update(step([100.0, 200.0]))
    monitor.update(step([-1.0, -1.0]))
    monitor.update(step([1.0, 1.0]))  # the first step is forgotten
    assert monitor.update(step([5.0, 5.0]))["descore/distance"] == pytest.approx(5)


def test_groups_are_prompts_unless_they_are_given():
    monitor = RewardMonitor(limits=SILENT)
    rewards = step([0.0, 2.0, 0.0, 2.0], prompt=["a", "a", "b", "b"])
    assert monitor.update(rewards)["descore/std_within"] == 1
    report = monitor.update(rewards, groups=[1, 2, 1, 2])
    assert (report["descore/std_within"], report["descore/undecided_groups"]) == (0, 1)
    assert "descore/groups" not in monitor.update(rewards, groups=range(4))
    with pytest.raises(ConfigError, match="4 rewards, but 3 in groups"):
        monitor.update(rewards, groups=[1, 2, 3])


def test_figures_without_a_value_are_left_out():
    monitor = RewardMonitor()
    assert monitor.report() == {"descore/clips": 0}
    assert monitor.update(step([None, None])) == {"descore/clips": 2, "descore/failed": 1, "descore/clamped": 0}
    assert not any("chain" in key or "truncated" in key for key in monitor.update(step([1.0, 2.0])))
    assert monitor.state_dict()["steps"][0]["rewards"] == [1, 2]  # steps without rewards are not remembered


def test_calls_of_a_step_are_one_report():
    one, several = RewardMonitor(limits=SILENT), RewardMonitor(limits=SILENT)
    options = {"prompt": ["a", "b"], "text": ["x", "x"]}
    several.add(step([1.0, 2.0], **options))
    several.add(step([3.0, 4.0], **options))
    together = {name: column * 2 for name, column in options.items()}
    assert several.report() == one.update(step([1.0, 2.0, 3.0, 4.0], **together))


def test_a_saved_state_goes_on_as_if_never_stopped():
    first = RewardMonitor(limits=WarningLimits(least_clips=2, repeated=0.1))
    same = {"text": ["x", "x"]}
    with pytest.warns(DescoreWarning, match="50% of the chains repeat"):
        first.update(step([0.0, 1.0], **same))
    second = RewardMonitor(limits=first.limits)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert second.update(step([3.0, 5.0], **same)) == first.update(step([3.0, 5.0], **same))
    assert second.state_dict() == first.state_dict()


@pytest.mark.parametrize("state", [{}, {"steps": [1], "warned": []}, {"steps": [{"rewards": ["x"]}], "warned": []}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ConfigError, match=r"expected that of RewardMonitor\.state_dict"):
        RewardMonitor().load_state_dict(state)


def test_a_window_of_no_steps_is_refused():
    with pytest.raises(ConfigError, match="window is 0, expected 1 or more steps"):
        RewardMonitor(window=0)


def test_threads_lose_no_clip():
    monitor = RewardMonitor(limits=SILENT)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: monitor.add(step([float(index)] * 5)), range(200)))
    report = monitor.report()
    assert (report["descore/clips"], report["descore/reward_mean"]) == (1000, 99.5)


USUAL = {"text": [f"chain {i}" for i in range(8)], "prompt": ["a"] * 4 + ["b"] * 4, "marks": [(2, 1, 2, 1, 2)] * 8}
USUAL["marks"][0] = (1, 1, 1, 1, 1)
SPREAD = [0.0, 1.0, 2.0, 3.0] * 2


@pytest.mark.parametrize(
    ("values", "changed", "message"),
    [
        ([None, *SPREAD[1:], 1.0], {name: [*column, column[-1]] for name, column in USUAL.items()}, "11% of the clips"),
        (SPREAD, {"truncated": [True] * 2 + [False] * 6}, "25% of the chains were cut at their limit"),
        (SPREAD, {"text": ["x"] * 6 + ["y", "z"]}, "62% of the chains repeat another one word for word"),
        ([1.0] * 8, {}, "100% of the groups have equal rewards only"),
        ([1.5, 1.5, 1.5, 2.0] * 2, {}, r"rewards within groups spread by 0\.217, after 1\.12 in earlier steps"),
        (
            SPREAD,
            {"marks": [(None, None, 2, 2, 2), *[(None, None, 2, 2, 1)] * 7]},
            "40% of the marks are N/A",
        ),
        ([10.0, 11.0, 12.0, 13.0] * 2, {}, r"8\.9 deviations away from those of the last 4 steps"),
        (SPREAD, {"marks": [(2, 2, 2, 2, 2)] * 8}, "all 8 answers of the step have the same marks"),
    ],
)
def test_a_sign_is_warned_of_once(values, changed, message):
    monitor = RewardMonitor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            monitor.update(step(SPREAD, **USUAL))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monitor.update(step(values, **{**USUAL, **changed}))
    assert [w for w in caught if w.category is DescoreWarning and re.search(message, str(w.message))]
    assert {w.filename for w in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor.update(step(values, **{**USUAL, **changed}))


def test_a_step_of_few_clips_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RewardMonitor().update(step([1.0] * 7, truncated=[True] * 7, text=["x"] * 7, marks=[(2,) * 5] * 7))


def test_the_reward_function_reports_its_calls(scorer):
    videos, prompts = made_videos(count=3), ["a red ball", "a blue box", "a dog"]
    reward = RewardFunction(scorer, fps=8, monitor=RewardMonitor(), normalize="running")
    means = [reward(videos=videos, prompts=prompts).rewards.mean() for _ in range(2)]
    report = reward.report()
    assert report["descore/clips"] == 6
    assert report["descore/reward_mean"] == pytest.approx(float(sum(means) / 2), abs=1e-6)
    assert (report["descore/groups"], report["descore/failed"]) == (3, 0)
    assert report["descore/repeated_chains"] >= 0.5  # the same clips twice have the same chains
    assert reward.report() == {"descore/clips": 0}


def test_the_state_of_a_reward_function_has_its_monitors(scorer):
    reward = RewardFunction(scorer, fps=8, monitor=RewardMonitor())
    reward(videos=made_videos(count=2), prompts=["a dog", "a cat"])
    reward.report()
    resumed = RewardFunction(scorer, fps=8, monitor=RewardMonitor())
    resumed.load_state_dict(json.loads(json.dumps(reward.state_dict())))
    assert resumed.monitor.state_dict() == reward.monitor.state_dict()
    resumed.load_state_dict(RewardFunction(scorer).state_dict())  # of a run without a monitor
    assert resumed.monitor.state_dict() == reward.monitor.state_dict()


def test_the_adapters_take_a_monitor(scorer):
    monitor = RewardMonitor()
    score = descore_scorer("cpu", model=scorer, fps=8, monitor=monitor)
    scores, _ = score(made_videos(count=2) / 255, ("a dog", "a cat"), ({}, {}))
    report = monitor.report()
    assert (report["descore/clips"], report["descore/reward_mean"]) == (2, pytest.approx(sum(scores) / 2))


def test_the_docs_list_every_figure_and_limit():
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8").split("## What moves")[1]
    monitor = RewardMonitor()
    monitor.update(step(SPREAD, **USUAL, terms={"NAME": SPREAD}))
    figures = {name.removeprefix("descore/") for name in monitor.update(step(SPREAD, **USUAL, terms={"NAME": SPREAD}))}
    rows = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == figures
    limits = WarningLimits()
    shares = [limits.failed, limits.truncated, limits.repeated, limits.undecided]
    assert re.findall(r"over (\d+) %", page) == [f"{100 * share:.0f}" for share in shares]
    assert f"over {limits.distance:g} deviations" in page
    assert f"steps of {limits.least_clips} rewards" in page
    assert f"with {limits.least_steps} earlier steps" in page


def test_a_function_without_a_monitor_names_one(scorer):
    with pytest.raises(ConfigError, match=r"monitor=RewardMonitor\(\)"):
        RewardFunction(scorer).report()
