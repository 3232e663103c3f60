"""The one error family: a type for each boundary, with its exit code.

A message is one line: what was found and where, what was expected, and what to do."""

import copyreg
from typing import Any, ClassVar


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


def how_to_install(extra: str) -> str:
    """The command that installs an extra, from the repository: no package index has descore yet."""
    return f"run pip install '.[{extra}]' in a checkout of descore's repository"
