"""The judging text, and reading the answer that it asks for.

A rubric is a text with the placeholder {prompt}; it belongs to a checkpoint. The answer is a JSON object inside
<answer> tags. Models that others have released answer in forms of their own: the files in rubrics/ have their texts,
and name the parser that reads them."""

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, PositiveFloat

from descore.config_model import ConfigModel, SettingsError
from descore.errors import AnswerError, ConfigError, MarkError, RepeatedKeyError, short_repr, unique_keys
from descore.types import DIMENSIONS, NOT_APPLICABLE, PRIMARY, Mark, Verdict

PLACEHOLDER = "{prompt}"

DEFAULT_RUBRIC = """\
You are a careful judge of generated video. The video above was made by a text-to-video model from this prompt:

"{prompt}"

Watch it from the first frame to the last before you judge. Write down what you really see: who or what is there, \
what it does from moment to moment, how the camera behaves, where it takes place, and how the picture looks. \
Then hold this against what the prompt asks for, one dimension at a time:

- subject (primary): are the asked people, animals or things there, in the right number, with the right looks, \
whole and free of deformation from frame to frame?
- dynamics (primary): does the asked action or motion happen, in the right direction and to its end, \
smoothly and as physics would have it, without jumps, flicker or freezing?
- camera (secondary): does the viewpoint, framing or camera movement follow the prompt?
- environment (secondary): are the place, the background, the light, the weather and the time of day as asked?
- style (secondary): do the look, the mood and the technical quality of the picture fit what was asked?

Give each dimension a mark: 2 if it is right, 1 if it is partly right, 0 if it is wrong, "N/A" if the prompt asks \
nothing about it. Then give an overall score from 1.00 (useless) to 5.00 (just as asked and without flaw); \
the primary dimensions weigh twice as much as the secondary ones.

End with the answer and nothing behind it, in exactly this form:
<answer>{"dimensional_scores": {"subject": 2, "dynamics": 1, "camera": "N/A", "environment": 2, "style": 0}, \
"overall_score": 3.50}</answer>"""

_EQUALLY_GOOD = "both videos are equally good"
_ANSWER_AT = 2000
"""Characters at a chain's end in which an <answer> block with a preference is looked for."""
_OPEN, _CLOSE = "<answer>", "</answer>"
_FENCE = re.compile(r"\s*```\w*\s*(.*)```\s*", re.DOTALL)
_CANNOT_BE_KNOWN = re.compile(r"^[^\w\n]*(\w+)[^:\n]*:[^\n]*\bcannot be known\b", re.MULTILINE | re.IGNORECASE)
"""A chain's line on a dimension, as in 'Subject: cannot be known, N/A.'"""
_SURROGATE, _NO_NAME = re.compile("[\ud800-\udfff]"), re.compile("[\ud800-\udc7f\udd00-\udfff]")
_ESCAPED = re.compile("[\udc80-\udcff]")
"""A byte of a file name or an argument that is not UTF-8, as Python shows it."""
_WEIGHT = {name: 2.0 if name in PRIMARY else 1.0 for name in DIMENSIONS}


def fill_rubric(rubric: str, *, prompt: str) -> str:
    """The judging text for one prompt. A rubric without exactly one {prompt} raises ConfigError."""
    if rubric.count(PLACEHOLDER) != 1:
        raise ConfigError(f"rubric: found {rubric.count(PLACEHOLDER)} times {PLACEHOLDER}; expected it exactly once")
    return rubric.replace(PLACEHOLDER, prompt)


class AnswerForm(ConfigModel):
    """How scores are read from a chain that ends otherwise than with our <answer> block."""

    model_config = ConfigDict(title="answer")

    parser: str
    """The name of one of PARSERS."""
    labels: Mapping[str, str]
    """By named dimension, the words that its score stands behind, in the order in which a chain has them."""
    lowest: float
    """A score is a number from this one,"""
    highest: float
    """to this one, both included."""
    read_out: Literal["written", "likeliest"] = "written"
    """written: the number in the chain. likeliest: of all whole numbers of the range, the one that is likeliest as the
    score's token, times its share of the probability of all of them."""
    temperature: PositiveFloat = 1.0
    """That these probabilities are of."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """A known parser; a range; a dimension at least; one token for each number that may be likeliest."""
        if self.parser not in PARSERS:
            yield "parser", f"is {self.parser!r}, expected one of {', '.join(PARSERS)}"
        if not self.labels:
            yield "labels", "is empty, expected a label for each dimension"
        if self.is_pairwise and [label.count("{}") for label in self.labels.values()] != [1]:
            yield "labels", "expected one with {} where the number of the preferred video stands"
        if self.highest <= self.lowest:
            yield "highest", f"is {self.highest:g}, expected more than lowest ({self.lowest:g})"
        if self.read_out == "likeliest" and not set(self.candidates) <= set(range(10)):
            yield "read_out", "is 'likeliest', which needs a range of single digits"

    @property
    def is_pairwise(self) -> bool:
        """Whether the judge reads two clips, and says which of them is better."""
        return self.parser == "preferred_video"

    @property
    def candidates(self) -> list[int]:
        """The whole numbers of the range."""
        return list(range(math.ceil(self.lowest), math.floor(self.highest) + 1))

    def read(self, chain: str) -> dict[str, "WrittenScore"]:
        """The score of each dimension. Whatever is missing or out of range raises AnswerError."""
        scores = PARSERS[self.parser](chain, self)
        for name, score in scores.items():
            if not self.lowest <= score.value <= self.highest:
                found, label = f"{score.value:g}", self.labels[name]
                raise AnswerError(f"'{label}' is {found}; expected {self.lowest:g} to {self.highest:g}")
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenScore:
    """A number in a chain."""

    value: float
    start: int
    """The character that it begins at."""


def labelled_scores(chain: str, form: AnswerForm) -> dict[str, WrittenScore]:
    """The first number that stands right behind each label, upper or lower case, each behind the one before."""
    scores, start = {}, 0
    for name, label in form.labels.items():
        pattern = re.compile(rf"{re.escape(label)}\s*(-?\d{{1,9}}(?:\.\d{{1,9}})?)", re.IGNORECASE)
        found = pattern.search(chain, start)
        if found is None:
            raise AnswerError(f"no number behind '{label}' in the chain")
        scores[name] = WrittenScore(value=float(found[1]), start=found.start(1))
        start = found.end()
    return scores


def preferred_video(chain: str, form: AnswerForm) -> dict[str, WrittenScore]:
    """1 where a label with the number 1 at {} comes last, -1 with 2, 0 for both: in the last <answer> block, if there
    is one, or the whole chain."""
    block = re.search(r"<answer>((?:(?!<answer>).)*)</answer>(?!.*<answer>)", chain[-_ANSWER_AT:], re.DOTALL)
    [(name, label)] = form.labels.items()
    before, _, behind = label.partition("{}")
    preferred = rf"{re.escape(before)}([12]){re.escape(behind)}|{_EQUALLY_GOOD}"
    found = [*re.finditer(preferred, block[1] if block else chain, re.IGNORECASE)]
    if not found:
        raise AnswerError(f"the chain says neither '{label.format(1)}' nor '{label.format(2)}'")
    return {name: WrittenScore(value={"1": 1.0, "2": -1.0, None: 0.0}[found[-1][1]], start=found[-1].start())}


PARSERS: Mapping[str, Callable[[str, AnswerForm], dict[str, WrittenScore]]] = {
    "labelled_scores": labelled_scores,
    "preferred_video": preferred_video,
}
"""By name, what reads the scores from a chain. They are these alone: no code comes with a rubric or a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedRubric:
    """The judging text of a reward model that others have released, and how its answers are read."""

    rubric: str
    """With {prompt} where the prompt goes."""
    source: str
    """Where it was read."""
    licence: str
    answer: AnswerForm | None
    """None: it has no answer, as a model with a head."""
    sampling: Mapping[str, Any]
    """Settings of a clip's sampling, as its authors have them."""
    max_chain_tokens: int


def released_rubrics() -> list[str]:
    """The names that `read_released` knows."""
    return sorted(file.name.removesuffix(".toml") for file in files("descore").joinpath("rubrics").iterdir())


def read_released(name: str) -> ReleasedRubric:
    """A rubric by its name in the package, or the path of a file of that form (.toml). ConfigError for any other."""
    inside = files("descore").joinpath("rubrics", f"{name}.toml")
    file = Path(name) if name.endswith(".toml") else inside if name in released_rubrics() else None
    if file is None:
        raise ConfigError(f"rubric: found {name!r}, expected one of {', '.join(released_rubrics())}, or a .toml file")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        fill_rubric(content["rubric"], prompt="")
        return ReleasedRubric(
            rubric=content["rubric"],
            source=content.get("source", name),
            licence=content.get("licence", ""),
            answer=AnswerForm(**content["answer"]) if "answer" in content else None,
            sampling=content.get("sampling", {}),
            max_chain_tokens=content.get("max_chain_tokens", 1024),
        )
    except SettingsError as error:
        raise SettingsError(f"{name}: answer", error.faults) from error
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as fault:
        reason = next(iter(str(fault).splitlines()), type(fault).__name__)
        raise ConfigError(f"rubric: {name} cannot be read: {reason}") from fault


def check_prompt(prompt: object) -> str:
    """The prompt as it is. ConfigError unless it is a text that is not blank and can be written as UTF-8."""
    if not isinstance(prompt, str):
        raise ConfigError(
            f"the prompt is of type {type(prompt).__name__}; expected the text that the video was generated from"
        )
    if not prompt.strip():
        raise ConfigError("the prompt is empty; give the text that the video was generated from")
    if surrogate := lone_surrogate(prompt):
        raise ConfigError(f"the prompt has {surrogate}; write it as UTF-8")
    return prompt


def lone_surrogate(text: str, *, file_name: bool = False) -> str | None:
    """The first character that no encoding has, in words; None if there is none. It is half of a pair that stands for
    one character, or a byte that was not UTF-8, which a `file_name` may have (PEP 383)."""
    found = (_NO_NAME if file_name else _SURROGATE).search(text)
    if found is None:
        return None
    code, place = ord(found[0]), found.start() + 1
    if _ESCAPED.fullmatch(found[0]):
        return f"byte 0x{code - 0xDC00:02x}, which is not UTF-8, as character {place}"
    return f"U+{code:04X}, half a surrogate pair, as character {place}"


def read_answer(chain: str) -> Verdict:
    """The verdict in the chain's last <answer> block, whose JSON may stand in a code fence. Whatever it lacks raises
    AnswerError with the reason."""
    answer = _parse(_last_block(chain))
    if not isinstance(answer, dict) or not isinstance(answer.get("dimensional_scores"), dict):
        raise AnswerError("the answer has no object 'dimensional_scores'")
    marks = {name: _read_mark(name, answer["dimensional_scores"]) for name in DIMENSIONS}
    return Verdict(marks=marks, overall=_read_overall(answer), unknown=unknown_of(chain, marks))


def unknown_of(chain: str, marks: Mapping[str, Mark]) -> tuple[str, ...]:
    """The dimensions whose mark is N/A since they cannot be known, as the chain's line on each says. The others that
    are N/A are not asked for."""
    named = {name.lower() for name in _CANNOT_BE_KNOWN.findall(chain)}
    return tuple(name for name in DIMENSIONS if marks.get(name) is None and name in named)


def write_answer(verdict: Verdict) -> str:
    """The answer block of a verdict, in the form that the rubric asks for and `read_answer` reads."""
    marks = marks_json(verdict.marks)
    return f'<answer>{{"dimensional_scores": {marks}, "overall_score": {verdict.overall:.2f}}}</answer>'


def marks_json(marks: Mapping[str, Mark]) -> str:
    """Marks as the JSON object that answers and tables hold: one for each of DIMENSIONS, in that order."""
    return json.dumps({name: NOT_APPLICABLE if marks[name] is None else marks[name] for name in DIMENSIONS})


def mark_text(mark: Mark) -> str:
    """A mark as people read it: 0, 1, 2 or N/A."""
    return NOT_APPLICABLE if mark is None else str(mark)


def overall_of(marks: dict[str, Mark]) -> float:
    """1 to 5: the weighted mean of the marks that apply, primary ones counted twice. No mark at all gives 3."""
    asked = {name: mark for name, mark in marks.items() if mark is not None}
    if not asked:
        return 3.0
    mean = sum(_WEIGHT[name] * mark for name, mark in asked.items()) / sum(_WEIGHT[name] for name in asked)
    return round(1 + 2 * mean, 2)


def quality(verdict: Verdict | None, reference_marks: Mapping[str, Mark]) -> float:
    """The share of the five marks that equal the reference; "N/A" is a mark too. Without a verdict it is 0.

    reference_marks: one for each of DIMENSIONS."""
    if verdict is None:
        return 0.0
    return sum(verdict.marks[name] == reference_marks[name] for name in DIMENSIONS) / len(DIMENSIONS)


def correctness(overall_a: float, overall_b: float, preference: int) -> float:
    """Whether two overall scores order a pair as people do: 1 if they do, 0 if the other way round, 0.5 if only one of
    the two, scores or people, says tie.

    preference: 1 for a, -1 for b, 0 for a tie."""
    order = (overall_a > overall_b) - (overall_a < overall_b)
    return 1 - abs(order - preference) / 2


def _last_block(chain: str) -> str:
    """What stands between the last pair of tags. The opening tag may be mentioned before."""
    start = chain.rfind(_OPEN, 0, max(chain.rfind(_CLOSE), 0))
    if start < 0:
        raise AnswerError("no <answer>...</answer> block in the chain")
    return chain[start + len(_OPEN) : chain.index(_CLOSE, start)]


def _parse(block: str) -> object:
    fenced = _FENCE.fullmatch(block)
    try:
        return json.loads(block if fenced is None else fenced[1], object_pairs_hook=unique_keys)
    except json.JSONDecodeError as fault:
        raise AnswerError(f"the answer is not JSON: {fault.msg} at character {fault.pos}") from None
    except RepeatedKeyError as fault:
        raise AnswerError(f"the answer {fault}; expected each once") from None
    except ValueError:  # Python's limit of 4,300 digits
        raise AnswerError("the answer has a number of too many digits; expected marks and an overall score") from None
    except RecursionError:
        raise AnswerError("the answer has too many brackets inside each other; expected an object") from None


def _read_mark(name: str, marks: dict[str, Any]) -> Mark:
    if name not in marks:
        raise MarkError(f"the answer has no mark for '{name}'")
    mark = marks[name]
    if isinstance(mark, str) and mark.strip().upper() in {NOT_APPLICABLE, "NA"}:
        return None
    if isinstance(mark, bool) or mark not in (0, 1, 2):
        raise MarkError(f"the mark for '{name}' is {short_repr(mark)}; expected 0, 1, 2 or \"N/A\"")
    return int(mark)  # type: ignore[return-value]  # one of 0, 1, 2 by the line above


def _read_overall(answer: dict[str, Any]) -> float:
    overall = answer.get("overall_score")
    # An int is finite, and one of 400 digits cannot be asked: math.isfinite makes a float of it.
    if isinstance(overall, bool) or not isinstance(overall, int | float):
        raise AnswerError(f"'overall_score' is {short_repr(overall)}; expected a number from 1.00 to 5.00")
    if isinstance(overall, float) and not math.isfinite(overall):
        raise AnswerError(f"'overall_score' is {overall}; expected a number from 1.00 to 5.00")
    if not 1 <= overall <= 5:
        raise AnswerError(f"'overall_score' is {short_repr(overall)}; expected 1.00 to 5.00")
    return float(overall)
