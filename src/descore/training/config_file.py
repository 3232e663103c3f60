"""Settings in a YAML file, with overrides from a command line.

    config = read_config(Path("sft.yaml"), SftConfig, overrides=["optim.max_steps=10"])

Takes a file and `key.path=value` texts, gives the settings, or one SettingsError with all that is wrong in them. Keys
and values of version 0.1 (`RENAMED`) are read as those that stand for them now, with a warning."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from descore.config_model import ConfigModel, Fault, SettingsError, faults_of
from descore.errors import ConfigError, DescoreWarning
from descore.io import atomic_write

C = TypeVar("C", bound=ConfigModel)


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that two settings do not agree on."""

    key: str
    here: Any
    there: Any


@dataclass(frozen=True, slots=True)
class Rename:
    """A key of version 0.1, and what stands for it now."""

    old: str
    new: str
    values: Mapping[str, str] = field(default_factory=dict)
    """By old value, or item of a list, the new one."""


_CHAIN_SOURCES = {"given": "reference", "written": "generated", "off": "none"}
_PAIRS, _COMPLETIONS = "run.shown_pairs", "run.num_completions_to_print"
RENAMED = (
    Rename("data.workers", "data.dataloader_num_workers"),
    Rename("data.prefetch", "data.dataloader_prefetch_factor"),
    Rename("trainable.lora.alpha", "trainable.lora.lora_alpha"),
    Rename("trainable.lora.dropout", "trainable.lora.lora_dropout"),
    Rename("trainable.lora.targets", "trainable.lora.target_modules"),
    Rename("optim.schedule", "optim.lr_scheduler_type", {"constant": "constant_with_warmup"}),
    Rename("optim.warmup", "optim.warmup_ratio"),
    Rename("optim.epochs", "optim.num_train_epochs"),
    Rename("optim.steps", "optim.max_steps"),
    Rename("optim.batch_size", "optim.per_device_train_batch_size"),
    Rename("optim.accumulate", "optim.gradient_accumulation_steps"),
    Rename("run.log_steps", "run.logging_steps"),
    Rename(_PAIRS, _COMPLETIONS),
    Rename("evaluate.ways", "evaluate.chain_sources", _CHAIN_SOURCES),
    Rename("evaluate.written_pairs", "evaluate.generated_pairs"),
    Rename("policy.kl_coef", "policy.beta"),
    Rename("policy.measure_start", "policy.log_kl"),
    Rename(
        "policy.loss_type",
        "policy.loss_type",
        {"per_token": "dapo", "per_sequence": "grpo", "fixed_length": "dr_grpo"},
    ),
)
"""Keys and values of version 0.1, read until version 0.3."""


def read_config(path: Path, settings: type[C], *, overrides: Sequence[str] = (), warn: bool = True) -> C:
    """The settings of a file, with overrides put over it. Whatever is wrong raises SettingsError with all of it.

    `warn`: give a DescoreWarning that names the new keys where the old ones are used."""
    values = _read_yaml(path)
    faults = [fault for text in overrides for fault in _override(values, text)]
    news, twice = _rename(values)
    faults += twice
    if news and warn:
        warnings.warn(f"{path.name} or its overrides: {'; '.join(news)}", DescoreWarning, stacklevel=2)
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
    except RecursionError as error:
        raise ConfigError(f"{path}: has too many brackets inside each other; expected keys and values") from error
    except ValueError as error:
        raise ConfigError(f"{path}: has a value that cannot be read: {error}") from error
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
    except (yaml.YAMLError, RecursionError, ValueError):
        return [Fault(path, f"has a value that is not YAML: {value[:80]!r}")]
    for rename in RENAMED:  # an override takes the place of the file's value, whichever name that has
        if path.strip() in (rename.old, rename.new):
            _pop(values, rename.old)
            _pop(values, rename.new)
    _put(values, [*groups, key], read)
    return []


def _rename(values: dict[str, Any]) -> tuple[list[str], list[Fault]]:
    """Put new keys and values in the place of old ones. Returns what was renamed, and keys that are given twice."""
    news, faults = list[str](), list[Fault]()
    for rename in RENAMED:
        value = _pop(values, rename.old)
        if value is _ABSENT:
            continue
        read = _new_value(rename, value, values)
        if rename.old != rename.new:
            if _pop(values, rename.new) is not _ABSENT:
                faults.append(Fault(rename.old, f"is {rename.new} now; give one of them"))
            news.append(f"{rename.old} is {rename.new} now")
        if read != value:
            news.append(f"{rename.new}: write {_as_yaml(read)} for {_as_yaml(value)}")
        _put(values, rename.new.split("."), read)
    return news, faults


def _new_value(rename: Rename, value: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401  # as YAML has it
    if isinstance(value, list):
        return [_new_value(rename, item, values) for item in value]
    if rename.old == _PAIRS and isinstance(value, int) and not isinstance(value, bool):
        num_generations = _get(values, "rollout.num_generations")
        return value * 2 * (num_generations if isinstance(num_generations, int) else 8)
    return rename.values.get(value, value) if isinstance(value, str) else value


def _as_yaml(value: Any) -> str:  # noqa: ANN401
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


_ABSENT = object()


def _get(values: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401
    *groups, key = path.split(".")
    for group in groups:
        inner = values.get(group)
        values = inner if isinstance(inner, dict) else {}
    return values.get(key, _ABSENT)


def _pop(values: dict[str, Any], path: str) -> Any:  # noqa: ANN401
    value = _get(values, path)
    if value is not _ABSENT:
        *groups, key = path.split(".")
        for group in groups:
            values = values[group]
        del values[key]
    return value


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:  # noqa: ANN401
    """Set a value; what stands in the way of its groups gives way."""
    *groups, key = path
    for group in groups:
        inner = values.get(group)
        values[group] = values = inner if isinstance(inner, dict) else {}
    values[key] = value


def _unlike(key: str, here: Any, there: Any) -> Iterator[Difference]:  # noqa: ANN401
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in {**here, **there}:  # a group of free keys may lack some
            yield from _unlike(f"{key}.{name}" if key else name, here.get(name), there.get(name))
    elif here != there:
        yield Difference(key, here, there)
