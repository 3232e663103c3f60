"""Evaluation runs as one page of HTML that stands alone: no network, no font, no script but a few lines for sorting.

In: runs, and stress results as they were stored. Out: the page, the same letters for the same records. A pure function:
no clock, no disk but the templates. All text of records is untrusted: it is escaped, and the page's own policy forbids
scripts and addresses that it does not carry itself."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from descore.evaluation.runs import Run
from descore.report import charts, figures, mistakes, plots, tables
from descore.report.findings import ThinkingEffect, sources, thinking_effect, worst_mistakes
from descore.report.naming import NamedRun, by_benchmark, name_runs, thinking_and_not
from descore.report.text import MARK_WORDS, plain
from descore.types import DIMENSIONS

MOST = 12
"""Mistakes, failures and turned pairs that are shown: a page stays readable however large a run is."""
MOST_ROWS = 40
"""Lines of a table of generators or aspects."""

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src {script}; "
    "base-uri 'none'; form-action 'none'"
)


def render(runs: Sequence[Run], *, stress: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page.

    runs: as `read_run` gives them, in the order in which they are shown; those of one benchmark are shown together.
    stress: the objects of stress.json files. Either may be empty."""
    named = name_runs(runs)
    groups = list(by_benchmark(named).values())
    boards, effects = [tables.board(group) for group in groups], _effects(named)
    by_source = [(group[0].run.title, group, sources(group)) for group in groups]
    by_aspect = [table for group in groups if (table := tables.aspects(group)).lines]
    return fill(
        "page.html.j2",
        generator="descore report",
        scripted=True,
        runs=named,
        boards=boards,
        failures=tables.failures(named),
        distributions=[plots.distributions(group) for group in groups],
        differences=[chart for group in groups for chart in plots.differences(group)],
        reliabilities=[chart for group in groups for chart in plots.reliabilities(group)],
        correlated=[band for board in boards for band in tables.correlated(board)],
        overview=tables.overview(boards),
        effects=effects,
        flips=mistakes.flips(effects, most=MOST),
        mistakes=[mistakes.mistake_view(mistake) for mistake in worst_mistakes(named, most=MOST)],
        groups=by_source,
        aspect_tables=by_aspect,
        grouped=bool(by_aspect) or any(found for *_, found in by_source),
        stress=stress,
        most=MOST,
        most_rows=MOST_ROWS,
        dimensions=DIMENSIONS,
        marked=(*DIMENSIONS, "all", "asked"),
        mark_words=MARK_WORDS,
    )


def fill(template: str, *, generator: str, scripted: bool = False, **values: Any) -> str:  # noqa: ANN401
    """A page: a template with its values, our style sheet, our script if `scripted`, and a content security policy that
    allows just these. generator: the command that writes the page."""
    style, script = _source("page.css"), _source("page.js") if scripted else ""
    policy = _POLICY.format(style=_digest(style), script=f"'sha256-{_digest(script)}'" if scripted else "'none'")
    # Our own files need no escaping.
    head = {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}
    return _environment().get_template(template).render(generator=generator, **head, **values)


def _effects(named: Sequence[NamedRun]) -> list[ThinkingEffect]:
    found = [
        thinking_effect(on, off, label)
        for on, off in thinking_and_not(named)
        for label in on.run.results["labels"]
        if label in off.run.results["labels"]
    ]
    return [effect for effect in found if effect is not None]


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


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
        "decimal": figures.decimal,
        "difference": figures.difference,
        "span": figures.span,
        "count": figures.count,
        "number": figures.number,
        "known": figures.known,
    }
    environment.globals |= {"key": charts.key, "interval": charts.interval, "short_path": mistakes.short_path}
    return environment


def _readable(value: Any) -> Any:  # noqa: ANN401
    """Any text that reaches the page without being markup: control characters and lone surrogates are replaced."""
    return plain(value) if type(value) is str else value
