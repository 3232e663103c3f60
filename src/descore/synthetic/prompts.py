"""Prompts for drawn scenes, in many wordings.

Each value has wordings that training uses and wordings that it never does, and so have sentence forms: a test of the
held-out ones shows whether a model understands prompts or memorised phrases. Held-out wordings combine words of
training prompts in other ways, since no model can know a word that it never met. A prompt that does not ask for a
number has to say so ("one or more red circles"): "a red circle" asks for one."""

import re
from dataclasses import dataclass
from enum import Enum

import numpy as np

from descore.synthetic.scene import (
    ATTRIBUTES,
    MOVING_ACTIONS,
    Action,
    Camera,
    Colour,
    Count,
    Light,
    RequestedAttributes,
    Scene,
    Setting,
    Shape,
    Size,
    Speed,
    Style,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wordings:
    """Wordings of one value."""

    known: tuple[str, ...]
    """Used by training prompts."""
    held_out: tuple[str, ...]
    """Used by test prompts only."""

    def draw(self, rng: np.random.Generator, *, held_out: bool) -> str:
        """One of them, uniformly."""
        options = self.held_out if held_out else self.known
        return options[int(rng.integers(len(options)))]


def _wordings(*known: str, new: tuple[str, ...]) -> Wordings:
    return Wordings(known=known, held_out=new)


WORDINGS: dict[Enum, Wordings] = {
    Shape.CIRCLE: _wordings("circle", "disc", "ball", new=("round ball", "disc shape")),
    Shape.SQUARE: _wordings("square", "box", "block", new=("square box", "block shape")),
    Shape.TRIANGLE: _wordings("triangle", "wedge", "triangular shape", new=("triangle shape", "triangular wedge")),
    Shape.STAR: _wordings("star", "star shape", "five-pointed star", new=("star figure", "five-pointed shape")),
    Shape.CROSS: _wordings("cross", "cross shape", "plus sign", new=("plus shape", "cross sign")),
    Colour.RED: _wordings("red", "bright red", "scarlet", new=("red-coloured", "scarlet red")),
    Colour.ORANGE: _wordings("orange", "bright orange", "tangerine", new=("orange-coloured", "tangerine orange")),
    Colour.YELLOW: _wordings("yellow", "bright yellow", "lemon", new=("yellow-coloured", "lemon yellow")),
    Colour.GREEN: _wordings("green", "bright green", "grass-coloured", new=("green-coloured", "grass green")),
    Colour.BLUE: _wordings("blue", "bright blue", "azure", new=("blue-coloured", "azure blue")),
    Colour.PURPLE: _wordings("purple", "bright purple", "violet", new=("purple-coloured", "violet purple")),
    Colour.WHITE: _wordings("white", "pure white", "snow-coloured", new=("white-coloured", "snow white")),
    Size.SMALL: _wordings("small", "little", "tiny", new=("small-sized", "really little")),
    Size.LARGE: _wordings("large", "big", "huge", new=("large-sized", "really big")),
    Count.ONE: _wordings("a", "one", "a single", new=("just one", "exactly one")),
    Count.TWO: _wordings("two", "2", "a pair of", new=("just two", "exactly two")),
    Count.THREE: _wordings("three", "3", "a trio of", new=("just three", "exactly three")),
    Action.STILL: _wordings(
        "standing still", "not moving", "staying in place", new=("staying still", "standing in place")
    ),
    Action.LEFT: _wordings(
        "moving left",
        "gliding to the left",
        "drifting left",
        new=("gliding left", "moving to the left"),
    ),
    Action.RIGHT: _wordings(
        "moving right",
        "gliding to the right",
        "drifting right",
        new=("gliding right", "moving to the right"),
    ),
    Action.UP: _wordings("moving up", "rising", "drifting upwards", new=("gliding up", "moving upwards")),
    Action.DOWN: _wordings("moving down", "sinking", "drifting downwards", new=("gliding down", "moving downwards")),
    Action.BOUNCE: _wordings(
        "bouncing",
        "falling and bouncing back",
        "dropping to the ground and springing up again",
        new=("dropping and bouncing up again", "falling and springing back"),
    ),
    Action.APPEAR: _wordings(
        "appearing",
        "suddenly showing up",
        "popping into view",
        new=("suddenly appearing", "coming into view"),
    ),
    Action.VANISH: _wordings(
        "vanishing",
        "disappearing",
        "going away all at once",
        new=("suddenly vanishing", "disappearing all at once"),
    ),
    Action.CHANGE: _wordings(
        "changing colour",
        "turning another colour",
        "switching to a different colour",
        new=("changing to a different colour", "switching colour"),
    ),
    Speed.SLOW: _wordings("slowly", "at low speed", "at a slow pace", new=("in a slow way", "with low speed")),
    Speed.FAST: _wordings("fast", "quickly", "at high speed", new=("in a fast way", "with high speed")),
    Camera.STILL: _wordings(
        "the camera is still", "fixed camera", "static shot", new=("the shot is static", "camera staying fixed")
    ),
    Camera.PAN_LEFT: _wordings(
        "the camera pans left",
        "camera panning to the left",
        "a pan to the left",
        new=("panning left", "the shot pans to the left"),
    ),
    Camera.PAN_RIGHT: _wordings(
        "the camera pans right",
        "camera panning to the right",
        "a pan to the right",
        new=("panning right", "the shot pans to the right"),
    ),
    Camera.ZOOM_IN: _wordings(
        "the camera zooms in", "zoom in", "closing in", new=("camera zooming in", "the shot closes in")
    ),
    Camera.ZOOM_OUT: _wordings(
        "the camera zooms out", "zoom out", "pulling back", new=("camera zooming out", "the shot pulls back")
    ),
    Camera.SHAKE: _wordings(
        "the camera shakes",
        "shaky camera",
        "camera shake",
        new=("shaking camera", "the shot shakes"),
    ),
    Setting.NIGHT_SKY: _wordings(
        "in the night sky",
        "against a starry sky",
        "before a sky full of stars",
        new=("before the night sky", "under the stars of the sky"),
    ),
    Setting.MEADOW: _wordings(
        "on a meadow", "in a grassy field", "on green grass", new=("on a green field", "in the grass of a meadow")
    ),
    Setting.BEACH: _wordings(
        "on a beach", "on the sand", "at a sandy shore", new=("on a sandy beach", "on the sand of a shore")
    ),
    Setting.SEA: _wordings(
        "on the sea", "over the waves", "on the open ocean", new=("over the open sea", "on the waves of the sea")
    ),
    Setting.BRICK_WALL: _wordings(
        "in front of a brick wall",
        "before a wall of bricks",
        "against a brick wall",
        new=("against a wall of bricks", "with a brick wall behind"),
    ),
    Light.DAY: _wordings("in daylight", "in bright light", "brightly lit", new=("lit brightly", "in bright daylight")),
    Light.DUSK: _wordings(
        "at dusk", "at twilight", "in the evening light", new=("in twilight", "in the light of dusk")
    ),
    Style.FLAT: _wordings("flat colours", "flat design", "flat graphics", new=("flat look", "designed flat")),
    Style.OUTLINED: _wordings("outlined", "drawn in outline", "line art", new=("only outlines", "outlined art")),
    Style.SKETCHED: _wordings("pencil sketch", "hand-drawn", "sketched", new=("drawn by hand", "sketched in pencil")),
    Style.PIXELATED: _wordings(
        "pixel art", "pixelated", "made of large pixels", new=("pixelated art", "built of pixels")
    ),
    Style.GREY: _wordings(
        "in black and white", "greyscale", "without colour", new=("black and white film", "in greyscale colours")
    ),
}
"""Wordings of each value. Nouns are in the singular, actions are participles."""

_SOME_SHAPE = _wordings("shape", "figure", "form", new=("object", "item"))
_SOME_NUMBER = _wordings("one or more", "one or several", "any number of", new=("at least one", "one or many"))
_NOTHING = _wordings(
    "a drawing",
    "a short clip",
    "an animation",
    "a video",
    "something to look at",
    new=("some footage", "a moving picture"),
)
_SINGULAR = frozenset({*WORDINGS[Count.ONE].known, *WORDINGS[Count.ONE].held_out, "at least one"})
_NOT_BY_NIGHT = frozenset({"in daylight", "in bright daylight"})

# A fragment is left out if its slot is empty.
_FORMS = (
    ("{thing}", " {doing}", " {place}", " {light}", ", {style}", ", {camera}"),
    ("{style}: ", "{thing}", " {doing}", " {place}", " {light}", ", {camera}"),
    ("{camera}: ", "{thing}", " {place}", " {light}", " {doing}", ", {style}"),
    ("a video of {thing}", " {doing}", " {place}", " {light}", ", {camera}", ", {style}"),
    ("{place}", " {light}", ", {thing}", " {doing}", ". {camera}", ". {style}", "."),
    ("{thing}", ", {doing}", ", {place}", ", {light}", ", {camera}", ", {style}"),
)
_HELD_OUT_FORMS = (
    ("imagine {thing}", " {doing}", " {place}", " {light}", "; {camera}", "; {style}"),
    ("{style} / ", "{camera} / ", "{light} / ", "{thing}", " {doing}", " {place}"),
    ("please render {thing}", " {light}", " {place}", " {doing}", ". {camera}", ". {style}", "."),
    ("{place}", " {light}", " we watch {thing}", " {doing}", " ({camera})", " ({style})"),
)

_PARTS = ("{thing}", "{doing}", "{place}", "{light}", "{style}", "{camera}")
_JOINTS = (", ", ". ", " ", ": ")
_TWICE = frozenset({"shape", "colour", "action", "setting", "light", "style", "camera"})
_P_TWICE, _P_DROP, _P_ADD = 0.2, 0.3, 0.1
# Words that may be dropped, and words without meaning that may be added.
_LITTLE = frozenset({"to", "the", "is", "of"})
_EMPTY = re.findall(r"\w+", "very quite simply clearly nicely some indeed here now maybe kind well nice")

_SLOT = re.compile(r"\{(\w+)\}")


def write_prompt(
    scene: Scene, request: RequestedAttributes, rng: np.random.Generator, *, held_out: bool = False, loose: bool = False
) -> str:
    """A prompt that asks for these attributes of the scene; an empty request gives one without content.

    held_out: in words and sentence forms that no training prompt has. loose: for training; the parts come in any order
    with any separator, some twice in different words, little words are dropped and empty words added, so that a model
    learns the parts instead of whole sentences. ValueError for both at once."""
    if held_out and loose:
        raise ValueError("loose prompts use training's words, so they cannot be held out")
    if not request:
        return _NOTHING.draw(rng, held_out=held_out)
    if loose:
        return _loose_prompt(scene, request, rng)
    words = {name: _word(scene, name, rng, held_out) if name in request else "" for name in ATTRIBUTES}
    forms = _HELD_OUT_FORMS if held_out else _FORMS
    return _assemble(forms[int(rng.integers(len(forms)))], _slots(scene, words, rng, held_out))


def _slots(scene: Scene, words: dict[str, str], rng: np.random.Generator, held_out: bool) -> dict[str, str]:
    return {
        "thing": _thing(words, rng, held_out),
        "doing": f"{words['action']} {words['speed']}".strip() if scene.action in MOVING_ACTIONS else words["action"],
        "place": words["setting"],
        "light": words["light"],
        "camera": words["camera"],
        "style": words["style"],
    }


def with_article(words: str) -> str:
    """'a red circle', 'an orange circle'."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(noun: str) -> str:
    """'circles', 'crosses'."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def _word(scene: Scene, name: str, rng: np.random.Generator, held_out: bool) -> str:
    """A random wording of an attribute; none that asks for a night sky in daylight."""
    while True:
        word = WORDINGS[getattr(scene, name)].draw(rng, held_out=held_out)
        if scene.setting is not Setting.NIGHT_SKY or word not in _NOT_BY_NIGHT:
            return word


def _thing(words: dict[str, str], rng: np.random.Generator, held_out: bool) -> str:
    noun = words["shape"] or _SOME_SHAPE.draw(rng, held_out=held_out)
    number = words["count"] or _SOME_NUMBER.draw(rng, held_out=held_out)
    phrase = [words["size"], words["colour"], noun if number in _SINGULAR else plural(noun)]
    thing = " ".join(word for word in phrase if word)
    return with_article(thing) if number == "a" else f"{number} {thing}"


def _loose_prompt(scene: Scene, request: RequestedAttributes, rng: np.random.Generator) -> str:
    """Drawn again if the prompt happens to hold a held-out wording."""
    while True:
        words = {name: _word_once_or_twice(scene, name, rng) if name in request else "" for name in ATTRIBUTES}
        joints = [_JOINTS[int(each)] for each in rng.integers(len(_JOINTS), size=len(_PARTS))]
        order = rng.permutation(len(_PARTS))
        form = tuple(joint + _PARTS[int(part)] for joint, part in zip(joints, order, strict=True))
        prompt = _loosen(_assemble(form, _slots(scene, words, rng, held_out=False)), rng)
        if not _HELD_OUT.search(prompt):
            return prompt


def _word_once_or_twice(scene: Scene, name: str, rng: np.random.Generator) -> str:
    words = [_word(scene, name, rng, held_out=False) for _ in range(1 + (name in _TWICE and rng.random() < _P_TWICE))]
    return " ".join(dict.fromkeys(words))


def _loosen(prompt: str, rng: np.random.Generator) -> str:
    """Drop little words and add empty ones."""
    words: list[str] = []
    for word in prompt.split():
        if word in _LITTLE and rng.random() < _P_DROP:
            continue
        words += [_EMPTY[int(rng.integers(len(_EMPTY)))]] if rng.random() < _P_ADD else []
        words.append(word)
    return " ".join(words)


_HELD_OUT = re.compile(
    rf"(?<![\w-])({'|'.join(re.escape(new) for both in WORDINGS.values() for new in both.held_out)})(es|s)?(?![\w-])",
    re.IGNORECASE,
)


def _assemble(form: tuple[str, ...], slots: dict[str, str]) -> str:
    kept = [part for part in form if all(slots[name] for name in _SLOT.findall(part))]
    text = "".join(kept).format(**slots).lstrip(" ,;.:")
    if not text.endswith("."):
        return text
    return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in text.split(". "))
