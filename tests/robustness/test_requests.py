"""Whatever a request to the scorer holds, it has a score or an error in its place, and the others go on."""

import gc
import json
import math
import weakref

import numpy as np
import pytest
from typer import Exit

from descore import ConfigError, Request, Score, Scorer, VideoError
from descore.cli.output import print_ranking, print_scores
from descore.cli.scoring import end_start_up
from descore.errors import DescoreError
from descore.evaluation.judges import ModelJudge
from descore.evaluation.records import to_line, to_record
from descore.scorer import SamplingParams
from descore.types import Completion, RatedClip
from tests.conftest import build_micro, noise_clip

PROMPT = "a red ball"
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def scorer():
    model = build_micro()
    model.settings = model.settings.model_copy(update={"trained_on": "a test"})
    return Scorer(model, name="micro", batch_size=2)


def frames_at(fps):
    return Request(video=FRAMES, prompt=PROMPT, fps=fps)


def with_prompt(prompt):
    return (noise_clip(1), prompt)


NO_PROMPT = "the prompt is of type .*; expected the text"
NO_FPS = "fps must be a positive number of frames per second"

WRONG = [
    (with_prompt(None), NO_PROMPT),
    (with_prompt(math.nan), NO_PROMPT),
    (with_prompt(7), NO_PROMPT),
    (with_prompt(b"a red ball"), NO_PROMPT),
    (with_prompt([PROMPT]), NO_PROMPT),
    (with_prompt(" \n"), "the prompt is empty"),
    (with_prompt("a \ud800 ball"), r"U\+D800, half a surrogate pair, as character 3"),
    (with_prompt("ball \udcff"), "byte 0xff, which is not UTF-8, as character 6"),
    (None, "a request is of type NoneType"),
    (7, "a request is of type int"),
    ("ab", "a request is of type str"),
    ((noise_clip(1),), "a request is of type tuple of 1"),
    ((noise_clip(1), PROMPT, 8), "a request is of type tuple of 3"),
    (frames_at(None), "give their fps"),
    (frames_at("8"), f"{NO_FPS}.*got '8'"),
    (frames_at([1]), rf"{NO_FPS}.*got \[1\]"),
    (frames_at(5e-324), f"{NO_FPS}.*got 4.94066e-324"),
    (frames_at(1e300), NO_FPS),
    (frames_at(10**400), f"{NO_FPS}.*a whole number of 1329 bits"),
    (frames_at(10**5000), f"{NO_FPS}.*a whole number of"),
    (frames_at(math.nan), f"{NO_FPS}.*got nan"),
    (frames_at(math.inf), f"{NO_FPS}.*got inf"),
    (frames_at(-8), f"{NO_FPS}.*got -8"),
    (frames_at(0), f"{NO_FPS}.*got 0"),
    (frames_at(True), f"{NO_FPS}.*got True"),
    (Request(video=noise_clip(1), prompt=PROMPT, fps="8"), "fps='8' given, but a clip has its times"),
]


@pytest.mark.parametrize(("wrong", "reason"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_request_has_its_error_in_its_place(scorer, wrong, reason):
    first, error, last = scorer.score_each([with_prompt(PROMPT), wrong, with_prompt(PROMPT)], think="off")
    with pytest.raises(ConfigError, match=reason):
        raise error
    assert len(str(error)) < 160
    assert "\n" not in str(error)
    assert first.reward == pytest.approx(last.reward, abs=1e-5)
    with pytest.raises(ConfigError, match=reason):
        scorer.score_batch([wrong], think="off")


def test_an_fps_for_all_is_checked_for_each(scorer):
    requests = [(FRAMES, PROMPT), frames_at(8), (noise_clip(0), PROMPT)]
    results = list(scorer.score_each(requests, think="off", fps="8"))
    assert [type(result) for result in results] == [ConfigError, Score, ConfigError]


@pytest.mark.parametrize("fps", [8, 8.0, np.float32(8), np.int64(8)])
def test_numbers_of_all_kinds_are_an_fps(scorer, fps):
    assert scorer.read(frames_at(fps)).times == scorer.read(frames_at(8)).times


@pytest.mark.parametrize("fps", [1e-6, 1e6])
def test_the_bounds_of_fps_can_be_scored(scorer, fps):
    assert math.isfinite(scorer.score(FRAMES, prompt=PROMPT, fps=fps, think="off").reward)


def test_an_evaluation_goes_on_behind_a_wrong_prompt(scorer, monkeypatch):
    monkeypatch.setattr(ModelJudge, "config", {})
    judge = ModelJudge(scorer=scorer, sampling_params=SamplingParams(think="off"))
    clips = [RatedClip(prompt=prompt, video="v", group="g") for prompt in (PROMPT, "\ud800", PROMPT)]
    records = judge.judge(clips, open_video=lambda _: noise_clip(0).frames)
    assert ["fps" in (record["error"] or "") for record in records] == [True, False, True]
    records = judge.judge(clips, open_video=lambda _: noise_clip(0))
    assert [record["error"] is None for record in records] == [True, False, True]
    assert "half a surrogate pair" in records[1]["error"]


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-308, 1e-300, 1e-30])
def test_a_tiny_temperature_takes_the_likeliest_token(scorer, temperature):
    likeliest = scorer.score(noise_clip(0), prompt=PROMPT, temperature=0)
    drawn = scorer.score(noise_clip(0), prompt=PROMPT, temperature=temperature)
    assert drawn.typical.token_ids == likeliest.typical.token_ids
    assert drawn.reward == pytest.approx(likeliest.reward, abs=1e-5)


@pytest.mark.parametrize(
    "options", [{"samples": 1.5}, {"temperature": math.inf}, {"temperature": math.nan}, {"temperature": "1"}]
)
def test_parameters_that_are_no_numbers_are_refused(scorer, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        scorer.score(noise_clip(0), prompt=PROMPT, **options)


def score_of(clip, reward=0.0):
    completion = {"token_ids": [1], "text": "", "truncated": False, "verdict": None, "flaw": None}
    only = Completion(**completion, rewards={"overall": reward})
    return Score(clip=clip, prompt=PROMPT, model="m", reward=reward, score=None, std=None, completions=(only,))


def test_printed_scores_are_not_kept(capsys):
    alive = []

    def results():
        for number in range(4):
            clip = noise_clip(number)
            alive.append(weakref.ref(clip.frames))
            yield score_of(clip)
            del clip
            assert sum(ref() is not None for ref in alive) <= 2

    print_scores(results(), clips=["v"] * 4, prompt=PROMPT, model="m", json=True)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_ranking_keeps_no_pixels(capsys):
    alive = []

    def results():
        for number in range(3):
            clip = noise_clip(number)
            alive.append(weakref.ref(clip.frames))
            yield score_of(clip, reward=float(number))
            del clip
            assert sum(ref() is not None for ref in alive) <= 2

    print_ranking(results(), clips=["x", "y", "z"], prompt=PROMPT, model="m", json=True)
    assert [json.loads(line)["video"] for line in capsys.readouterr().out.splitlines()] == ["z", "y", "x"]


def test_a_score_without_frames_is_the_same_otherwise():
    score = score_of(noise_clip(0, width=64), reward=1.0)
    kept = score.without_frames()
    assert (kept.to_dict(), kept.clip.size, kept.clip.frames.size) == (score.to_dict(), (64, 32), 0)
    assert "<img" in score._repr_html_()
    assert "<img" not in kept._repr_html_()


@pytest.mark.parametrize("error", [ConfigError("no"), VideoError("v", "no")])
def test_every_error_is_a_failure_when_printed(error, capsys):
    results: list[Score | DescoreError] = [score_of(noise_clip(0)), error]
    for show in (print_scores, print_ranking):
        with pytest.raises(Exit) as exit_:
            show(iter(results), clips=["a", "b"], prompt=PROMPT, model="m", json=False)
        assert exit_.value.exit_code == VideoError.exit_code
        assert "scored 1 of 2; not scored:" in capsys.readouterr().err
    assert json.loads(to_line(to_record(error, video="b", prompt=PROMPT, model="m")))["error"] == "no"


def test_pictures_in_cycles_do_not_gather():
    """PyAV's frame and its side data hold each other: what start-up's thresholds would keep is let go of in time."""

    class Picture:
        def __init__(self):
            self.side_data = [self]

    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 20)  # as the command line starts up
    try:
        end_start_up()
        alive = [weakref.ref(Picture()) for _ in range(20_000)]
        assert sum(picture() is not None for picture in alive) <= 2_000
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
