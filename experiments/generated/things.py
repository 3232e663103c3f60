"""Coarse classes of things, and the words by which a prompt or a label names them.

A class is all that eyes trained on ImageNet can be asked for honestly: an animal, not which one. Places are no things:
they say what a prompt asks of the environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

THINGS: Mapping[str, str] = MappingProxyType(
    {
        "an animal": "animal cat kitten dog puppy corgi labrador retriever terrier spaniel bear panda lion "
        "tiger elephant horse unicorn cow sheep goat pig camel deer fox wolf rabbit bunny "
        "squirrel raccoon monkey gorilla kangaroo koala zebra giraffe rhinoceros hippopotamus "
        "mouse rat hamster frog lizard snake turtle tortoise crocodile dinosaur dragon bee "
        "butterfly insect spider ant beetle snail antelope buffalo leopard cheetah otter beaver "
        "bird duck mallard goose swan flamingo parrot owl eagle hawk penguin chicken hen rooster "
        "peacock pigeon crow sparrow finch pelican heron ostrich turkey hummingbird fish shark "
        "whale dolphin jellyfish octopus crab lobster seal goldfish starfish koi",
        "a person": "person people man woman girl boy child kid couple guy guys baby lady face model musician "
        "dancer hiker firefighter fireman soldier warrior police officer guard astronaut spaceman "
        "adventurer player surfer skier groom bride swimmer diver farmer chef crowd samurai "
        "madonna singer 1girl 1man",
        "a robot": "robot cyborg stormtrooper hulk superhero goku alien monster android transformer",
        "a toy": "teddy toy doll puppet origami lego",
        "a vehicle": "car jeep truck bus taxi motorbike motorcycle bicycle bike scooter tank tractor train "
        "locomotive tram vehicle minivan ambulance limousine cooper porsche wagon trailer",
        "a boat": "boat ship steamship sailboat yacht canoe ferry gondola submarine catamaran schooner",
        "an aircraft": "airplane plane aircraft helicopter rocket spaceship balloon airship jet airliner",
        "a building": "building house castle palace church mosque temple tower skyscraper lighthouse bridge "
        "drawbridge monastery stupa barn monument pyramid colosseum dome hut cottage "
        "arch fortress dam boathouse",
        "a plant": "flower rose peony daisy tulip plant mushroom leaf cactus petal blossom maple tree palm "
        "acorn fungus",
        "food": "food fruit apple banana orange raspberries strawberry lemon cake bread pizza burger soup "
        "ice-cream salad vegetable meal pretzel bagel cup coffee tea wine",
        "an instrument": "guitar piano violin drum drums cello flute trumpet saxophone accordion harp organ veena "
        "harmonica banjo instrument",
        "a machine": "machine mechanism gears engine computer laptop phone camera washer clock hourglass "
        "turbine projector printer television radio telescope",
        "a celestial body": "planet galaxy nebula",
        "fire": "fireworks explosion explode fire flame candle volcano smoke burning lava",
    }
)
"""Words of each class."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _labels(names: str) -> frozenset[str]:
    return frozenset(names.split(","))


LABELS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "a vehicle": _labels(
            "ambulance,beach wagon,bicycle-built-for-two,bullet train,cab,convertible,"
            "electric locomotive,fire engine,freight car,garbage truck,go-kart,golfcart,half track,"
            "harvester,horse cart,jeep,jinrikisha,limousine,minibus,minivan,Model T,moped,"
            "motor scooter,mountain bike,moving van,oxcart,passenger car,pickup,police van,racer,"
            "recreational vehicle,school bus,snowmobile,snowplow,sports car,steam locomotive,streetcar,"
            "tank,thresher,tow truck,tractor,trailer truck,tricycle,trolleybus"
        ),
        "a boat": _labels(
            "aircraft carrier,canoe,catamaran,container ship,fireboat,gondola,lifeboat,liner,pirate,"
            "schooner,speedboat,submarine,trimaran,wreck,yawl"
        ),
        "an aircraft": _labels("airliner,airship,balloon,space shuttle,warplane,wing"),
        "a building": _labels(
            "barn,beacon,bell cote,boathouse,castle,church,cliff dwelling,dome,megalith,monastery,"
            "mosque,obelisk,palace,steel arch bridge,stupa,suspension bridge,triumphal arch,viaduct,"
            "water tower,yurt"
        ),
        "an instrument": _labels(
            "accordion,acoustic guitar,banjo,bassoon,cello,cornet,drum,electric guitar,flute,"
            "French horn,gong,grand piano,harmonica,harp,maraca,marimba,oboe,ocarina,organ,panpipe,"
            "sax,steel drum,trombone,upright,violin"
        ),
        "a toy": _labels("teddy"),
        "fire": _labels("volcano"),
    }
)
"""Names of ImageNet's labels of each class, but for those in RANGES."""
RANGES: Mapping[str, range] = MappingProxyType(
    {"an animal": range(398), "food": range(924, 970), "a plant": range(985, 998)}
)
"""Numbers of ImageNet's labels of a class, first to last but one."""
_NO_FOOD = "hay"


def class_of_label(number: int, name: str) -> str:
    """The class of one of ImageNet's labels; empty if it is of none."""
    if name == _NO_FOOD:
        return ""
    by_number = (thing for thing, numbers in RANGES.items() if number in numbers)
    return next(by_number, next((thing for thing, names in LABELS.items() if name in names), ""))


KNOWN_ABSENT = frozenset(("an animal", "a person", "a robot", "a toy", "a vehicle", "a boat", "an aircraft", "food"))
"""Classes of which a prompt that does not name them can be trusted that they are not shown; others may stand behind."""
BY_LABEL = frozenset(("an animal", "a vehicle", "a boat", "an aircraft", "food", "an instrument"))
"""Those of which ImageNet's labels tell whether they are shown: people have none."""
ALIKE = frozenset((("a person", "a robot"), ("a toy", "an animal"), ("a toy", "a person"), ("a robot", "a toy")))
"""Classes that one thing may be of."""

PLACES = _set(
    "beach sea ocean lake river pond forest jungle rainforest woods mountain mountains cliff hill valley desert "
    "sand sands canyon island shore coast sky cloud clouds space moon mars road street city town village park "
    "garden lawn pasture field meadow snow antarctica room office kitchen stage pool underwater water waterfall "
    "sunset sunrise night landscape nature outdoors indoors square market station table"
)
"""Words by which a prompt asks for a place or a light."""
CAMERA = _set(
    "camera drone zoom zoom-in zoom-out dolly pan panning shot view close-up closeup orbit cinematic aerial angle "
    "handheld tracking"
)
"""Words by which a prompt asks something of the camera."""
EMPTY = _set(
    "a an the some of and with in on at is are to from for by video clip footage photo photograph picture film 4k "
    "2k 8k hd uhd short high low quality resolution highly detailed ultra realistic hyperrealistic style painting "
    "oil art cinematic slow motion smooth movement movements beautiful nice very something someone abstraction "
    "animation"
)
"""Words that ask for nothing to be seen."""

_WORD = re.compile(r"[a-z0-9][a-z0-9'-]*")
_TEDDY = re.compile(r"teddy bears?", re.IGNORECASE)
_CLASS = {word: name for name, words in THINGS.items() for word in words.split()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a clip shows, as far as it is known."""

    things: tuple[str, ...]
    """Classes, the main thing first; at least one."""
    by_prompt: bool
    """Whether the clip's own prompt says so, or else labels."""

    def has(self, thing: str) -> bool | None:
        """Whether a thing of this class is shown; None where that cannot be known."""
        if thing in self.things:
            return True
        known = KNOWN_ABSENT if self.by_prompt else BY_LABEL
        return False if thing in known and not any(alike(thing, shown) for shown in self.things) else None


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=4096)
def things_in(text: str) -> tuple[str, ...]:
    """Classes of the things that a text names, in the order of their first mention; at most two."""
    words = words_of(_TEDDY.sub("teddy", text))
    named = (_CLASS.get(word) or _CLASS.get(_singular(word)) for word in words)
    return tuple(dict.fromkeys(name for name in named if name))[:2]


def names_any(text: str, words: frozenset[str]) -> bool:
    """Whether a text has one of these words."""
    return any(word in words or _singular(word) in words for word in words_of(text))


def asks_for_something(text: str) -> bool:
    """Whether a text has a word that asks for something to be seen."""
    return any(word not in EMPTY and word not in CAMERA and word not in PLACES for word in words_of(text))


def _singular(word: str) -> str:
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending) + instead
    return word


def alike(one: str, other: str) -> bool:
    """Whether a thing of one class may be taken for one of the other."""
    return one == other or (one, other) in ALIKE or (other, one) in ALIKE
