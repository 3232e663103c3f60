"""How records are put into words, on the terminal and in pictures alike.

In: records and untrusted texts. Out: short strings that are safe to show. Knows types only."""

import unicodedata
from collections.abc import Mapping
from typing import Any

from descore.types import Clip, Completion, Mark

MARK_WORDS: dict[Mark, str] = {2: "right", 1: "partly", 0: "wrong", None: "not asked"}

_ANSWER = "<answer>"


def plain(text: str) -> str:
    """The text with control characters and lone surrogates replaced: a file's name or a chain may hold anything, and
    neither may steer a terminal. Line breaks stay."""
    shown = "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else "\N{REPLACEMENT CHARACTER}"
        for c in text.expandtabs(4)
    )
    return shown.replace("\u2028", "\n").replace("\u2029", "\n")


def one_line(text: str) -> str:
    """The same, on a single line."""
    return " ".join(plain(text).split())


def prose(completion: Completion) -> str:
    """The chain without its answer block where that was read: the marks say the same."""
    text = completion.text
    if completion.verdict is not None:
        text = text[: text.rindex(_ANSWER)]
    return plain(text).strip()


def facts(clip: Clip) -> str:
    """What is known of the source, as in '320x180, 24 fps, 2.5 s'."""
    width, height = clip.source_size
    return f"{width}x{height}, {clip.source_fps:.4g} fps, {clip.duration:.1f} s"


def way_in_words(config: Mapping[str, Any]) -> str:
    """How a run's model came to its rewards, to go on after its name; empty for what writes no chains."""
    if config.get("paradigm") is not None:
        return f", {config['paradigm']}"
    return {"on": ", thinking", "off": ", without thinking"}.get(config["think"] or "", "")


def signed(number: float | None, *, digits: int = 3) -> str:
    """A number with its sign, or a dash where there is none."""
    return "–" if number is None else f"{number:+.{digits}f}"


def flags(completion: Completion) -> list[str]:
    """What a reader must know before trusting this completion."""
    found = []
    if completion.truncated:
        found.append(f"the thinking was cut off after {completion.num_tokens - 1} tokens")
    if completion.flaw is not None:
        found.append(f"no marks: {one_line(completion.flaw)}")
    return found
