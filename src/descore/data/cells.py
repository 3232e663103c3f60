"""The cells of one row, read as what they should be; a cell that is something else is a DataError with file and line.

In: a row of `read_rows` and where it stands. Out: texts, numbers, choices and marks, None for an empty cell.
Knows single values; knows nothing of pairs or clips."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from descore.data.tables import value_at
from descore.errors import DataError
from descore.types import DIMENSIONS, Mark

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """A row and its place."""

    file: str
    line: int
    row: Mapping[str, Any]

    def fault(self, reason: str) -> DataError:
        """The error that says what is wrong with this row."""
        return DataError(self.file, self.line, reason)

    def text(self, column: str | None) -> str | None:
        """The cell as text without white space around it; None if it is empty, or there is no such column."""
        value = None if column is None else value_at(self.row, column)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, Mapping | list):
            raise self.fault(f"{column} is a {type(value).__name__}; expected a single value")
        return str(value).strip() or None

    def needed(self, column: str) -> str:
        """The same for a cell that must not be empty."""
        found = self.text(column)
        if found is None:
            raise self.fault(f"{column} is empty; expected a text")
        return found

    def number(self, column: str) -> float | None:
        """The cell as a finite number; None if it is empty."""
        found = self.text(column)
        if found is None:
            return None
        try:
            number = float(found)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.fault(f"{column} is {found!r}; expected a number")
        return number

    def choice(self, column: str, values: Mapping[str, T | None]) -> T | None:
        """What the cell stands for; None if it is empty."""
        found = self.text(column)
        if found is None:
            return None
        if found not in values:
            raise self.fault(f"{column} is {found!r}; expected {_alternatives(list(values))}")
        return values[found]

    def marks(self, column: str) -> dict[str, Mark] | None:
        """A mark for each of DIMENSIONS, from an object or its JSON text: 0, 1, 2, or "N/A" or null where the prompt
        does not ask; None if the cell is empty."""
        value = value_at(self.row, column)
        if value is None or value == "":
            return None
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as fault:
                raise self.fault(f"{column} is no JSON: {fault.msg} at character {fault.pos + 1}") from None
        if not isinstance(value, Mapping) or set(value) != set(DIMENSIONS):
            names = ", ".join(value) if isinstance(value, Mapping) else repr(value)
            raise self.fault(f"{column} has {names or 'nothing'}; expected a mark for each of {', '.join(DIMENSIONS)}")
        return {name: self._mark(f"{column}.{name}", value[name]) for name in DIMENSIONS}

    def _mark(self, column: str, value: object) -> Mark:
        if value is None or value == "N/A":
            return None
        whole: tuple[Mark, ...] = (0, 1, 2)
        if isinstance(value, bool) or value not in whole:
            raise self.fault(f'{column} is {value!r}; expected 0, 1, 2 or "N/A"')
        return whole[whole.index(value)]  # type: ignore[arg-type]  # 1.0, as some tables have it, becomes 1


def _alternatives(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
