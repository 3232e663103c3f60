"""Settings in a YAML file, with overrides from a command line.

    config = read_config(Path("sft.yaml"), SftConfig, overrides=["optim.steps=10"])

In: a file, `key.path=value` texts. Out: the settings, or one SettingsError with all that is wrong: keys that are
unknown (with the nearest known one), missing, of a wrong type, or out of bounds. Knows YAML and `Checked` classes;
knows nothing of what the settings mean."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from descore.errors import ConfigError
from descore.training.checked import Fault, SettingsError, describe, faults_of, without_rules

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
    """All settings, defaults included, as a file that reads back equal. Written aside and then put in place."""
    aside = path.with_name(path.name + ".partial")
    aside.write_text(yaml.safe_dump(plain(asdict(config)), sort_keys=False, allow_unicode=True), encoding="utf-8")
    aside.replace(path)


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
