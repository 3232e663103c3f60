"""Real photographs that arrive inside packages: where they are, whose they are, and which are of use.

A table: it knows nothing of archives' formats or of frames."""

from dataclasses import dataclass

from descore.world.packages import Archive

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
class Album:
    """The photographs under one folder of an archive. All of them are for training."""

    name: str
    title: str
    about: str
    """A true description, in a few words, of each."""
    archive: Archive
    path: tuple[str, ...]
    """Of the folder: archives in the archive, and the folder in the last."""
    licence: str
    credit: str
    without: tuple[str, ...] = ()
    """Names, without their endings, of pictures that are no sound photographs of a scene."""

    @property
    def copyright_path(self) -> tuple[str, ...]:
        """Where the archive, a package of Debian, says who owns what."""
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
"""What has no scene, such as tools before a white ground, and what is soft, such as fish under water, is left out."""
