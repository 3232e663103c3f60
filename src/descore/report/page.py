"""Evaluation runs as one self-contained page of HTML: no network, no font, and no script but a few lines for sorting.

In: runs, and the contents of stress.json files. Out: the page, the same text for the same records. All text of records
is untrusted: it is escaped, and the page's content security policy forbids other scripts and addresses."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from descore.evaluation.results import LEAST_CLIPS
from descore.evaluation.runs import Run
from descore.report import charts, findings, plots, tables, text
from descore.report.findings import ThinkingEffect
from descore.report.tables import NamedRun, by_benchmark, name_runs, thinking_pairs
from descore.types import DIMENSIONS

MAX_PAIRS = 12
"""Mistakes, failures and changed pairs on a page, so that it stays readable however large a run is."""
MAX_ROWS = 40
"""Rows of a table of generators or aspects."""

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src {script}; "
    "base-uri 'none'; form-action 'none'"
)


def render(runs: Sequence[Run], *, stress: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page.

    runs: from `read_run`, in the order of the page; runs of one benchmark stand together. stress: the objects of
    stress.json files. Either may be empty."""
    named = name_runs(runs)
    groups = list(by_benchmark(named).values())
    agreement, effects = [tables.agreement_table(group) for group in groups], _thinking_effects(named)
    generators = [(group[0].run.title, group, findings.by_generator(group)) for group in groups]
    aspect_tables = [table for group in groups if (table := tables.aspect_table(group)).rows]
    return fill(
        "page.html.j2",
        generator="descore report",
        scripted=True,
        runs=named,
        agreement=agreement,
        failures=tables.failures(named),
        reward_charts=[plots.reward_charts(group) for group in groups],
        difference_charts=[charts for group in groups for charts in plots.difference_charts(group)],
        reliability_charts=[charts for group in groups for charts in plots.reliability_charts(group)],
        spread_charts=[charts for group in groups for charts in plots.spread_charts(group)],
        correlations=[group for table in agreement for group in tables.correlation_groups(table)],
        overview=tables.overview(agreement),
        effects=effects,
        flips=findings.all_flips(effects, limit=MAX_PAIRS),
        mistakes=[findings.mistake_view(mistake) for mistake in findings.worst_mistakes(named, limit=MAX_PAIRS)],
        generators=generators,
        aspect_tables=aspect_tables,
        grouped=bool(aspect_tables) or any(figures for *_, figures in generators),
        stress=stress,
        least_clips=LEAST_CLIPS,
        max_pairs=MAX_PAIRS,
        max_rows=MAX_ROWS,
        dimensions=DIMENSIONS,
        mark_columns=(*DIMENSIONS, "all", "asked"),
    )


def fill(template: str, *, generator: str, scripted: bool = False, **values: Any) -> str:  # noqa: ANN401
    """A page: a template with its values, our style sheet, our script if `scripted`, and a content security policy that
    allows just these. generator: the command that writes the page."""
    style, script = _source("page.css"), _source("page.js") if scripted else ""
    policy = _POLICY.format(style=_digest(style), script=f"'sha256-{_digest(script)}'" if scripted else "'none'")
    # Our own files need no escaping.
    head = {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}
    return _environment().get_template(template).render(generator=generator, **head, **values)


def _thinking_effects(named: Sequence[NamedRun]) -> list[ThinkingEffect]:
    effects = [
        findings.thinking_effect(on, off, label)
        for on, off in thinking_pairs(named)
        for label in on.run.results["labels"]
        if label in off.run.results["labels"]
    ]
    return [effect for effect in effects if effect is not None]


def _digest(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("descore.report"),
        autoescape=True,
        finalize=_readable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimal": text.decimal,
        "signed_decimal": text.signed_decimal,
        "interval_text": text.interval_text,
        "count": text.count,
        "number": text.number,
        "or_dash": text.or_dash,
    }
    environment.globals |= {
        "mark_word": text.mark_word,
        "legend_key": charts.legend_key,
        "interval_chart": charts.interval_chart,
        "short_path": findings.short_path,
    }
    return environment


def _readable(value: Any) -> Any:  # noqa: ANN401
    """Replace control characters and lone surrogates of any text that is not markup."""
    return text.plain(value) if type(value) is str else value
