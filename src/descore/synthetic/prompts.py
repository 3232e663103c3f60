"""Prompts for drawn scenes, as people put them: many wordings of the same wish.

In: a scene, what of it is asked, a random generator. Out: a prompt. Knows values and words; knows nothing of pixels or
marks.

Each value has wordings that training uses and wordings that it never does, and so have whole sentences: a test of the
held-out ones asks whether a model understood what was meant or learned phrases by heart. They put words of the training
prompts together in other ways: what a word means that it never met, no model can know. A prompt that asks nothing about
the number says so ("one or more red circles"): "a red circle" asks for one."""

import re
from dataclasses import dataclass
from enum import Enum

import numpy as np

from descore.synthetic.scene import (
    KINDS,
    MOVES,
    Action,
    Camera,
    Colour,
    Count,
    Light,
    Request,
    Scene,
    Setting,
    Shape,
    Size,
    Speed,
    Style,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wordings:
    """Ways to say the same."""

    known: tuple[str, ...]
    """What training prompts say."""
    held_out: tuple[str, ...]
    """What only test prompts say."""

    def draw(self, rng: np.random.Generator, *, held_out: bool) -> str:
        """One of them, each as likely."""
        options = self.held_out if held_out else self.known
        return options[int(rng.integers(len(options)))]


def _say(*known: str, new: tuple[str, ...]) -> Wordings:
    return Wordings(known=known, held_out=new)


WORDINGS: dict[Enum, Wordings] = {
    Shape.CIRCLE: _say("circle", "disc", "ball", new=("round ball", "disc shape")),
    Shape.SQUARE: _say("square", "box", "block", new=("square box", "block shape")),
    Shape.TRIANGLE: _say("triangle", "wedge", "triangular shape", new=("triangle shape", "triangular wedge")),
    Shape.STAR: _say("star", "star shape", "five-pointed star", new=("star figure", "five-pointed shape")),
    Shape.CROSS: _say("cross", "cross shape", "plus sign", new=("plus shape", "cross sign")),
    Colour.RED: _say("red", "bright red", "scarlet", new=("red-coloured", "scarlet red")),
    Colour.ORANGE: _say("orange", "bright orange", "tangerine", new=("orange-coloured", "tangerine orange")),
    Colour.YELLOW: _say("yellow", "bright yellow", "lemon", new=("yellow-coloured", "lemon yellow")),
    Colour.GREEN: _say("green", "bright green", "grass-coloured", new=("green-coloured", "grass green")),
    Colour.BLUE: _say("blue", "bright blue", "azure", new=("blue-coloured", "azure blue")),
    Colour.PURPLE: _say("purple", "bright purple", "violet", new=("purple-coloured", "violet purple")),
    Colour.WHITE: _say("white", "pure white", "snow-coloured", new=("white-coloured", "snow white")),
    Size.SMALL: _say("small", "little", "tiny", new=("small-sized", "really little")),
    Size.LARGE: _say("large", "big", "huge", new=("large-sized", "really big")),
    Count.ONE: _say("a", "one", "a single", new=("just one", "exactly one")),
    Count.TWO: _say("two", "2", "a pair of", new=("just two", "exactly two")),
    Count.THREE: _say("three", "3", "a trio of", new=("just three", "exactly three")),
    Action.STILL: _say("standing still", "not moving", "staying in place", new=("staying still", "standing in place")),
    Action.LEFT: _say(
        "moving left",
        "gliding to the left",
        "drifting left",
        new=("gliding left", "moving to the left"),
    ),
    Action.RIGHT: _say(
        "moving right",
        "gliding to the right",
        "drifting right",
        new=("gliding right", "moving to the right"),
    ),
    Action.UP: _say("moving up", "rising", "drifting upwards", new=("gliding up", "moving upwards")),
    Action.DOWN: _say("moving down", "sinking", "drifting downwards", new=("gliding down", "moving downwards")),
    Action.BOUNCE: _say(
        "bouncing",
        "falling and bouncing back",
        "dropping to the ground and springing up again",
        new=("dropping and bouncing up again", "falling and springing back"),
    ),
    Action.APPEAR: _say(
        "appearing",
        "suddenly showing up",
        "popping into view",
        new=("suddenly appearing", "coming into view"),
    ),
    Action.VANISH: _say(
        "vanishing",
        "disappearing",
        "going away all at once",
        new=("suddenly vanishing", "disappearing all at once"),
    ),
    Action.CHANGE: _say(
        "changing colour",
        "turning another colour",
        "switching to a different colour",
        new=("changing to a different colour", "switching colour"),
    ),
    Speed.SLOW: _say("slowly", "at low speed", "at a slow pace", new=("in a slow way", "with low speed")),
    Speed.FAST: _say("fast", "quickly", "at high speed", new=("in a fast way", "with high speed")),
    Camera.STILL: _say(
        "the camera is still", "fixed camera", "static shot", new=("the shot is static", "camera staying fixed")
    ),
    Camera.PAN_LEFT: _say(
        "the camera pans left",
        "camera panning to the left",
        "a pan to the left",
        new=("panning left", "the shot pans to the left"),
    ),
    Camera.PAN_RIGHT: _say(
        "the camera pans right",
        "camera panning to the right",
        "a pan to the right",
        new=("panning right", "the shot pans to the right"),
    ),
    Camera.ZOOM_IN: _say(
        "the camera zooms in", "zoom in", "closing in", new=("camera zooming in", "the shot closes in")
    ),
    Camera.ZOOM_OUT: _say(
        "the camera zooms out", "zoom out", "pulling back", new=("camera zooming out", "the shot pulls back")
    ),
    Camera.SHAKE: _say(
        "the camera shakes",
        "shaky camera",
        "camera shake",
        new=("shaking camera", "the shot shakes"),
    ),
    Setting.NIGHT_SKY: _say(
        "in the night sky",
        "against a starry sky",
        "before a sky full of stars",
        new=("before the night sky", "under the stars of the sky"),
    ),
    Setting.MEADOW: _say(
        "on a meadow", "in a grassy field", "on green grass", new=("on a green field", "in the grass of a meadow")
    ),
    Setting.BEACH: _say(
        "on a beach", "on the sand", "at a sandy shore", new=("on a sandy beach", "on the sand of a shore")
    ),
    Setting.SEA: _say(
        "on the sea", "over the waves", "on the open ocean", new=("over the open sea", "on the waves of the sea")
    ),
    Setting.BRICK_WALL: _say(
        "in front of a brick wall",
        "before a wall of bricks",
        "against a brick wall",
        new=("against a wall of bricks", "with a brick wall behind"),
    ),
    Light.DAY: _say("in daylight", "in bright light", "brightly lit", new=("lit brightly", "in bright daylight")),
    Light.DUSK: _say("at dusk", "at twilight", "in the evening light", new=("in twilight", "in the light of dusk")),
    Style.FLAT: _say("flat colours", "flat design", "flat graphics", new=("flat look", "designed flat")),
    Style.OUTLINED: _say("outlined", "drawn in outline", "line art", new=("only outlines", "outlined art")),
    Style.SKETCHED: _say("pencil sketch", "hand-drawn", "sketched", new=("drawn by hand", "sketched in pencil")),
    Style.PIXELATED: _say("pixel art", "pixelated", "made of large pixels", new=("pixelated art", "built of pixels")),
    Style.GREY: _say(
        "in black and white", "greyscale", "without colour", new=("black and white film", "in greyscale colours")
    ),
}
"""What a prompt says for each value. Things are named in the singular, and what they do by a participle."""

_SOME_SHAPE = _say("shape", "figure", "form", new=("object", "item"))
_SOME_NUMBER = _say("one or more", "one or several", "any number of", new=("at least one", "one or many"))
_NOTHING = _say(
    "a drawing",
    "a short clip",
    "an animation",
    "a video",
    "something to look at",
    new=("some footage", "a moving picture"),
)
_SINGULAR = frozenset({*WORDINGS[Count.ONE].known, *WORDINGS[Count.ONE].held_out, "at least one"})
_NOT_BY_NIGHT = frozenset({"in daylight", "in bright daylight"})

# A fragment stays out where its slot is empty.
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
_P_TWICE, _P_LACKS, _P_BETWEEN = 0.2, 0.3, 0.1
# Words that may lack, and words that say nothing; none of them makes a held-out wording of another.
_LITTLE = frozenset({"to", "the", "is", "of"})
_EMPTY = re.findall(r"\w+", "very quite simply clearly nicely some indeed here now maybe kind well nice")

_SLOT = re.compile(r"\{(\w+)\}")


def write_prompt(
    scene: Scene, request: Request, rng: np.random.Generator, *, held_out: bool = False, loose: bool = False
) -> str:
    """What a user may write who asks for this much of the scene. A request of nothing gives a prompt that tells
    nothing. held_out: in words and sentences that no training prompt has. loose: for training, the parts come in any
    order and are joined in any way, some are said twice in other words, little words lack, and words come between that
    say nothing: so that a part is known by what it says, not by its place or as a whole. ValueError if they are
    to be held out, too."""
    if held_out and loose:
        raise ValueError("loose prompts are in training's words, so they cannot be held out")
    if not request:
        return _NOTHING.draw(rng, held_out=held_out)
    if loose:
        return _loosely(scene, request, rng)
    said = {name: _word(scene, name, rng, held_out) if name in request else "" for name in KINDS}
    forms = _HELD_OUT_FORMS if held_out else _FORMS
    return _assemble(forms[int(rng.integers(len(forms)))], _slots(scene, said, rng, held_out))


def _slots(scene: Scene, said: dict[str, str], rng: np.random.Generator, held_out: bool) -> dict[str, str]:
    return {
        "thing": _thing(said, rng, held_out),
        "doing": f"{said['action']} {said['speed']}".strip() if scene.action in MOVES else said["action"],
        "place": said["setting"],
        "light": said["light"],
        "camera": said["camera"],
        "style": said["style"],
    }


def with_article(words: str) -> str:
    """'a red circle', 'an orange circle'."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(noun: str) -> str:
    """'circles', 'crosses'."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


def _word(scene: Scene, name: str, rng: np.random.Generator, held_out: bool) -> str:
    """The night sky may be as bright as day, but no one asks for it in daylight."""
    while True:
        word = WORDINGS[getattr(scene, name)].draw(rng, held_out=held_out)
        if scene.setting is not Setting.NIGHT_SKY or word not in _NOT_BY_NIGHT:
            return word


def _thing(said: dict[str, str], rng: np.random.Generator, held_out: bool) -> str:
    noun = said["shape"] or _SOME_SHAPE.draw(rng, held_out=held_out)
    number = said["count"] or _SOME_NUMBER.draw(rng, held_out=held_out)
    words = [said["size"], said["colour"], noun if number in _SINGULAR else plural(noun)]
    thing = " ".join(word for word in words if word)
    return with_article(thing) if number == "a" else f"{number} {thing}"


def _loosely(scene: Scene, request: Request, rng: np.random.Generator) -> str:
    """Drawn again where a held-out wording comes about."""
    while True:
        said = {name: _once_or_twice(scene, name, rng) if name in request else "" for name in KINDS}
        joints = [_JOINTS[int(each)] for each in rng.integers(len(_JOINTS), size=len(_PARTS))]
        order = rng.permutation(len(_PARTS))
        form = tuple(joint + _PARTS[int(part)] for joint, part in zip(joints, order, strict=True))
        prompt = _loosened(_assemble(form, _slots(scene, said, rng, held_out=False)), rng)
        if not _HELD_OUT.search(prompt):
            return prompt


def _once_or_twice(scene: Scene, name: str, rng: np.random.Generator) -> str:
    words = [_word(scene, name, rng, held_out=False) for _ in range(1 + (name in _TWICE and rng.random() < _P_TWICE))]
    return " ".join(dict.fromkeys(words))


def _loosened(prompt: str, rng: np.random.Generator) -> str:
    """Little words left out, empty ones put in."""
    found: list[str] = []
    for word in prompt.split():
        if word in _LITTLE and rng.random() < _P_LACKS:
            continue
        found += [_EMPTY[int(rng.integers(len(_EMPTY)))]] if rng.random() < _P_BETWEEN else []
        found.append(word)
    return " ".join(found)


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
