"""The one error family: a type for each boundary, with its exit code.

A message is one line: what was found and where, what was expected, and what to do."""

import copyreg
from typing import Any, ClassVar

_QUOTED, _BITS = 40, 128
"""Characters of a value that a message quotes, and bits of a whole number that it does."""


class DescoreError(ValueError):
    """An error that a user can correct. Its message is one line that is shown as it is."""

    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message and the fields, and do not call `__init__` again, whose arguments differ from type to
        type. An error that a process pool cannot unpickle would hang the pool."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class DescoreWarning(UserWarning):
    """Something that a user should know although the command continues."""


class ConfigError(DescoreError):
    """An option or a configuration that cannot be used."""

    exit_code = 3


class CheckpointError(DescoreError):
    """A checkpoint directory that is missing, incomplete, of another schema, or does not fit."""

    exit_code = 3


class VideoError(DescoreError):
    """A video that cannot be read. `source` is its path, or '<bytes>', '<array>' or '<images>'."""

    exit_code = 4

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class VideoLimitError(VideoError):
    """A video that states more pixels, or more frames, than may be decoded."""


class DataError(DescoreError):
    """An error in a table, in this file and line."""

    exit_code = 5

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class AnswerError(DescoreError):
    """A chain whose answer block is missing or cannot be read. It never becomes a number; there is no verdict."""

    exit_code = 6


class MarkError(AnswerError):
    """An answer that can be read, but for a mark that it lacks, or that is none."""


class RepeatedKeyError(ValueError):
    """An object of JSON that has a key twice, of which Python's parser would take the last."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values, for `object_pairs_hook` of the json module. RepeatedKeyError if one is there
    twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in value if keys.count(key) > 1)
        raise RepeatedKeyError(f"has the key {short_repr(repeated)} twice")
    return value


def short_repr(value: object) -> str:
    """A value that a message quotes, in one line of few characters."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and value.bit_length() > _BITS:  # Python writes no number of 4,300 digits
        return f"a whole number of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def how_to_install(extra: str) -> str:
    """The command that installs an extra, from the repository: no package index has descore yet."""
    return f"run pip install '.[{extra}]' in a checkout of descore's repository"
