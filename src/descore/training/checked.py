"""Settings that check themselves: frozen dataclasses whose fields say in their types what they may hold.

    learning_rate: Annotated[float, POSITIVE] = 1e-5

In: values. Out: all that is wrong with them at once, each with its key. Knows types and rules; knows nothing of files
or of what the settings are for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from descore.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must satisfy, beside its type."""

    text: str
    """Goes on after the key: 'must be positive'."""
    holds: Callable[[Any], bool]


POSITIVE = Rule("must be positive", lambda x: x > 0)
NOT_NEGATIVE = Rule("must not be negative", lambda x: x >= 0)
SHARE = Rule("must be from 0 to 1", lambda x: 0 <= x <= 1)
ABOVE_ONE = Rule("must be above 1", lambda x: x > 1)
BELOW_ONE = Rule("must be at least 0 and below 1", lambda x: 0 <= x < 1)
NOT_EMPTY = Rule("must not be empty", lambda x: len(x) > 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong."""

    key: str
    """Path of the key, with dots."""
    message: str


class SettingsError(ConfigError):
    """Settings that cannot be used: `faults` has all that is wrong, `page` shows them one a line."""

    def __init__(self, title: str, faults: Sequence[Fault]) -> None:
        self.title = title
        self.faults = tuple(faults)
        super().__init__(f"{self._counted}: " + "; ".join(f"{f.key} {f.message}" for f in faults))

    @property
    def page(self) -> str:
        """A heading, and a line for each fault, their keys in a column."""
        width = max(len(fault.key) for fault in self.faults)
        return "\n".join([self._counted, *(f"  {fault.key:<{width}}  {fault.message}" for fault in self.faults)])

    @property
    def _counted(self) -> str:
        return f"{self.title}: {len(self.faults)} problem{'s' if len(self.faults) > 1 else ''}"


class Checked:
    """Base of settings: construction raises SettingsError with all that is wrong."""

    __slots__ = ()

    def __post_init__(self) -> None:
        names = [field.name for field in fields(cast(Any, self))]
        faults = faults_of(type(self), {name: getattr(self, name) for name in names})
        faults = faults or [Fault(key, message) for key, message in self.disagreements()]
        if faults:
            raise SettingsError(type(self).__name__, faults)

    def disagreements(self) -> Iterator[tuple[str, str]]:
        """Key and message where fields that are right one by one do not go together."""
        return iter(())


def faults_of(settings: type, values: Mapping[str, Any]) -> list[Fault]:
    """What is wrong with these values of a settings class, one by one: types first, then rules."""
    hints = get_type_hints(settings, include_extras=True)
    found = ((name, fault_in(value, hints[name])) for name, value in values.items())
    return [Fault(name, message) for name, message in found if message]


def fault_in(value: Any, hint: Any) -> str | None:  # noqa: ANN401  # any value against any type
    """What is wrong with a value, or None."""
    plain, rules = without_rules(hint)
    if not _is_a(value, plain):
        return f"expected {describe(plain)}, found {list(value) if isinstance(value, tuple) else value!r}"
    broken = next((rule for rule in rules if value is not None and not rule.holds(value)), None)
    return f"{broken.text}, got {value!r}" if broken else None


def without_rules(hint: Any) -> tuple[Any, tuple[Rule, ...]]:  # noqa: ANN401
    """A field's type, and the rules that stand beside it; `Annotated[int, RULE] | None` has its rule inside."""
    if get_origin(hint) is Annotated:
        inner, rules = without_rules(get_args(hint)[0])
        return inner, (*rules, *(extra for extra in get_args(hint)[1:] if isinstance(extra, Rule)))
    if get_origin(hint) in (Union, UnionType):
        parts = [without_rules(part) for part in get_args(hint)]
        return Union[tuple(part for part, _ in parts)], tuple(r for _, rules in parts for r in rules)  # noqa: UP007
    return hint, ()


def describe(hint: Any) -> str:  # noqa: ANN401
    """A type in words."""
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "a path",
        NoneType: "null",
    }
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, UnionType):
        return " or ".join(describe(part) for part in args)
    if origin is tuple:
        inner = describe(args[0]).removeprefix("a ")
        return f"a list, each {inner}" if args[-1] is Ellipsis else f"a list of {len(args)}, each {inner}"
    return words.get(hint, "keys and values")


def _is_a(value: Any, hint: Any) -> bool:  # noqa: ANN401
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin in (Union, UnionType):
        return any(_is_a(value, part) for part in args)
    if origin is tuple:
        return isinstance(value, tuple) and _are(value, args)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf")
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _are(values: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if hints[-1] is Ellipsis:
        return all(_is_a(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(_is_a(v, h) for v, h in zip(values, hints, strict=True))
