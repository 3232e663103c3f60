"""Settings in a YAML file, with overrides from a command line.

    config = read_config(Path("sft.yaml"), SftConfig, overrides=["optim.steps=10"])

In: a file, `key.path=value` texts. Out: the settings, or one SettingsError with all that is wrong: keys that are
unknown (with the nearest known one), missing, of a wrong type, or out of bounds. Knows YAML and `Checked` classes;
knows nothing of what the settings mean."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from descore.errors import ConfigError
from descore.io import atomic_write


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


S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that two settings do not agree on."""

    key: str
    here: Any
    there: Any


def read_config(path: Path, settings: type[S], *, overrides: Sequence[str] = ()) -> S:
    """The settings of a file, with overrides put over it. Whatever is wrong raises SettingsError with all of it."""
    values = _read_yaml(path)
    faults = [fault for text in overrides for fault in _override(values, text)]
    config, more = _build(settings, values)
    if config is None or faults:
        raise SettingsError(path.name, [*faults, *more])
    return config


def write_config(config: Any, path: Path) -> None:  # noqa: ANN401  # any Checked dataclass
    """All settings, defaults included, as a file that reads back equal."""
    atomic_write(path, yaml.safe_dump(plain(asdict(config)), sort_keys=False, allow_unicode=True))


def differences(here: Any, there: Any, *, but: Sequence[str] = ()) -> list[Difference]:  # noqa: ANN401
    """Where two settings of one class differ, but for the keys in `but`."""
    found = _unlike("", asdict(here), asdict(there))
    return [difference for difference in found if difference.key not in but]


_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where PyYAML would keep the last one and say nothing. Takes on, off, yes and
    no for words, as YAML 1.2 does: only true and false are truth values."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own way
        first: [(tag, form) for tag, form in known if tag != _BOOL]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(problem=f"key {twice!r} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|false)$", re.IGNORECASE), list("tTfF"))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except OSError as fault:
        raise ConfigError(f"{path}: cannot be opened ({fault.strerror or fault})") from fault
    except UnicodeDecodeError as fault:
        raise ConfigError(f"{path}: is no text in UTF-8") from fault
    except yaml.MarkedYAMLError as fault:
        line = f":{fault.problem_mark.line + 1}" if fault.problem_mark else ""
        raise ConfigError(f"{path}{line}: {fault.problem}") from fault
    except yaml.YAMLError as fault:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(fault).split())}") from fault
    if not isinstance(found, dict | None):
        raise ConfigError(f"{path}: found {type(found).__name__}, expected keys and values")
    return found or {}


def _override(values: dict[str, Any], text: str) -> list[Fault]:
    """Put `key.path=value` into `values`; the value is read as YAML."""
    path, equals, value = text.partition("=")
    *groups, key = path.strip().split(".")
    if not (equals and key and all(groups)):
        return [Fault(text, "cannot be read; write an override as key.path=value")]
    try:
        read = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        return [Fault(path, f"has a value that is not YAML: {value!r}")]
    for group in groups:
        inner = values.get(group)
        values[group] = values = dict(inner) if isinstance(inner, dict) else {}
    values[key] = read
    return []


def _build(settings: type[S], values: Mapping[Any, Any], *, at: str = "") -> tuple[S | None, list[Fault]]:
    """The settings, or what is wrong with them. `at` is the path of their key, with a dot behind it."""
    known = {field.name: field for field in fields(cast(Any, settings))}
    faults = [_unknown(key, known, at=at) for key in values if key not in known]
    hints = {name: without_rules(hint)[0] for name, hint in get_type_hints(settings, include_extras=True).items()}
    ready: dict[str, Any] = {}
    for name, field in known.items():
        if name in values:
            read, inner = _read_value(values[name], hints[name], at=f"{at}{name}.")
            ready |= {} if inner else {name: read}
            faults += inner or [Fault(at + f.key, f.message) for f in faults_of(settings, {name: read})]
        elif field.default is MISSING and field.default_factory is MISSING:
            faults.append(Fault(at + name, f"missing; expected {describe(hints[name])}"))
    if faults:
        return None, faults
    try:
        return settings(**ready), []
    except SettingsError as wrong:
        return None, [Fault(at + f.key, f.message) for f in wrong.faults]
    except ConfigError as wrong:
        return None, [Fault(at.rstrip("."), str(wrong))]


def _read_value(value: Any, hint: Any, *, at: str) -> tuple[Any, list[Fault]]:  # noqa: ANN401
    """The value in the field's own type where it can be had; else as it is, for the check to find."""
    options = get_args(hint) if get_origin(hint) is Union else (hint,)
    group = next((option for option in options if is_dataclass(option)), None)
    if group is not None and isinstance(value, Mapping):
        return _build(cast(type, group), value, at=at)
    if isinstance(value, str) and Path in options:
        return Path(value), []
    # YAML 1.1 takes 1e-5 for text, since it has no point.
    if isinstance(value, str) and float in options:
        return _number(value), []
    if isinstance(value, list):
        return tuple(_number(item) if isinstance(item, str) and float in get_args(hint) else item for item in value), []
    return value, []


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _unknown(key: object, known: Mapping[str, Any], *, at: str) -> Fault:
    near = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {at}{near[0]}?" if near else f"expected one of {', '.join(known)}"
    return Fault(f"{at}{key}", f"unknown key; {hint}")


def plain(value: Any) -> Any:  # noqa: ANN401
    """Values as YAML has them: lists for tuples, text for paths."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _unlike(key: str, here: Any, there: Any) -> Iterator[Difference]:  # noqa: ANN401
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in here:
            yield from _unlike(f"{key}.{name}" if key else name, here[name], there[name])
    elif here != there:
        yield Difference(key, here, there)
