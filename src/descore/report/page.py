"""Evaluation runs, or the chains of a training, as one self-contained page of HTML: no network, no font, and no script
but a few lines for sorting.

In: runs and the contents of stress.json files, or the records of a chains.jsonl. Out: the page, the same text for the
same records. All text of records is untrusted: it is escaped, and the page's content security policy forbids other
scripts and addresses."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from descore.evaluation.results import LEAST_CLIPS
from descore.evaluation.runs import Run
from descore.report import charts, findings, plots, tables, text
from descore.report.findings import ThinkingEffect
from descore.report.tables import NamedRun, by_benchmark, name_runs, thinking_pairs
from descore.rubric import unknown_of
from descore.types import DIMENSIONS

MAX_PAIRS = 12
"""Mistakes, failures and changed pairs on a page, so that it stays readable however large a run is."""
MAX_ROWS = 40
"""Rows of a table of generators or aspects."""
MAX_CHAIN_PAIRS = 40
"""Pairs on a page of chains, the newest of the run."""

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src {script}; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainsOfClip:
    """A clip and its group of chains."""

    letter: str
    video: str
    preferred: bool
    reference_marks: Mapping[str, int | None] | None
    chains: tuple[Mapping[str, Any], ...]
    """The best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainsOfPair:
    """A pair of one training step."""

    step: int
    prompt: str
    tie: bool
    sides: tuple[ChainsOfClip, ...]


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
        differences=[rows for group in groups if (rows := findings.model_differences(group))],
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


def render_chains(
    records: Sequence[Mapping[str, Any]], *, title: str, weights: Mapping[str, float] | None = None
) -> str:
    """The page of chains that were sampled in training, with their rollout rewards and the parts of these.

    records: lines of chains.jsonl in their order; a resumed run may write a chain again, and then the last
    record counts. title: the run's name. weights: by part, its weight in the rollout reward, where that is known."""
    pairs = pairs_of_chains(records)
    parts = dict.fromkeys(part for record in records for part in record["parts"])
    return fill(
        "chains.html.j2",
        generator="descore train rl",
        title=title,
        pairs=pairs[: -MAX_CHAIN_PAIRS - 1 : -1],
        hidden=len(pairs) > MAX_CHAIN_PAIRS,
        parts=tuple(parts),
        weights=weights or {},
        dimensions=DIMENSIONS,
        unknown_of=unknown_of,
    )


def pairs_of_chains(records: Sequence[Mapping[str, Any]]) -> list[ChainsOfPair]:
    """The pairs in the order of their steps, each with all its chains."""
    last = {(r["step"], r["pair"], r["side"], r["sample"]): r for r in records}
    by_pair: dict[tuple[int, int], dict[str, list[Mapping[str, Any]]]] = {}
    for step, pair, side, _ in sorted(last):
        by_pair.setdefault((step, pair), {}).setdefault(side, [])
    for (step, pair, side, _), record in last.items():
        by_pair[step, pair][side].append(record)
    return [_pair(step, sides) for (step, _), sides in by_pair.items()]


def _pair(step: int, sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> ChainsOfPair:
    first = next(iter(sides.values()))[0]
    return ChainsOfPair(
        step=step,
        prompt=first["prompt"],
        tie=first["preference"] == "tie",
        sides=tuple(_side(letter, chains) for letter, chains in sides.items()),
    )


def _side(letter: str, chains: Sequence[Mapping[str, Any]]) -> ChainsOfClip:
    first = chains[0]
    return ChainsOfClip(
        letter=letter,
        video=findings.short_path(first["video"]),
        preferred=first["preference"] == letter,
        reference_marks=first["reference_marks"],
        chains=tuple(sorted(chains, key=_rollout_reward, reverse=True)),
    )


def _rollout_reward(record: Mapping[str, Any]) -> float:
    reward: float | None = record["rollout_reward"]
    return float("-inf") if reward is None else reward


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
