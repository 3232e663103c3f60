"""Real photographs, tested on textures that are drawn here: unpacking, storing and filming. No test is online."""

import hashlib
import io
import itertools
import json
import struct
import subprocess
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experiments.footage import __main__ as command
from experiments.footage import cutouts
from experiments.footage import packages as packages_module
from experiments.footage.camera import LEAST_SCALE, film_photograph, random_path
from experiments.footage.clips import LEAST_DETAIL, LEAST_MOVEMENT, P_PHOTOGRAPH, Footage, detail, movement
from experiments.footage.cutouts import CutOuts
from experiments.footage.examples import footage_example, footage_pair
from experiments.footage.packages import Archive, fetch, packed_folder, qt_files
from experiments.footage.sources import ALBUMS, FILMS, Album
from experiments.footage.store import PHOTOGRAPH_SIDE, make_store
from PIL import Image
from tests.experiments.test_footage import films  # noqa: F401  # a fixture

from descore.errors import ConfigError

pytestmark = pytest.mark.slow

TIMES = tuple(np.arange(8) / 4)


def photograph(seed, size=(480, 360)):
    """Patches of 12 pixels in shades of one colour."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 120, (size[1] // 12, size[0] // 12, 1)) + rng.integers(0, 130, 3)
    return Image.fromarray(small.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def jpeg(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


def resources(folder, files, *, flags=0):
    """A Qt resource file, version 3, with one folder: header, two levels of nodes, names, contents."""
    names, contents = b"", b""
    rows = []
    for name, content in [(folder, None), *files.items()]:
        at_name, at_content = len(names), len(contents)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if content is None:
            rows.append(struct.pack(">IHII", at_name, 2, len(files), 2))
        else:
            packed = struct.pack(">I", len(content)) + zlib.compress(content) if flags else content
            contents += struct.pack(">I", len(packed)) + packed
            rows.append(struct.pack(">IHHHI", at_name, flags, 0, 0, at_content))
    tree = b"".join(row + bytes(8) for row in [struct.pack(">IHII", 0, 2, 1, 1), *rows])
    return (
        struct.pack(">4s5I", b"qres", 3, 24, 24 + len(tree) + len(names), 24 + len(tree), 0) + tree + names + contents
    )


def debian(path, files):
    """A package of Debian: an ar archive of three members, the last with the files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in members.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Eight photographs, one of them large and one not wanted, a small one, a grey one and a text."""
    folder = tmp_path_factory.mktemp("made") / "archives"
    folder.mkdir()
    files = {f"{number}.jpg": jpeg(photograph(number)) for number in range(6)}
    files |= {"large.jpg": jpeg(photograph(6, (960, 1200))), "small.jpg": jpeg(photograph(8, (180, 180)))}
    files |= {"grey.jpg": jpeg(photograph(9).convert("L")), "odd.jpg": jpeg(photograph(7)), "read.me": b"none"}
    path = folder / "views_1.0_all.deb"
    debian(path, {"./share/views.rcc": resources("in", files), "./usr/share/doc/views/copyright": b"drawn here"})
    archive = Archive(
        package="views", version="1.0", file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    return Album(
        name="views",
        title="Views",
        about="a view",
        archive=archive,
        path=("data.tar.xz", "./share/views.rcc", "/in"),
        licence="none",
        credit="drawn here",
        without=("odd",),
    )


@pytest.fixture(scope="module")
def store(album, films, tmp_path_factory):  # noqa: F811
    """The album beside the films of the other tests."""
    folder = tmp_path_factory.mktemp("wide")
    (folder / "archives").mkdir()
    for archives in (films[0], *(p for p in folder.parent.glob("made*/archives") if (p / album.archive.file).exists())):
        for file in archives.iterdir():
            (folder / "archives" / file.name).write_bytes(file.read_bytes())
    make_store(folder, films[1], [album], log=lambda _: None)
    return Footage.open(folder)


@pytest.mark.parametrize("flags", [0, 1])
def test_qt_resources_are_read(flags):
    files = {"a.jpg": b"one", "ü.webp": b"two" * 9}
    found = {path: content() for path, content in qt_files(resources("in", files, flags=flags))}
    assert found == {f"/in/{name}": content for name, content in files.items()}


def test_other_resources_are_refused():
    with pytest.raises(ConfigError, match="found b'RIFF', version 0, expected b'qres'"):
        list(qt_files(b"RIFF" + bytes(20)))
    with pytest.raises(ConfigError, match="Zstandard"):
        [content() for _, content in qt_files(resources("in", {"a": b""}, flags=4))]


def test_colour_photographs_are_kept_small_and_as_they_are(store):
    """Not the unwanted, the small or the grey one; the large one has its short side cut to size."""
    rows = {
        row["name"]: row for row in json.loads((store.folder / "index.json").read_text())["albums"]["views"]["pictures"]
    }
    assert sorted(rows) == ["0", "1", "2", "3", "4", "5", "large"]
    assert (rows["3"]["width"], rows["3"]["height"]) == (480, 360)
    assert (rows["large"]["width"], rows["large"]["height"]) == (PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE * 1200 / 960)
    flat = np.load(store.folder / "views.npy")
    third = flat[rows["3"]["at"] :][: 480 * 360 * 3].reshape(360, 480, 3)
    assert np.abs(third.astype(int) - np.asarray(photograph(3))).mean() < 3  # what JPEG takes
    assert (store.folder / "views.copyright").read_text() == "drawn here"
    assert store.albums["views"].pictures == 7


def test_a_path_never_leaves_the_photograph():
    for seed, within in itertools.product(range(60), ((480, 360), (200, 900), (167, 167))):
        path = random_path(within, (128, 96), times=TIMES, rng=np.random.default_rng(seed))
        half_T2 = path.scale_T[:, None] * (128, 96) / 2
        assert path.scale_T.min() >= LEAST_SCALE - 1e-9
        assert (path.centre_T2 - half_T2).min() > -1e-6
        assert (path.centre_T2 + half_T2 - within).max() < 1e-6


def test_a_path_is_smooth_and_of_human_speed():
    """From step to step, speed changes by little: at most a fiftieth of the frame's short side. A pan crosses at most a
    third of a frame a second, with its ease; it moves at least somewhat where there is room."""
    for seed in range(80):
        path = random_path((2000, 2000), (128, 128), times=TIMES, rng=np.random.default_rng(seed))
        way_T2 = np.diff(path.centre_T2 / (128 * path.scale_T.mean()), axis=0)
        growth_T = np.diff(np.log(path.scale_T))
        assert np.abs(np.diff(way_T2, axis=0)).max() < 0.02
        assert np.linalg.norm(way_T2, axis=1).max() < 0.3 * 1.35 / 4
        assert np.abs(growth_T).max() < 0.2 * 1.35 / 4
        assert np.abs(way_T2).max() > 0.0005 or np.abs(growth_T).max() > 0.005


def test_frames_move_between_pixels(monkeypatch):
    """A pan by 0.4 pixels a frame over waves of 48 pixels: their phase turns as evenly, in two whole waves of 96."""
    wave_W = 128 + 100 * np.sin(2 * np.pi * np.arange(240) / 48)
    waves = np.broadcast_to(np.rint(wave_W).astype(np.uint8)[None, :, None], (200, 240, 3))
    path = random_path((240, 200), (64, 64), times=TIMES, rng=np.random.default_rng(1))
    centre_T2 = np.stack([100 + 0.4 * np.arange(8), np.full(8, 100)], axis=1)
    monkeypatch.setattr(
        "experiments.footage.camera.random_path",
        lambda *_, **__: replace(path, centre_T2=centre_T2, scale_T=np.full(8, 1.5)),
    )
    frames = film_photograph(waves, (64, 64), times=TIMES, rng=np.random.default_rng(0))
    assert frames.shape == (8, 64, 64, 3)
    turning_W = np.exp(-2j * np.pi * 1.5 * np.arange(64) / 48)
    phase_T = np.angle(frames.mean(axis=(1, 3)) @ turning_W)
    assert np.allclose(np.diff(np.unwrap(phase_T)) * 48 / (2 * np.pi), 0.4, atol=0.05)  # as weights are rounded


def test_training_clips_are_photographs_at_the_given_rate(store):
    clips = [store.window("train", rng=np.random.default_rng(seed), pixels=64 * 64) for seed in range(60)]
    filmed = [clip for clip in clips if clip.source.startswith("views at ")]
    assert abs(len(filmed) / len(clips) - P_PHOTOGRAPH) < 0.2
    assert len({clip.source for clip in filmed}) == 7
    for clip in filmed:
        assert clip.frames.shape == (8, 64, 64, 3)
        assert clip.frames.flags.c_contiguous
        assert detail(clip.frames) >= LEAST_DETAIL
        assert movement(clip.frames) >= LEAST_MOVEMENT
        assert store.about(clip) == "a view"


def test_test_clips_do_not_depend_on_photographs(store, films, tmp_path):  # noqa: F811
    (tmp_path / "archives").symlink_to(films[0])
    make_store(tmp_path, films[1], log=lambda _: None)
    plain = Footage.open(tmp_path)
    for index in range(6):
        one, other = (footage_pair(which, "test", index, pixels=4096) for which in (store, plain))
        assert one.a.clip.source == other.a.clip.source
        assert np.array_equal(one.a.clip.frames, other.a.clip.frames)
        assert (one.preference, one.b.chain) == (other.preference, other.b.chain)


def test_a_store_without_albums_opens_and_gets_them(store, album, films, tmp_path):  # noqa: F811
    (tmp_path / "archives").symlink_to(store.folder / "archives")
    make_store(tmp_path, films[1], log=lambda _: None)
    index = json.loads((tmp_path / "index.json").read_text())
    del index["albums"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert Footage.open(tmp_path).albums == {}
    lines = []
    make_store(tmp_path, films[1], [album], log=lines.append)
    assert lines == ["decoding the album Views"]
    assert Footage.open(tmp_path).albums.keys() == {"views"}


def test_photographs_are_degraded_as_films_are(store):
    examples = [footage_example(store, "train", index, pixels=4096) for index in range(40)]
    filmed = [example for example in examples if example.clip.source.startswith("views at ")]
    assert {tuple(flaw.harms for flaw in example.flaws) for example in filmed} >= {(), ("motion",), ("picture",)}
    again = footage_example(store, "train", 3, pixels=4096)
    assert np.array_equal(examples[3].clip.frames, again.clip.frames)


def test_apt_fetches_what_is_missing(album, store, tmp_path, monkeypatch):
    def apt(command, *, cwd, **_):
        assert command == ["apt-get", "download", "views=1.0"]
        content = (store.folder / "archives" / album.archive.file).read_bytes()
        (Path(cwd) / album.archive.file).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "W: as root")

    monkeypatch.setattr(packages_module.shutil, "which", lambda _: "apt-get")
    monkeypatch.setattr(packages_module.subprocess, "run", apt)
    lines = []
    fetch([album.archive], tmp_path, log=lines.append)
    assert lines == ["fetching views_1.0_all.deb with apt-get"]
    assert [path.name for path in packed_names(album, tmp_path)][:2] == ["0.jpg", "1.jpg"]


def packed_names(album, folder):
    return [Path(name) for name, _ in packed_folder(album.archive, album.path, folder)]


def test_without_apt_the_error_names_a_way_out(album, tmp_path, monkeypatch):
    monkeypatch.setattr(packages_module.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=r"apt-get.*not found.*--no-photographs.*put them into"):
        fetch([album.archive], tmp_path, log=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_apt_is_passed_on(album, tmp_path, monkeypatch):
    stderr = "W: as root\nE: Version '1.0' for 'views' was not found\n"
    monkeypatch.setattr(packages_module.shutil, "which", lambda _: "apt-get")
    monkeypatch.setattr(
        packages_module.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 100, "", stderr)
    )
    with pytest.raises(ConfigError, match=r"apt-get cannot fetch views_1.0_all.deb: E: Version .*yourself"):
        fetch([album.archive], tmp_path, log=lambda _: None)


def test_the_command_takes_photographs_by_default(album, store, films, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(command, "FILMS", films[1])
    monkeypatch.setattr(command, "ALBUMS", (album,))
    cut_outs = []
    monkeypatch.setattr(command, "make_cut_outs", lambda folder, **_: cut_outs.append(folder))
    (tmp_path / "archives").symlink_to(store.folder / "archives")
    command.main(["--out", str(tmp_path), "--no-photographs"])
    assert "Views" not in capsys.readouterr().out
    assert cut_outs == []
    command.main(["--out", str(tmp_path)])
    assert cut_outs == [tmp_path]
    assert "Views: 7 photographs; drawn here; licence: none" in capsys.readouterr().out.splitlines()


def test_named_photographs_become_cut_outs(tmp_path, monkeypatch):
    """Of the stamps, those with a cover, of a wanted kind, large enough, and named by their text."""
    disc = Image.new("RGBA", (120, 90), (200, 100, 0, 255))
    disc.putpixel((0, 0), (0, 0, 0, 0))

    def png(picture):
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()

    stamps = {
        "animals/duck": (disc, "A duck.\nEine Ente"),
        "animals/large": (disc.resize((960, 720)), "An owl, at night."),
        "animals/small": (disc.resize((60, 45)), "A mouse."),
        "animals/opaque": (disc.convert("RGB"), "A dog."),
        "animals/unnamed": (disc, "Boom!"),
        "symbols/one": (disc, "A one."),
    }
    root = "./usr/share/tuxpaint/stamps"
    files = {f"{root}/{name}.png": png(picture) for name, (picture, _) in stamps.items()}
    files |= {f"{root}/{name}.txt": text.encode() for name, (_, text) in stamps.items()}
    files["./usr/share/doc/stamps/copyright"] = b"drawn here"
    (tmp_path / "archives").mkdir()
    path = tmp_path / "archives" / "stamps_1.0_all.deb"
    debian(path, files)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    archive = Archive(package="stamps", version="1.0", file=path.name, sha256=digest)
    monkeypatch.setattr(cutouts, "TUX_PAINT", archive)
    monkeypatch.setattr(cutouts, "_COPYRIGHT", ("data.tar.xz", "./usr/share/doc/stamps/copyright"))
    for _ in range(2):  # a second time there is nothing to do
        lines = []
        cutouts.make_cut_outs(tmp_path, log=lines.append)
    assert lines == []
    made = CutOuts(tmp_path)
    assert [row.name for row in (*made.rows["test"], *made.rows["train"])] == ["a duck", "an owl"]
    assert made.picture(made.rows["test"][0]).tobytes() == disc.tobytes()
    assert made.picture(made.rows["train"][0]).size == (320, 240)
    assert (tmp_path / "stamps.copyright").read_bytes() == b"drawn here"


def test_a_store_without_cut_outs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cutouts.json: not found; add cut-outs to the store"):
        CutOuts(tmp_path)


def test_the_committed_albums_have_names_of_their_own():
    names = [row.name for row in (*ALBUMS, *FILMS)]
    assert len(set(names)) == len(names)
    assert all(len(album.archive.sha256) == 64 and album.archive.client == "apt-get" for album in ALBUMS)
