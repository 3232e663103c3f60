"""How records and figures are written, on the terminal and on pages alike.

In: records, numbers, and untrusted texts. Out: short strings that are safe to show. Imports neither numpy nor torch, so
that errors are reported at once."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from descore.types import Clip, Completion, Mark

UNKNOWN = "–"
MARK_WORDS: "dict[Mark, str]" = {2: "right", 1: "partly", 0: "wrong", None: "not asked"}

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates: they change the order in which the letters around them are shown."""


def plain(text: str) -> str:
    """The text with control characters, bidirectional controls and lone surrogates replaced: a file's name or a chain
    may hold anything, and neither may steer a terminal. Line breaks stay."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if _is_unsafe(c) else c for c in text.expandtabs(4))
    return shown.replace("\u2028", "\n").replace("\u2029", "\n")


def _is_unsafe(character: str) -> bool:
    if character == "\n":
        return False
    return character in _BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs")


def one_line(text: str) -> str:
    """The same, on a single line."""
    return " ".join(plain(text).split())


def mark_word(mark: "Mark", *, unknown: bool = False) -> str:
    """A mark in words. `unknown`: it is N/A since it cannot be known, and not since the prompt does not ask for it."""
    return "unknown" if mark is None and unknown else MARK_WORDS[mark]


def chain_prose(completion: "Completion") -> str:
    """The chain without its answer block; an answer that could not be parsed stays."""
    text = completion.text
    if completion.verdict is not None:
        text = text[: text.rindex("<answer>", 0, text.rindex("</answer>"))]
    return plain(text).strip()


def clip_facts(clip: "Clip") -> str:
    """Size, frame rate and duration of the source, as in '320x180, 24 fps, 2.5 s'."""
    width, height = clip.source_size
    return f"{width}x{height}, {clip.source_fps:.4g} fps, {clip.duration:.1f} s"


def mode_suffix(config: Mapping[str, Any]) -> str:
    """A run's paradigm or thinking mode, to follow the model's name; empty for a judge that writes no chains."""
    if config.get("paradigm") is not None:
        return f", {config['paradigm']}"
    return {"on": ", thinking", "off": ", without thinking"}.get(config["think"] or "", "")


def signed(number: float | None, *, digits: int = 3) -> str:
    """A number with its sign, or a dash where there is none."""
    return UNKNOWN if number is None else f"{number:+.{digits}f}"


def completion_warnings(completion: "Completion") -> list[str]:
    """Why this completion may not be trusted: it was cut off, has no marks, or an overall without what matters most."""
    warnings = []
    if completion.truncated:
        warnings.append(f"the thinking was cut off after {completion.num_tokens - 1} tokens")
    if completion.flaw is not None:
        warnings.append(f"no marks: {one_line(completion.flaw)}")
    if completion.verdict is not None and completion.verdict.is_partial:
        warnings.append(partial_warning(completion.verdict.overall, completion.verdict.unknown))
    return warnings


def partial_warning(overall: float, unknown: Sequence[str]) -> str:
    """That an overall leaves out dimensions which cannot be known."""
    return f"the overall of {overall:.2f} leaves out what cannot be known: {', '.join(unknown)}"


# Figures of a page. None and nan are unknown.


def decimal(value: float | None, *, digits: int = 3) -> str:
    """As in .734 and −.050, without the leading zero: most figures are shares."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{abs(value):.{digits}f}"
    sign = "−" if value < 0 and float(text) != 0 else ""
    return sign + (text.removeprefix("0") if digits else text)


def signed_decimal(value: float | None, *, digits: int = 3) -> str:
    """The same with its sign, as in +.050."""
    text = decimal(value, digits=digits)
    return text if text == UNKNOWN or text.startswith("−") or float(text) == 0 else f"+{text}"


def interval_text(figure: Mapping[str, Any] | None) -> str:
    """The interval of a figure, as in [.702, .766]; empty without one."""
    if figure is None or figure["low"] is None or figure["high"] is None:
        return ""
    if not (math.isfinite(figure["low"]) and math.isfinite(figure["high"])):
        return ""
    return f"[{decimal(figure['low'])}, {decimal(figure['high'])}]"


def count(value: int | None) -> str:
    """An integer, as in 26,500."""
    return UNKNOWN if value is None else f"{value:,}"


def number(value: float | None) -> str:
    """Any number, with three digits, or rounded to an integer from 1,000."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def or_dash(value: object) -> object:
    """The value, or a dash for None."""
    return UNKNOWN if value is None else value
