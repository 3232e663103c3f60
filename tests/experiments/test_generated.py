"""Generated clips: the store, splits, windows, harms, truth and examples, on clips that are drawn here."""

import csv
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experiments.generated import __main__ as command
from experiments.generated.clips import MOST_UNEVEN, Generated, Sources, encoded, sampled, unevenness
from experiments.generated.examples import APART, Examples, training_pair
from experiments.generated.harms import FAINT, HARMS, STRONG, VISIBLE, harmed, mark_of, measured
from experiments.generated.labels import label_names, named_by, row_of
from experiments.generated.store import EARLY, LATE, SPLITS, make_store, read_index, read_table
from experiments.generated.things import THINGS, Shown, asks_for_something, class_of_label, things_in
from experiments.generated.truth import AppliedHarm, Request, Truth
from experiments.generated.words import FILE, NOTHING, Words
from tests.experiments.test_footage import scene
from tests.video.films import write_film

from descore.errors import ConfigError, DataError
from descore.rubric import read_answer

PACKAGE = Path(command.__file__).parent
CLIPS = (
    ("a.mp4", "showlab/MotionDirector", "An elephant is running in a forest", 8),
    ("b.mp4", "THUDM/CogVideo", "A truck is running past the arch", 16),
    ("c.mp4", "SooLab/Free-Bloom", "", 8),
    ("d.mp4", "Vchitect/LaVie", "a cat reading a book on the table", 8),
    ("e.mp4", "open-mmlab/PIA", "labrador jumping", 8),
    ("f.mp4", "YBYBZhang/ControlVideo", "A steamship on the ocean, at sunset", 24),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Six clips of 2 s, of 180 x 120 pixels, at rates of their own."""
    return make_source(tmp_path_factory.mktemp("generated"), CLIPS)


def make_source(folder, clips):
    """Write the clips, and their table."""
    (folder / "clips").mkdir()
    for number, (name, _, _, rate) in enumerate(clips):
        write_film(str(folder / "clips" / name), scene(number, 2 * rate, speed=3), rate=rate, crf=18)
    with (folder / "generated.csv").open("w", newline="") as file:
        table = csv.DictWriter(
            file, ("clip", "repository", "licence", "generator", "prompt", "pair", "role"), restval=""
        )
        table.writeheader()
        for name, repository, prompt, _ in clips:
            table.writerow({"clip": name, "repository": repository, "licence": "MIT", "prompt": prompt})
    return folder


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    make_store(source, folder, log=lambda _: None)
    items = {"c.mp4": {"things": ["a vehicle"], "name": "a pickup truck"}}
    (folder / FILE).write_text(json.dumps({"schema": 1, "items": items}))
    return Generated.open(folder)


@pytest.fixture(scope="module")
def train(store):
    return Examples(Sources(store), Words.open(store), "train", pixels=96 * 96)


def change(before, after):
    """Mean change in levels."""
    return np.abs(before.astype(int) - after).mean()


def breaks(before, after):
    """Steps from a frame to one that is not the next."""
    shown = [int(np.abs(before.astype(int) - frame).mean(axis=(1, 2, 3)).argmin()) for frame in after]
    return int((np.diff(shown) != 1).sum())


@pytest.fixture(scope="module")
def clip():
    """16 frames of a drifting texture, 128 x 96 pixels."""
    return np.stack(scene(7, 16, speed=3))[:, :96, :128]


def test_the_splits_are_by_repository_and_family():
    with (PACKAGE / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(SPLITS) == len(rows) == 31
    assert sum(int(row["clips"]) for row in rows) == 375
    families = {(row["family"], row["split"]) for row in rows}
    assert len({family for family, _ in families}) == len(families)
    by_split = {split: sum(int(row["clips"]) for row in rows if row["split"] == split) for split in SPLITS.values()}
    assert by_split == {"train": 228, "choose": 46, "test": 101}
    for split in by_split:  # each has late and early generators, and none is both
        assert all({name for name in era if SPLITS[name] == split} for era in (EARLY, LATE))
    assert not EARLY & LATE


@pytest.mark.slow
def test_things_are_named_by_files_albums_and_labels():
    names = label_names()
    classes = [class_of_label(number, name) for number, name in enumerate(names)]
    assert (classes[names.index("tiger")], classes[names.index("hay")], classes[names.index("yawl")]) == (
        "an animal",
        "",
        "a boat",
    )
    jeep = np.where(np.array(names) == "jeep", 0.6, 0).astype(np.float32)
    assert row_of("X__one_0.mp4", jeep, classes, names) == {"things": ["a vehicle"], "name": "a jeep"}
    assert row_of("X__one_0.mp4", 0.5 * jeep, classes, names) == {"things": [], "name": ""}
    assert row_of("X__fox_snow.mp4", jeep, classes, names) == {"things": ["an animal"], "name": ""}
    assert row_of("wild-animals at red_panda", jeep, classes, names)["name"] == "a red panda"
    assert named_by("X__camera_pan.mp4") == ()
    assert named_by("monuments at egypt/greatPyramidOfGiza") == ("a building",)


def test_frames_keep_their_size_rate_and_times(store):
    clip = next(clip for clip in store.clips["test"] if clip.name == "f.mp4")
    frames = store.frames(clip)
    assert frames.shape == (48, 120, 180, 3)
    assert clip.times == pytest.approx([number / 24 for number in range(48)], abs=1e-3)
    for number in (0, 20, 47):
        assert np.abs(frames[number].astype(int) - scene(5, 48, speed=3)[number]).mean() < 6
    assert [clip.name for clip in store.clips["choose"]] == ["d.mp4"]


def test_a_store_resumes_and_goes_through_pickle(source, store, tmp_path):
    done = []
    make_store(source, tmp_path, log=done.append)
    assert len(done) == 6
    (tmp_path / "SooLab-Free-Bloom.npy").unlink()
    index = read_index(tmp_path)
    del index["repositories"]["SooLab/Free-Bloom"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    make_store(source, tmp_path, log=done.append)
    assert done[6:] == ["decoding SooLab/Free-Bloom"]
    again = pickle.loads(pickle.dumps(store))
    assert again.clips == store.clips


def test_wrong_folders_are_named(source, tmp_path):
    with pytest.raises(ConfigError, match=r"generated\.csv: not found, expected the table"):
        read_table(tmp_path)
    with pytest.raises(ConfigError, match=r"index\.json: not found, expected a store"):
        Generated.open(tmp_path)
    text = (source / "generated.csv").read_text()
    (tmp_path / "generated.csv").write_text(text.replace("SooLab/Free-Bloom", "new/one"))
    with pytest.raises(DataError, match=r"4: 'new/one' has no split"):
        read_table(tmp_path)
    (tmp_path / "generated.csv").write_text(text)
    with pytest.raises(SystemExit, match=r"a\.mp4: cannot be read"):
        command.main(["--clips", str(tmp_path), "--out", str(tmp_path / "store")])


def test_the_command_prints_splits_and_licences(source, tmp_path, capsys):
    command.main(["--clips", str(source), "--out", str(tmp_path), "--no-labels"])
    printed = capsys.readouterr().out
    assert "train: 3 clips, 6 s, 2 with prompts, of 3 repositories" in printed
    assert "open-mmlab/PIA: 1; licence: MIT" in printed


def test_windows_that_jump_are_not_plain(train):
    window = train.sources.window("train", rng=np.random.default_rng(3), pixels=96 * 96)
    frames = window.clip.frames.copy()
    frames[len(frames) // 2 :] //= 4
    assert unevenness(window.clip.frames) < 2 < MOST_UNEVEN < unevenness(frames)
    assert not replace(window, clip=replace(window.clip, frames=frames)).plain
    assert not replace(window, plain_source=False).plain


def test_windows_are_sampled_as_a_model_samples(train):
    for number in range(20):
        window = train.sources.window("train", rng=np.random.default_rng(number), pixels=96 * 96)
        shape = window.clip.frames.shape
        assert 4 <= shape[0] <= 16
        assert {edge % 32 for edge in shape[1:3]} == {0}
        assert shape[1] * shape[2] <= 96 * 96
        assert len(window.clip.times) == shape[0]
        assert list(window.clip.times) == sorted(set(window.clip.times))
        assert window.item in {"a.mp4", "b.mp4", "c.mp4"}


def test_no_frame_is_sampled_twice():
    times = tuple(number / 6 for number in range(7))
    for seed in range(30):
        chosen = sampled(times, frames=16, rng=np.random.default_rng(seed))
        assert len(set(chosen)) == len(chosen) >= 4
        assert set(chosen) <= set(range(7))


def test_the_encoder_keeps_what_is_shown(clip):
    light, heavy = (np.abs(encoded(clip, crf=crf).astype(int) - clip).mean() for crf in (16, 27))
    assert light < heavy < 8
    assert encoded(clip, crf=20).shape == clip.shape


@pytest.mark.parametrize("name", HARMS)
def test_a_harm_is_its_seeds_and_grows(clip, name):
    """Strength 0 is untouched; the same seed gives the same frames, another one others where there is chance."""
    assert harmed(clip, name, strength=0, seed=1) is clip
    before = clip.copy()
    weak, strong = (harmed(clip, name, strength=strength, seed=1) for strength in (0.3, 1.0))
    assert np.array_equal(clip, before)
    assert weak.shape == clip.shape
    assert weak.dtype == np.uint8
    assert np.array_equal(weak, harmed(clip, name, strength=0.3, seed=1))
    amount = breaks if name == "jump" else change
    assert 0 < amount(clip, weak) < amount(clip, strong)
    assert 0 < measured(clip, weak) < measured(clip, strong) + 1
    assert measured(clip, strong) >= VISIBLE[HARMS[name].acts]
    chance = any(not np.array_equal(strong, harmed(clip, name, strength=1.0, seed=seed)) for seed in range(2, 8))
    assert chance == (name not in {"smooth", "sharpen", "blocks", "soften"})


@pytest.mark.parametrize("name", [name for name, row in HARMS.items() if row.acts == "style"])
def test_a_harm_of_style_shows_in_every_frame(clip, name):
    after = harmed(clip, name, strength=0.8, seed=3)
    assert all(measured(clip[t : t + 1], after[t : t + 1]) > 4 for t in range(len(clip)))


@pytest.mark.parametrize("name", ["jump", "freeze", "flicker", "shake"])
def test_harms_of_time_keep_single_frames(clip, name):
    """A jump shows frames of the clip alone; a freeze and a shake leave a clip that stands still nearly as it is."""
    after = harmed(clip, name, strength=0.8, seed=3)
    still = np.repeat(clip[:1], len(clip), axis=0)
    if name == "jump":
        assert all((frame == clip).all(axis=(1, 2, 3)).any() for frame in after)
    if name in {"jump", "freeze"}:
        assert np.array_equal(harmed(still, name, strength=0.8, seed=3), still)
    assert not np.array_equal(after, clip)


@pytest.mark.parametrize("name", ["melt", "morph", "boil"])
def test_what_is_moved_stays_sharp(clip, name):
    """A soft picture would give the harm away; smoothing as strong takes a third of the sharpness."""
    sharp = mean_step(clip)
    assert mean_step(harmed(clip, name, strength=0.35, seed=0)) > 0.93 * sharp
    assert mean_step(harmed(clip, "soften", strength=0.35, seed=0)) < 0.7 * sharp


def mean_step(frames):
    """Mean |second difference| along rows, as far as textures go, in levels."""
    return np.abs(np.diff(frames.astype(int), n=2, axis=2)).mean()


def test_wrong_harms_are_named(clip):
    with pytest.raises(ConfigError, match=r"found 'melts', expected one of .*did you mean 'melt'"):
        harmed(clip, "melts", strength=0.5, seed=0)
    with pytest.raises(ConfigError, match=r"found strength 1\.5, expected 0 to 1"):
        harmed(clip, "melt", strength=1.5, seed=0)
    with pytest.raises(ConfigError, match="expected uint8"):
        harmed(clip.astype(float), "melt", strength=0.5, seed=0)


def test_marks_follow_the_strength():
    assert [mark_of(strength) for strength in (0, FAINT - 0.01, FAINT, STRONG - 0.01, STRONG, 1)] == [2, 2, 1, 1, 0, 0]
    assert AppliedHarm(name="melt", strength=0.1).words == "smooth"


def test_prompts_name_things():
    assert things_in("A panda is riding a bicycle in a garden") == ("an animal", "a vehicle")
    assert things_in("Two ponies and butterflies") == ("an animal",)
    assert not any(asks_for_something(prompt) for prompt in NOTHING)
    assert Request.of("Abstraction, smooth movements").subject is False
    assert Request.of("boiling water").subject is True
    assert len({word for words in THINGS.values() for word in words.split()}) == sum(
        len(words.split()) for words in THINGS.values()
    )


def test_what_is_not_named_by_labels_stays_unknown():
    """Labels know no people; a prompt that does not name a building does not say that there is none."""
    by_label, by_prompt = (Shown(things=("an animal",), by_prompt=each) for each in (False, True))
    assert [by_label.has(thing) for thing in ("an animal", "a vehicle", "a person")] == [True, False, None]
    assert [by_prompt.has(thing) for thing in ("a person", "a building", "a toy")] == [False, None, None]


def test_a_true_chain_by_hand():
    truth = Truth(
        shown=Shown(things=("an animal",), by_prompt=True),
        request=Request.of("A cat drives a car on the beach"),
        harms=(AppliedHarm(name="melt", strength=0.3), AppliedHarm(name="cast", strength=0.9)),
    )
    assert truth.chain().splitlines() == [
        "I see footage of an animal. The picture is badly discoloured. The motion is slightly melting.",
        "Subject: asked an animal and a vehicle, shown an animal, an animal right, a vehicle wrong: partly right, 1.",
        "Dynamics: motion slightly melting: partly right, 1.",
        "Camera: not asked, N/A.",
        "Environment: cannot be known, N/A.",
        "Style: picture badly discoloured: wrong, 0.",
        '<answer>{"dimensional_scores": {"subject": 1, "dynamics": 1, "camera": "N/A", "environment": "N/A", '
        '"style": 0}, "overall_score": 2.60}</answer>',
    ]
    assert truth.verdict().unknown == ("environment",)


def test_unknown_is_told_from_not_asked():
    unknown = Truth(shown=None, request=Request.of("a cat"), harms=())
    nothing = Truth(shown=None, request=Request.of("a video"), harms=())
    assert "Subject: cannot be known, N/A." in unknown.chain()
    assert "Subject: not asked, N/A." in nothing.chain()
    assert (unknown.verdict().unknown, nothing.verdict().unknown) == (("subject",), ())


def test_examples_are_their_numbers_and_true(train):
    for number in range(10):
        example = train.example(number)
        verdict = read_answer(example.chain)
        assert verdict == example.verdict
        assert verdict.unknown == example.verdict.unknown
        for harm in example.harms:
            assert verdict.marks[harm.acts] == mark_of(harm.strength)
            assert harm.words in example.chain
    again = train.example(9)
    assert np.array_equal(again.clip.frames, example.clip.frames)
    assert (again.prompt, again.chain) == (example.prompt, example.chain)


@pytest.mark.slow
def test_pairs_prefer_the_better_by_a_margin(train):
    kinds = set()
    for number in range(24):
        pair = train.pair(number)
        made = training_pair(pair, number=number)
        difference = float(made.rating_a_K[0] - made.rating_b_K[0])
        assert np.sign(difference) == made.preference_K[0] != 0
        assert abs(difference) >= APART - 1e-6
        kinds.add((pair.a.item == pair.b.item, pair.a.prompt == pair.b.prompt))
    assert kinds == {(True, True), (True, False), (False, True)}


@pytest.mark.slow
def test_a_wrong_prompt_is_of_other_things(train):
    for number in range(24):
        pair = train.pair(number)
        if pair.a.prompt != pair.b.prompt:
            better, worse = (pair.a, pair.b) if pair.preference == "a" else (pair.b, pair.a)
            assert set(things_in(better.prompt)).isdisjoint(things_in(worse.prompt))
            assert worse.verdict.marks["subject"] in (0, None)
            assert better.verdict.marks["subject"] == 2


def test_no_path_of_a_machine_is_committed():
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in {".py", ".md", ".csv"}:
            text = path.read_text()
            assert not any(f"/{top}/" in text for top in ("work", "home", "root", "tmp")), path.name
