"""The base of all settings: pydantic models that are frozen and strict, with errors of our own.

Takes values by field, gives checked settings, or one SettingsError that lists every fault with the path of its key.
`describe_type` and `describe_bounds` put a field's type and bounds into words, for messages and for the reference."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from descore.errors import ConfigError

UnitInterval = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1, both included."""
BelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A number from 0 up to 1, without 1."""
AboveOne = Annotated[float, Field(gt=1)]
"""A ratio of a larger number to a smaller one."""
PathText = Annotated[Path, Field(strict=False)]
"""A path, also given as text."""
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
"""One name or more, also given as a list."""

_CONFLICT = "conflict"
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_LIMITS = {"gt": Gt, "ge": Ge, "lt": Lt, "le": Le}
_TYPES: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    NoneType: "null",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A key of some settings, and what is wrong with it."""

    key: str
    """Path of the key, with dots."""
    message: str


class SettingsError(ConfigError):
    """Settings that cannot be used: `faults` has all that is wrong, `page` shows them one a line."""

    def __init__(self, title: str, faults: Sequence[Fault]) -> None:
        self.title = title
        self.faults = tuple(faults)
        super().__init__(f"{title}: " + "; ".join(f"{f.key} {f.message}".strip() for f in faults))

    @property
    def page(self) -> str:
        """A heading, and a line for each fault, their keys in a column."""
        count = f"{len(self.faults)} problem{'s' if len(self.faults) > 1 else ''}"
        width = max(len(fault.key) for fault in self.faults)
        return "\n".join([f"{self.title}: {count}", *(f"  {f.key:<{width}}  {f.message}" for f in self.faults)])


class ConfigModel(BaseModel):
    """Base of settings: construction raises SettingsError with all that is wrong."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def __init__(self, /, **values: Any) -> None:  # noqa: ANN401  # pydantic checks them
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(error.title, faults_of(type(self), values, error)) from None

    # Without this, pydantic would call __init__ for groups inside of groups, and their faults would lose their keys.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Self:
        conflicts: list[InitErrorDetails] = [
            {
                "type": PydanticCustomError(_CONFLICT, "{message}", {"message": message}),
                "loc": tuple(key.split(".")),
                "input": None,
            }
            for key, message in self.conflicts()
        ]
        if conflicts:
            raise ValidationError.from_exception_data(type(self).__name__, conflicts)
        return self

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Key and message where fields that are right one by one do not go together."""
        return iter(())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """These settings with some values replaced, checked again. Settings are frozen, so no copy needs to be deep."""
        return type(self)(**{**dict(self), **(update or {})})


def faults_of(settings: type[ConfigModel], values: object, error: ValidationError) -> list[Fault]:
    """The faults that pydantic found in `values` for a settings class, in descore's words.

    Several wrong items of a list are one fault of its key."""
    return list(dict.fromkeys(_fault(settings, values, detail) for detail in error.errors(include_url=False)))


def _fault(settings: type[ConfigModel], values: object, detail: ErrorDetails) -> Fault:
    group, keys, field = settings, list[str](), None
    for part in map(str, detail["loc"]):
        field = group.model_fields.get(part)
        keys.append(part)
        values = _inside(values, part, otherwise=detail["input"])
        inner = None if field is None else group_in(field.annotation)
        if inner is None:
            break
        group = inner
    if detail["type"] == _CONFLICT:
        return Fault(".".join(map(str, detail["loc"])), detail["msg"])
    key = ".".join(keys)
    return Fault(key, _unknown_key(key, group) if field is None else _wrong_value(field, values, detail["type"]))


def _inside(values: object, part: str, *, otherwise: object) -> object:
    """The value of a key, which may lie deeper than pydantic's own input; a default stands in no input."""
    if isinstance(values, Mapping):
        return values.get(part, otherwise)
    return getattr(values, part, otherwise)


def _unknown_key(key: str, group: type[ConfigModel]) -> str:
    *outer, last = key.split(".")
    holding = [name for name in group.model_fields if last in name]
    near = difflib.get_close_matches(last, group.model_fields, n=1) or (holding if len(holding) == 1 else [])
    if near:
        return f"unknown key; did you mean {'.'.join([*outer, *near])}?"
    return f"unknown key; expected one of {', '.join(group.model_fields)}"


def _wrong_value(field: FieldInfo, value: object, error: str) -> str:
    if error == "missing" and not isinstance(value, tuple | list):  # a list of fixed length may lack an item
        return f"missing; expected {describe_type(field.annotation)}"
    shown = list(value) if isinstance(value, tuple) else value
    if error in _BOUNDS:
        return f"must {describe_bounds(field)}, got {shown!r}"
    if error in ("too_short", "string_too_short") and not value:
        return f"must not be empty, got {shown!r}"
    return f"expected {describe_type(field.annotation)}, found {shown!r}"


def group_in(annotation: Any) -> type[ConfigModel] | None:  # noqa: ANN401  # any type
    """The settings class that a field holds, if it holds one."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, ConfigModel)), None)


def describe_type(annotation: Any) -> str:  # noqa: ANN401  # any type
    """A type in words: 'a whole number or null'."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe_type(args[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, UnionType):
        return " or ".join(describe_type(part) for part in args)
    if origin is tuple:
        inner = describe_type(args[0]).removeprefix("a ")
        return f"a list, each {inner}" if args[-1] is Ellipsis else f"a list of {len(args)}, each {inner}"
    if origin is dict and args[1] is not Any:
        return f"keys and values, each value {describe_type(args[1]).removeprefix('a ')}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(repr(member.value) for member in annotation)
    return _TYPES.get(annotation, "keys and values")


def describe_bounds(field: FieldInfo) -> str:
    """A field's numeric bounds as what follows 'must': 'be positive', 'be from 0 to 1'. Without bounds, nothing."""
    bounds = dict(_bounds([*field.metadata, field.annotation]))
    match bounds:
        case {"ge": low, "le": high}:
            return f"be from {low} to {high}"
        case {"ge": low, "lt": high}:
            return f"be at least {low} and below {high}"
        case {"gt": 0}:
            return "be positive"
        case {"gt": low}:
            return f"be above {low}"
        case {"ge": 0}:
            return "not be negative"
        case {"ge": low}:
            return f"be at least {low}"
    return ""


def _bounds(parts: Sequence[Any]) -> Iterator[tuple[str, float]]:
    """The bounds that stand beside a type, or inside of it: in a union, or for the items of a list."""
    for part in parts:
        inner = part.metadata if isinstance(part, FieldInfo) else get_args(part)
        yield from _bounds([one for one in inner if not isinstance(one, str)])
        yield from ((name, getattr(part, name)) for name, kind in _LIMITS.items() if isinstance(part, kind))
