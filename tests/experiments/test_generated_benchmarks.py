"""The benchmarks of harmed clips, own prompts and reversed motion, and how they are counted."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from experiments.generated.benchmark import (
    ALIGNMENT,
    NAMES,
    TITLES,
    backward,
    directed,
    harmed_judgements,
    is_known,
    judgements_of,
    prompt_judgements,
    reversed_judgements,
    reversed_pair,
)
from experiments.generated.clips import Generated
from experiments.generated.harms import HARMS
from experiments.generated.store import make_store
from experiments.generated.words import NOTHING
from experiments.judged import own_prompt_accuracy, parts, roots_of, table, table_of_parts
from tests.experiments.test_generated import make_source, source, store  # noqa: F401  # fixtures

from descore.errors import ConfigError
from descore.evaluation.results import key_of
from descore.synthetic.splits import Split
from descore.types import Pair, RatedClip


@pytest.fixture(scope="module")
def harmed(store):  # noqa: F811
    return harmed_judgements(store, "test", limit=len(HARMS))


@pytest.mark.slow
def test_each_harm_in_turn_is_worse_than_sound(harmed):
    assert [pair.aspect for pair in harmed.pairs] == list(HARMS)
    for number, pair in enumerate(harmed.pairs):
        sides = {"a": pair.source_a, "b": pair.source_b}
        assert sides.pop(pair.preference["overall"]) == "sound"
        strength, _, name = next(iter(sides.values())).partition(" ")
        assert (name, strength in {"mild", "strong"}) == (pair.aspect, True)
        a, b = harmed.clips[2 * number : 2 * number + 2]
        assert (a.video, b.video, a.source, b.source) == (pair.video_a, pair.video_b, pair.source_a, pair.source_b)
        assert a.group == pair.group in {"e.mp4", "f.mp4"}
        worse = b if a.source == "sound" else a
        assert worse.marks[HARMS[name].acts] == (0 if strength == "strong" else 1)
    assert {pair.source_a == "sound" for pair in harmed.pairs} == {True, False}


@pytest.mark.slow
def test_pairs_do_not_depend_on_labels(source, harmed, tmp_path):  # noqa: F811
    """A store without words.json gives the same prompts and pictures."""
    make_store(source, tmp_path, log=lambda _: None)
    again = harmed_judgements(Generated.open(tmp_path), "test", limit=2)
    for clip, other in zip(harmed.clips[:4], again.clips, strict=True):
        assert (clip.prompt, clip.video) == (other.prompt, other.video)
        assert np.array_equal(harmed.open(clip.video).frames, again.open(clip.video).frames)


def test_a_clip_has_its_own_prompt_and_others(store):  # noqa: F811
    judgements = prompt_judgements(store, "test")
    rows = [(clip.video, clip.prompt, clip.ratings[ALIGNMENT]) for clip in judgements.clips]
    jumping, ship = "labrador jumping", "A steamship on the ocean, at sunset"
    assert sorted(rows) == [
        ("e.mp4", ship, 0.0),
        ("e.mp4", jumping, 1.0),
        ("f.mp4", ship, 1.0),
        ("f.mp4", jumping, 0.0),
    ]
    clip = judgements.open("f.mp4")
    assert (clip.frames.shape[0], clip.source_fps) == (48, pytest.approx(24, rel=0.01))


def test_late_generators_are_preferred_to_early_ones(tmp_path):
    """Of a split: the other split's are not taken."""
    (tmp_path / "source").mkdir()
    made_by = {"h.mp4": "Vchitect/Vchitect-2.0", "d.mp4": "Vchitect/LaVie", "e.mp4": "open-mmlab/PIA"}
    clips = [(name, repository, "", 8) for name, repository in made_by.items()]
    make_store(make_source(tmp_path / "source", clips), tmp_path / "store", log=lambda _: None)
    judgements = judgements_of("eras-choose", tmp_path / "store", limit=4)
    for pair, *sides in zip(judgements.pairs, judgements.clips[::2], judgements.clips[1::2], strict=True):
        by_side = dict(zip("ab", sides, strict=True))
        assert pair.group == "h.mp4"
        assert judgements.open(by_side.pop(pair.preference["overall"]).video).source == "h.mp4"
        assert judgements.open(by_side.popitem()[1].video).source == "d.mp4"
        assert pair.prompt in NOTHING
    assert {pair.preference["overall"] for pair in judgements.pairs} == {"a", "b"}


def test_a_prompt_counts_by_clip():
    """Of two clips with two others each, the first beats one, the second both; equal rewards are no win."""
    rewards = {("x", "own x"): 1.0, ("x", "p"): 0.5, ("x", "q"): 1.0, ("y", "own y"): 2.0, ("y", "p"): 0, ("y", "q"): 1}
    clips = [
        RatedClip(
            prompt=prompt, video=video, group=f"own {video}", ratings={ALIGNMENT: float(prompt == f"own {video}")}
        )
        for video, prompt in rewards
    ]
    records = {key_of(clip): {"reward": rewards[key_of(clip)], "rewards": None} for clip in clips}
    figure = own_prompt_accuracy(SimpleNamespace(clips=clips, records=records))
    assert (figure.value, figure.n, figure.groups) == (0.75, 4, 2)
    assert figure.low == 0.5


def test_harms_count_by_strength_dimension_and_name():
    pairs = [
        Pair(
            prompt="p",
            video_a=f"{number}/a",
            video_b=f"{number}/b",
            preference={"overall": "a"},
            group=str(number),
            source_a="sound",
            source_b=state,
        )
        for number, state in enumerate(("mild melt", "strong melt", "strong cast"))
    ]
    rewards = {"0/a": 0, "0/b": 1, "1/a": 1, "1/b": 0, "2/a": 1, "2/b": 0}
    records = {(video, "p"): {"reward": float(reward), "rewards": None} for video, reward in rewards.items()}
    by_part = parts(SimpleNamespace(pairs=pairs, records=records))
    values = {name: {part: figure["value"] for part, figure in own.items()} for name, own in by_part.items()}
    assert values == {
        "strength": {"mild": 0, "strong": 1},
        "dimension": {"dynamics": 0.5, "style": 1},
        "harm": {"melt": 0.5, "cast": 1},
    }
    assert "| melt | 0.500 [0.000, 1.000], n = 2 |" in table_of_parts(by_part)


def test_a_reversed_clip_shows_the_opposite():
    number = next(directed(Split.IN_DOMAIN))
    pair, mirrored = (reversed_pair(Split.IN_DOMAIN, number, place) for place in (0, 1))
    assert (pair.preference, mirrored.preference) == ("a", "b")
    forward, back = pair.a, pair.b
    assert np.array_equal(forward.clip.frames[::-1], back.clip.frames)
    assert (forward.verdict.marks["dynamics"], back.verdict.marks["dynamics"]) == (2, 1)
    assert forward.verdict.overall > back.verdict.overall
    assert backward(back.shown) == forward.shown != back.shown
    assert forward.prompt == back.prompt


def test_reversed_pairs_are_fifty_at_most():
    judgements = reversed_judgements(limit=3)
    assert len({clip.prompt for clip in judgements.clips}) == len(judgements.pairs) == 3
    assert judgements.open("reversed:1/b").frames.shape == (8, 128, 128, 3)


def test_a_store_is_needed_and_names_are_known():
    with pytest.raises(ConfigError, match="own_prompt: no store of generated clips; make one"):
        judgements_of("own_prompt", None)
    assert set(TITLES) == set(NAMES)
    assert is_known("eras-choose") is is_known("eras") is True
    assert is_known("reversed-choose") is is_known("choose") is False
    options = Namespace(footage=None, generated=None, data=None, only=["generated"], choose=False)
    with pytest.raises(SystemExit, match=r"--only: found generated, expected some of drawn, .*reversed"):
        roots_of(options)
    for choose, name, root in ((False, "reversed", None), (False, "eras", Path("x")), (True, "eras-choose", Path("x"))):
        options = Namespace(footage=None, generated=Path("x"), data=None, only=[name], choose=choose)
        assert roots_of(options) == {name: root}


def test_the_table_has_rows_of_measures():
    figure = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    own = {"reversed": {"pairs": {"overall": figure}, "marks": None}}
    assert table({"on": own, "off": own, "jerk": own}).splitlines()[2:] == [
        "| reversed | 0.500 [0.250, 0.750], n = 8 | 0.500 [0.250, 0.750], n = 8 |  |",
        "| reversed, by jerk | | 0.500 [0.250, 0.750], n = 8 | |",
    ]
