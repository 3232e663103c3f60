"""The one error family. Each type names a boundary, and is mapped once to an exit code.

A message says what was found, where, what was expected and what to do, in one line."""

from typing import ClassVar


class DescoreError(ValueError):
    """Anything that a user can mend. The message is one line, meant to be shown as it is."""

    exit_code: ClassVar[int] = 1


class DescoreWarning(UserWarning):
    """Something that a user should know although the work goes on."""


class ConfigError(DescoreError):
    """An option or a configuration that cannot be used."""

    exit_code = 3


class CheckpointError(DescoreError):
    """A checkpoint directory that is missing, incomplete, of another schema, or does not fit."""

    exit_code = 3


class VideoError(DescoreError):
    """A video that cannot be read. `source` is its path, or what stands for one."""

    exit_code = 4

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class DataError(DescoreError):
    """A fault in a table. `file` and `line` say where."""

    exit_code = 5

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class AnswerError(DescoreError):
    """A chain whose answer block is missing or cannot be read. Never a number: the verdict stays empty."""

    exit_code = 6
