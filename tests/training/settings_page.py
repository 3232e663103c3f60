"""docs/settings.md, made from the config classes: each key with its stages, type, bounds, default and meaning.

    python -m tests.training.settings_page

writes it anew; a test holds the page to it."""

from pathlib import Path

from descore.chains.config import CollectConfig
from descore.chains.rounds import RoundsConfig
from descore.config_model import describe_bounds, describe_type, group_in
from descore.training.config import ColdStartConfig, SftConfig
from descore.training.rl.config import RlConfig

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
STAGES = {"sft": SftConfig, "cold-start": ColdStartConfig, "rl": RlConfig}
INTRODUCTION = """# Settings

All keys of a config of `descore train sft`, `cold-start` and `rl`, and of `descore chains collect` and `chains rounds`,
generated from the config classes by `python -m tests.training.settings_page`. A config is YAML; `key.path=value` on the
command line changes single keys of it. `on`, `off`, `yes` and `no` are words, as in YAML 1.2. All problems are
reported at once:

    cold_start.yaml: 2 problems
      data.cot_drop        unknown key; did you mean data.chain_drop?
      optim.learning_rate  must be positive, got 0

[Training](training.md) is the guide to the stages.
"""
COLLECTION = """
## Of descore chains collect

[Chains](chains.md) is its guide. What is under `filters` may change between two calls, and so may prices and limits.

"""
ROUNDS = """
## Of descore chains rounds

[Without a teacher](chains.md#without-a-teacher) is its guide. `rounds` may grow in the same `out`; any other
change needs another.

"""
HEADING_WITHOUT_STAGE = "| key | value | default | meaning |\n|---|---|---|---|\n"
HEADING = "| key | stage | value | default | meaning |\n|---|---|---|---|---|\n"


def settings_page():
    """A table for each group; a key has several rows where it means different things to the stages."""
    stages = {name: dict(_rows(config, "")) for name, config in STAGES.items()}
    groups = {"": []}
    for key in _merged(stages.values()):
        cells_of = {name: rows[key] for name, rows in stages.items() if key in rows}
        for cells in dict.fromkeys(cells_of.values()):
            names = [name for name in cells_of if cells_of[name] == cells]
            row = [f"`{key}`", ", ".join(names) if len(names) < len(STAGES) else "all", *cells]
            groups.setdefault(key.partition(".")[0] if "." in key else "", []).append(f"| {' | '.join(row)} |\n")
    heading = {"": "Of the whole run"}
    tables = [f"\n## {heading.get(group, group)}\n\n{HEADING}{''.join(rows)}" for group, rows in groups.items()]
    return INTRODUCTION + "".join(tables) + COLLECTION + _table_of(CollectConfig) + ROUNDS + _table_of(RoundsConfig)


def _table_of(config):
    """A table of the keys of one command alone."""
    rows = (f"| `{key}` | {' | '.join(cells)} |\n" for key, cells in _rows(config, ""))
    return HEADING_WITHOUT_STAGE + "".join(rows)


def _merged(stages):
    """The keys of all stages; one that an earlier stage lacks stands behind the one that comes before it in its own."""
    keys = []
    for rows in stages:
        place = 0
        for key in rows:
            if key not in keys:
                keys.insert(place, key)
            place = keys.index(key) + 1
    return keys


def _rows(settings, at, defaults=None):
    """By key, its cells. `defaults`: the settings that the group has where it is left out, if they are not its own."""
    for name, field in settings.model_fields.items():
        group, default = (
            group_in(field.annotation),
            getattr(defaults, name, field.get_default(call_default_factory=True)),
        )
        if group:
            yield from _rows(group, f"{at}{name}.", default)
        else:
            shown = "required" if field.is_required() else _shown(default)
            yield f"{at}{name}", (_value(field), shown, " ".join(field.description.split()))


def _value(field):
    bounds = describe_bounds(field).replace("not be", "not").removeprefix("be ")
    return describe_type(field.annotation) + (f"; {bounds}" if bounds else "")


def _shown(value):
    value = list(value) if isinstance(value, tuple) else value
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
