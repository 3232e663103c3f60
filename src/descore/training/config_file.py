"""Settings in a YAML file, with overrides from a command line.

    config = read_config(Path("sft.yaml"), SftConfig, overrides=["optim.steps=10"])

Takes a file and `key.path=value` texts, gives the settings, or one SettingsError with all that is wrong in them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from descore.config_model import ConfigModel, Fault, SettingsError, faults_of
from descore.errors import ConfigError
from descore.io import atomic_write

C = TypeVar("C", bound=ConfigModel)


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that two settings do not agree on."""

    key: str
    here: Any
    there: Any


def read_config(path: Path, settings: type[C], *, overrides: Sequence[str] = ()) -> C:
    """The settings of a file, with overrides put over it. Whatever is wrong raises SettingsError with all of it."""
    values = _read_yaml(path)
    faults = [fault for text in overrides for fault in _override(values, text)]
    try:
        config = settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(path.name, [*faults, *faults_of(settings, values, error)]) from None
    if faults:
        raise SettingsError(path.name, faults)
    return config


def write_config(config: ConfigModel, path: Path) -> None:
    """All settings, defaults included, as a file that reads back equal."""
    atomic_write(path, config_yaml(config))


def config_yaml(config: ConfigModel) -> str:
    """All settings as the text of a YAML file."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(here: ConfigModel, there: ConfigModel, *, but: Sequence[str] = ()) -> list[Difference]:
    """Where two settings of one class differ, but for the keys in `but`."""
    unlike = _unlike("", here.model_dump(), there.model_dump())
    return [difference for difference in unlike if difference.key not in but]


_BOOL, _FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where PyYAML would keep the last one and not mention it. As in YAML 1.2, on,
    off, yes and no are words, only true and false are truth values, and a number needs no point: 1e-5."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own name
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
_Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text in UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: found {type(values).__name__}, expected keys and values")
    return values or {}


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


def _unlike(key: str, here: Any, there: Any) -> Iterator[Difference]:  # noqa: ANN401
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in here:
            yield from _unlike(f"{key}.{name}" if key else name, here[name], there[name])
    elif here != there:
        yield Difference(key, here, there)
