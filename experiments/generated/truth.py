"""What is true of a real or generated clip under a prompt, and the chain that says so.

Style and dynamics are marked by harms alone. The subject is marked by coarse classes of things, where both the clip's
and the prompt's are known; where only the prompt's is, it cannot be known. Camera and environment cannot be known where
the prompt asks something of them. What the prompt does not ask for is N/A."""

from collections.abc import Sequence
from dataclasses import dataclass

from descore.rubric import overall_of, write_answer
from descore.types import DIMENSIONS, Mark, Verdict
from experiments.generated.fields import Frames
from experiments.generated.harms import FAINT, HARMS, STATES, Acts, harmed, mark_of
from experiments.generated.things import CAMERA, PLACES, Shown, asks_for_something, names_any, things_in

SOUND = {"style": "sharp", "dynamics": "smooth"}
"""Words where there is no harm."""

_IN_WORDS = {2: "right", 1: "partly right", 0: "wrong"}
_UNKNOWN, _NOT_ASKED = "cannot be known, N/A.", "not asked, N/A."


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedHarm:
    """One harm of a clip."""

    name: str
    """A key of HARMS."""
    strength: float
    seed: int = 0
    """Where and when it is done."""

    def apply(self, frames_THWC: Frames) -> Frames:
        """New frames with this harm."""
        return harmed(frames_THWC, self.name, strength=self.strength, seed=self.seed)

    @property
    def acts(self) -> Acts:
        """The dimension that it lowers."""
        return HARMS[self.name].acts

    @property
    def words(self) -> str:
        """How a chain describes it."""
        return HARMS[self.name].words(self.strength) if self.strength >= FAINT else SOUND[self.acts]

    @property
    def mark(self) -> Mark:
        """The highest mark that it allows."""
        return mark_of(self.strength)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a prompt asks for, as far as words tell."""

    things: tuple[str, ...]
    """Classes of the things that it names; empty where none is known."""
    subject: bool
    """Whether it asks for anything to be seen."""
    camera: bool
    environment: bool

    @classmethod
    def of(cls, prompt: str) -> "Request":
        """The request of a prompt."""
        things = things_in(prompt)
        return cls(
            things=things,
            subject=bool(things) or asks_for_something(prompt),
            camera=names_any(prompt, CAMERA),
            environment=names_any(prompt, PLACES),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A clip under a prompt."""

    shown: Shown | None
    """None where no thing is known."""
    request: Request
    harms: Sequence[AppliedHarm]
    """At most one for each dimension."""

    @property
    def subject(self) -> Mark:
        """2 if all things that the prompt names are shown, 0 if none is, else 1; None where that is not known."""
        right = self.things_right()
        return None if not right or None in right else 2 if all(right) else 1 if any(right) else 0

    def things_right(self) -> list[bool | None]:
        """For each thing that the prompt names, whether it is shown."""
        return [self.shown.has(thing) if self.shown else None for thing in self.request.things]

    def mark(self, acts: Acts) -> Mark:
        """The mark of style or dynamics."""
        return next((harm.mark for harm in self.harms if harm.acts == acts), 2)

    def state(self, acts: Acts) -> str:
        """The picture or the motion in words."""
        return next((harm.words for harm in self.harms if harm.acts == acts), SOUND[acts])

    def verdict(self) -> Verdict:
        """Marks, the overall that follows from them, and the dimensions that cannot be known."""
        marks: dict[str, Mark] = dict.fromkeys(DIMENSIONS)
        marks |= {"subject": self.subject, "dynamics": self.mark("dynamics"), "style": self.mark("style")}
        asked = {
            "subject": self.request.subject,
            "camera": self.request.camera,
            "environment": self.request.environment,
        }
        unknown = tuple(name for name, is_asked in asked.items() if is_asked and marks[name] is None)
        return Verdict(marks=marks, overall=overall_of(marks), unknown=unknown)

    def chain(self) -> str:
        """A description, a line for each dimension, and the answer."""
        verdict = self.verdict()
        lines = [f"{name.capitalize()}: {self._line(name, verdict)}" for name in DIMENSIONS]
        return "\n".join([self.description(), *lines, write_answer(verdict)])

    def description(self) -> str:
        """The chain's first paragraph: what is shown, without a look at the prompt."""
        shown = f" of {' and '.join(self.shown.things)}" if self.shown else ""
        return f"I see footage{shown}. The picture is {self.state('style')}. The motion is {self.state('dynamics')}."

    def _line(self, name: str, verdict: Verdict) -> str:
        mark = verdict.marks[name]
        if mark is None:
            return _UNKNOWN if name in verdict.unknown else _NOT_ASKED
        return f"{self._grounds(name)}: {_IN_WORDS[mark]}, {mark}."

    def _grounds(self, name: str) -> str:
        if name != "subject":
            acts: Acts = "style" if name == "style" else "dynamics"
            return f"{STATES[acts]} {self.state(acts)}"
        asked, shown = self.request.things, self.shown.things if self.shown else ()
        parts = zip(asked, self.things_right(), strict=True)
        by_part = ", ".join(f"{thing} {'right' if right else 'wrong'}" for thing, right in parts)
        compared = f"asked {' and '.join(asked)}, shown {' and '.join(shown)}"
        return f"{compared}, {by_part}" if len(asked) > 1 else compared
