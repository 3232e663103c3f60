"""True marks, verdicts, chains and preferences of drawn clips, from the asked scene, the shown scene and its flaws.

A chain is short and regular: it describes everything that is visible before it mentions the prompt, and compares part
by part before it marks the whole."""

from typing import Literal

from descore.rubric import overall_of, write_answer
from descore.synthetic.degradations import SOUND, Harms
from descore.synthetic.generators import Flaws
from descore.synthetic.prompts import plural
from descore.synthetic.scene import (
    MOVING_ACTIONS,
    Action,
    Camera,
    Count,
    Light,
    RequestedAttributes,
    Scene,
    Setting,
    Speed,
    Style,
)
from descore.types import DIMENSIONS, Mark, Preference, Verdict

_PLACES = {
    Setting.NIGHT_SKY: "in the night sky",
    Setting.MEADOW: "on a meadow",
    Setting.BEACH: "on a beach",
    Setting.SEA: "on the sea",
    Setting.BRICK_WALL: "in front of a brick wall",
}
_LIGHTS = {Light.DAY: "in bright light", Light.DUSK: "at dusk"}
_STYLES = {style: style.value for style in Style} | {Style.GREY: "without colour"}
_DOING = {
    Action.STILL: ("stands still", "stand still"),
    Action.LEFT: ("moves left", "move left"),
    Action.RIGHT: ("moves right", "move right"),
    Action.UP: ("moves up", "move up"),
    Action.DOWN: ("moves down", "move down"),
    Action.BOUNCE: ("bounces", "bounce"),
    Action.APPEAR: ("appears", "appear"),
    Action.VANISH: ("vanishes", "vanish"),
    Action.CHANGE: ("changes colour", "change colour"),
}
_SPEEDS = {Speed.SLOW: "slowly", Speed.FAST: "fast"}
_FILMING = {
    Camera.STILL: "is still",
    Camera.PAN_LEFT: "pans left",
    Camera.PAN_RIGHT: "pans right",
    Camera.ZOOM_IN: "zooms in",
    Camera.ZOOM_OUT: "zooms out",
    Camera.SHAKE: "shakes",
}
_OPPOSITE = {
    Camera.PAN_LEFT: Camera.PAN_RIGHT,
    Camera.PAN_RIGHT: Camera.PAN_LEFT,
    Camera.ZOOM_IN: Camera.ZOOM_OUT,
    Camera.ZOOM_OUT: Camera.ZOOM_IN,
}
_LOOKS = ("count", "size", "colour", "shape")
_PLACE = ("setting", "light")
_HARMED: dict[str, Harms] = {"dynamics": "motion", "style": "picture"}
_IN_WORDS = {2: "right", 1: "partly right", 0: "wrong"}


def true_verdict(asked: Scene, shown: Scene, request: RequestedAttributes, flaws: Flaws = ()) -> Verdict:
    """The true marks and the overall that follows from them."""
    marks = true_marks(asked, shown, request, flaws)
    return Verdict(marks=marks, overall=overall_of(marks))


def true_preference(a: Verdict, b: Verdict) -> Preference:
    """The clip with the better overall, or a tie."""
    if a.overall == b.overall:
        return "tie"
    return "a" if a.overall > b.overall else "b"


def true_marks(asked: Scene, shown: Scene, request: RequestedAttributes, flaws: Flaws = ()) -> dict[str, Mark]:
    """Subject and environment: 2 if every asked attribute is right, 0 if none is, else 1. Dynamics: 1 for another move
    or speed than asked, 0 for another kind of action. Camera: 1 for the opposite direction. Style: 2 or 0.

    A mild flaw of the motion limits dynamics to 1, a strong one to 0; flaws of the picture limit style likewise. These
    two are marked even if the prompt does not ask for them; the others are None then."""
    marks = (
        _part(asked, shown, request, _LOOKS),
        min(_dynamics(asked, shown, request), _at_most(flaws, "motion")),
        _camera(asked, shown) if "camera" in request else None,
        _part(asked, shown, request, _PLACE),
        min(_style(asked, shown, request), _at_most(flaws, "picture")),
    )
    return dict(zip(DIMENSIONS, marks, strict=True))


def true_chain(asked: Scene, shown: Scene, request: RequestedAttributes, flaws: Flaws = ()) -> str:
    """A description, a line for each dimension, and the answer."""
    verdict = true_verdict(asked, shown, request, flaws)
    compared = {
        "subject": (_looks(asked, request, asked.colour.value), _looks(shown, request, _tint(shown))),
        "dynamics": (_motion(asked, request), _motion(shown, request)),
        "camera": (asked.camera.value, shown.camera.value),
        "environment": (_place(asked, request), _place(shown, request)),
        "style": (_STYLES[asked.style], _STYLES[shown.style]) if "style" in request else ("", ""),
    }
    states = {
        name: f"{harms} {_condition(flaws, harms)}"
        for name, harms in _HARMED.items()
        if not compared[name][0] or any(flaw.harms == harms for flaw in flaws)
    }
    by_part = {
        "subject": _by_part(_look_words(asked, request, asked.colour.value), _right(asked, shown, request, _LOOKS)),
        "environment": _by_part(_place_words(asked, request), _right(asked, shown, request, _PLACE)),
    }
    lines = [
        _line(name, compared[name], by_part.get(name, "") or states.get(name, ""), verdict.marks[name])
        for name in DIMENSIONS
    ]
    return "\n".join([description(shown, flaws), *lines, write_answer(verdict)])


def description(shown: Scene, flaws: Flaws = ()) -> str:
    """The chain's first paragraph: everything that is visible, asked or not."""
    one = shown.count is Count.ONE
    doing = f"{'It' if one else 'They'} {_DOING[shown.action][0 if one else 1]}{_pace(shown)}"
    return (
        f"I see {_looks(shown, frozenset(_LOOKS), _tint(shown))}, {_STYLES[shown.style]}, {_PLACES[shown.setting]} "
        f"{_LIGHTS[shown.light]}. {doing}. The camera {_FILMING[shown.camera]}. "
        f"The picture is {_condition(flaws, 'picture')}. The motion is {_condition(flaws, 'motion')}."
    )


def _part(asked: Scene, shown: Scene, request: RequestedAttributes, names: tuple[str, ...]) -> Mark:
    """2 if all asked attributes are right, 0 if none is, else 1; None if none is asked."""
    right = _right(asked, shown, request, names)
    if not right:
        return None
    return 2 if all(right) else 1 if any(right) else 0


def _right(asked: Scene, shown: Scene, request: RequestedAttributes, names: tuple[str, ...]) -> list[bool]:
    """For each asked attribute, in the order of the names, whether it is shown. In grey no colour is right."""
    unseen = {"colour"} if shown.style is Style.GREY else set()
    return [getattr(asked, name) is getattr(shown, name) and name not in unseen for name in names if name in request]


def _dynamics(asked: Scene, shown: Scene, request: RequestedAttributes) -> Literal[0, 1, 2]:
    if "action" not in request:
        return 2
    same_pace = "speed" not in request or asked.speed is shown.speed
    if asked.action is shown.action and (same_pace or asked.action not in MOVING_ACTIONS):
        return 2
    return 1 if {asked.action, shown.action} <= MOVING_ACTIONS else 0


def _camera(asked: Scene, shown: Scene) -> Literal[0, 1, 2]:
    if asked.camera is shown.camera:
        return 2
    return 1 if _OPPOSITE.get(asked.camera) is shown.camera else 0


def _style(asked: Scene, shown: Scene, request: RequestedAttributes) -> Literal[0, 2]:
    return 2 if "style" not in request or asked.style is shown.style else 0


def _at_most(flaws: Flaws, harms: Harms) -> Literal[0, 1, 2]:
    """The highest mark that the flaws allow."""
    return min((flaw.mark for flaw in flaws if flaw.harms == harms and flaw.mark is not None), default=2)


def _line(name: str, compared: tuple[str, str], more: str, mark: Mark) -> str:
    """A chain's line on one dimension. more: the comparison of its parts, or the state of motion or picture."""
    if mark is None:
        return f"{name.capitalize()}: not asked, N/A."
    asked, shown = compared
    comparison = f"asked {asked}, shown {shown}" if asked else "not asked"
    return f"{name.capitalize()}: {comparison}{f', {more}' if more else ''}: {_IN_WORDS[mark]}, {mark}."


def _by_part(words: list[str], right: list[bool]) -> str:
    """'red wrong, cross right', where several attributes are asked; empty for fewer."""
    if len(words) < 2:
        return ""
    return ", ".join(f"{word} {'right' if ok else 'wrong'}" for word, ok in zip(words, right, strict=True))


def _looks(scene: Scene, names: RequestedAttributes, colour: str) -> str:
    """The named attributes in words: 'two small red circles', 'large circle', 'blue'."""
    return " ".join(_look_words(scene, names, colour))


def _look_words(scene: Scene, names: RequestedAttributes, colour: str) -> list[str]:
    words = {
        "count": scene.count.value,
        "size": scene.size.value,
        "colour": colour,
        "shape": plural(scene.shape.value) if "count" in names and scene.count is not Count.ONE else scene.shape.value,
    }
    return [words[name] for name in _LOOKS if name in names]


def _tint(shown: Scene) -> str:
    return "grey" if shown.style is Style.GREY else shown.colour.value


def _motion(scene: Scene, request: RequestedAttributes) -> str:
    if "action" not in request:
        return ""
    return _DOING[scene.action][1] + (_pace(scene) if "speed" in request else "")


def _pace(scene: Scene) -> str:
    return f" {_SPEEDS[scene.speed]}" if scene.action in MOVING_ACTIONS else ""


def _place(scene: Scene, request: RequestedAttributes) -> str:
    """'beach at dusk', 'beach', 'at dusk'."""
    return " ".join(_place_words(scene, request))


def _place_words(scene: Scene, request: RequestedAttributes) -> list[str]:
    words = {"setting": scene.setting.value, "light": _LIGHTS[scene.light]}
    return [words[name] for name in _PLACE if name in request]


def _condition(flaws: Flaws, harms: Harms) -> str:
    """The state of the picture or of the motion, in words."""
    return next((flaw.words for flaw in flaws if flaw.harms == harms), SOUND[harms])
