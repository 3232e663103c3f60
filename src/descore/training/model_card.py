"""The README.md of a trained checkpoint: what it was trained on and how, and how well it does.

A pure function of the run's settings, its tables and its agreement with people on held-out pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2

from descore.model.checkpoint import CheckpointSettings
from descore.training.config import ChainSource, TrainingConfig
from descore.training.config_file import config_yaml
from descore.types import Paradigm

if TYPE_CHECKING:
    from descore.stats.bootstrap import Figure
    from descore.training.evaluate import PairAgreement

CARD_FILE = "README.md"
SOURCE_IN_WORDS: Mapping[ChainSource, str] = {
    "reference": "with the table's chains",
    "generated": "with its own chains",
    "none": "without chains",
}

_ROWS = {
    "rollout_reward": "| mean rollout reward of a chain | {rollout_reward:.3f} |",
    "quality": "| marks that equal the reference marks | {quality:.1%} |",
    "format": "| answers that can be read | {format:.1%} |",
    "chain_tokens": "| tokens of a chain | {chain_tokens:,.0f} |",
    "truncated_chains": "| chains cut off at the limit | {truncated_chains:,} of {chains:,} |",
    "kl": "| KL from the start, nats a token | {kl:.2g} |",
    "reward_drift": "| mean reward above what the start says of the same chains | {reward_drift:+.3f} |",
}
"""The line of each metric, where it is known."""


def chain_metrics_section(metrics: Mapping[str, Any]) -> str:
    """The section on chains, with an empty line at its end. metrics: the last line on training; without one, as where
    metrics.jsonl was lost, there is no section."""
    if "step" not in metrics:
        return ""
    rows = [row.format(**metrics) for name, row in _ROWS.items() if name in metrics]
    head = f"Means over the last rollouts on training pairs, up to step {metrics['step']:,}."
    return "\n".join(["## How its chains came out", "", head, "", "| | |", "|---|---|", *rows, "", ""])


_TEMPLATE = """\
---
library_name: descore
{% if config.model.backbone -%}
base_model: {{ config.model.backbone }}
{% endif -%}
tags: [reward-model, video, text-to-video]
---

# A video reward model

It reads a video and the prompt that the video was generated from, and gives a number that rises with people's
preference{{ " in " + dimensions if settings.dimensions|length > 1 else "" }}. {{ thinks }}

    from descore import Scorer

    scorer = Scorer.from_pretrained("PATH OF THIS FOLDER")
    print(scorer.score("clip.mp4", prompt="a red ball rolls to the left").reward)

Only differences between rewards mean something. The judging text in `rubric.txt` belongs to the model, and so does the
way clips are sampled in `descore.json`.

## Data

| table | pairs | used to |
|---|---|---|
{% for table in tables -%}
| `{{ table.file }}` | {{ "{:,}".format(table.pairs) }} | {{ table.use }} |
{% endfor %}
Started from `{{ config.model.backbone or config.model.checkpoint }}`, {{ origin }}.

## How well it does

{% if agreements -%}
Pairs of `{{ held_out }}`. \
{% if trained_on_them -%}
That is the very table that was trained on: the figures say what was learned by heart, not how well the model does.
{%- else -%}
Whether it shares clips or prompts with the table that was trained on was not looked at; `descore data check TRAIN EVAL`
does.
{%- endif %}
Accuracy is the share of decided pairs that the rewards put in people's order, with a 95 % interval that resamples whole
prompts; a pair without a score is in none of the figures. With ties, a pair counts as a tie where the
rewards differ by no more than a threshold, the best one for these pairs.

| chains | dimension | scored | accuracy | interval | decided pairs | with ties |
|---|---|---|---|---|---|---|
{% for row in agreements -%}
| {{ words[row.chain_source] }} | {{ row.dimension }} | {{ row.scored }} of {{ row.of }} | {{ accuracy(row) }} \
| {{ interval(row.accuracy) }} | {{ row.accuracy.n }} \
| {{ number(row.with_ties.figure.value) if row.with_ties else "no ties" }} |
{% endfor %}
{%- else -%}
Nothing was held out: how well it does is not known.
{% endif %}
{% if settings.reward_mean -%}
A score is the reward less its mean, over its deviation, on clips of the table that calibrates the reward: \
{% for name in settings.dimensions -%}
{{ name }} mean {{ settings.reward_mean[name] }}, deviation {{ settings.reward_std[name] }}\
{{ "; " if not loop.last else "." }}
{%- endfor %}
{%- else -%}
The reward was not calibrated: there is no standardized score.
{%- endif %}

{{ section }}## Settings

```yaml
{{ settings_yaml }}```
"""

_USES = {"train": "train", "eval": "judge the model", "calibration": "calibrate the reward"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTable:
    """A table of pairs that a run read."""

    name: str
    """train, eval or calibration."""
    file: str
    """Its path, as the settings have it."""
    pairs: int
    digest: str = ""
    """SHA-256 of its contents."""

    @property
    def use(self) -> str:
        """The purpose of the table, in words."""
        return _USES[self.name]


def render_card(
    config: TrainingConfig,
    settings: CheckpointSettings,
    *,
    tables: Sequence[CardTable],
    agreements: Sequence["PairAgreement"],
    origin: str,
    section: str = "",
) -> str:
    """The card. `origin`: where query and head come from, as in `models.head_origin`. `section`: another section of the
    stage, with its heading and an empty line at its end."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(_TEMPLATE).render(
        config=config,
        settings=settings,
        dimensions=", ".join(settings.dimensions),
        thinks=_THINKS[settings.paradigm],
        tables=tables,
        held_out=next((table.file for table in tables if table.name == "eval"), ""),
        trained_on_them=_same(tables, "train", "eval"),
        origin=origin,
        section=section,
        agreements=agreements,
        words=SOURCE_IN_WORDS,
        number=_number,
        accuracy=_accuracy,
        interval=_interval,
        settings_yaml=config_yaml(config),
    )


_THINKS: Mapping[Paradigm, str] = {
    "descore": "It writes a chain of thought before it scores; it can also score at once.",
    "discriminative": "It scores at once: it never saw a chain of thought in training.",
    "generative": "It writes a chain of thought, and the overall score that the chain ends with is its reward.",
}


def _same(tables: Sequence[CardTable], *names: str) -> bool:
    """Whether the tables of all these names are one table."""
    digests = [(table.digest or table.file) for table in tables if table.name in names]
    return len(digests) == len(names) and len(set(digests)) == 1


def _accuracy(row: "PairAgreement") -> str:
    if not row.scored:
        return "no score"
    return _number(row.accuracy.value) if row.accuracy.n else "no decided pair"


def _number(value: float) -> str:
    return f"{value:.3f}" if value == value else "–"  # nan is not equal to itself


def _interval(figure: "Figure") -> str:
    return f"{_number(figure.low)} to {_number(figure.high)}"
