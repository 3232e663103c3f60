"""Preference pairs for DPO, or to train a reward model on, from a scored table.

    chosen = preference_pairs(read_scored("scores.parquet"), min_margin=0.5)
    chosen.pairs, chosen.dropped
    write_pairs(chosen, "scores.parquet", out="pairs.jsonl", form="trl")

In: rows of a scored table. Out: pairs, and a table of them. Choosing reads the rows once and keeps a few numbers of
each; writing reads them again where chains are wanted, and holds those of the pairs that are not whole yet."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from descore.data.tables import TableRow, columns_of
from descore.data.write import moved_path, table_writer
from descore.errors import AnswerError, ConfigError, DataError, how_to_install
from descore.rewards.ranking import Lead, LeftOut, RankedClip, RankedTable, Ranking, collect, together
from descore.rewards.scored import MARK_PREFIX, REWARD_PREFIX, ScoredRow, read_scored
from descore.rubric import marks_json, read_answer

Strategy = Literal["best-worst", "neighbours", "all"]
PairFormat = Literal["trl", "diffusers", "descore"]

LEAST_PROBABILITY = 0.5
"""Of the clip with the higher reward."""

LEAD_COLUMNS = ("place", "clips", "margin", "deviations", "probability", "clear_winner")
"""What a table of the best clips has beside the columns of the scored one: the place among so many clips of the prompt,
and the lead over the next place."""

_NUMBERS = frozenset(("reward", "score", "std", "samples", "place", "clips", "margin", "deviations", "probability"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """Two clips of one prompt, the first of which has the higher reward."""

    prompt: str
    group: str
    chosen: RankedClip
    rejected: RankedClip
    lead: Lead
    """Of the chosen over the rejected: margin and probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSelection:
    """The pairs of a table, and what became of the others."""

    pairs: tuple[PreferencePair, ...]
    """In the order in which both of their clips have been read."""
    prompts: int
    """Prompts with a pair."""
    dropped: Mapping[str, int]
    """The strategy's other pairs, by the rule that dropped them: equal, min_margin, min_probability, per_prompt."""
    single: int
    """Prompts with one clip only."""
    left_out: tuple[LeftOut, ...]
    """As in `RankedTable`."""


def preference_pairs(
    rows: Iterable[ScoredRow],
    *,
    strategy: Strategy = "best-worst",
    per_prompt: int | None = None,
    min_margin: float = 0.0,
    min_probability: float = LEAST_PROBABILITY,
    by: str | None = None,
    file: str | Path = "<rows>",
) -> PairSelection:
    """Pairs of a chosen and a rejected clip of each prompt.

    strategy: "best-worst" takes the best against the worst, the second best against the second worst, and so on, up to
    `per_prompt` pairs, 1 by default; "neighbours" each clip against the next one; "all" every two. Of the last two,
    per_prompt keeps those with the largest margins; None keeps all. min_margin: in units of the reward.
    min_probability: from .5; see `Lead`. by, file: as in `rank`; marks have no probability. Clips that are equal are no
    pair.

    ConfigError for a rule that cannot be met, and the errors of `rank`."""
    _check_rules(per_prompt=per_prompt, min_margin=min_margin, min_probability=min_probability)
    table = collect(rows, by=by, file=file)
    if table.is_mark and min_probability > LEAST_PROBABILITY:
        raise ConfigError(f"min_probability: {table.by} is a mark, which has no probability; use min_margin")
    most = 1 if per_prompt is None and strategy == "best-worst" else per_prompt
    dropped: Counter[str] = Counter()
    pairs: list[PreferencePair] = []
    for key, clips in table.prompts.items():
        kept = []
        for chosen, rejected in _STRATEGIES[strategy](clips, most):
            lead = table.lead(chosen, rejected)
            rule = _broken_rule(lead, min_margin=min_margin, min_probability=min_probability)
            if rule is None:
                kept.append(PreferencePair(prompt=key[0], group=key[1], chosen=chosen, rejected=rejected, lead=lead))
            else:
                dropped[rule] += 1
        pairs += sorted(kept, key=lambda pair: -pair.lead.margin)[:most]
        dropped["per_prompt"] += max(0, len(kept) - (most or len(kept)))
    pairs.sort(key=lambda pair: max(pair.chosen.number, pair.rejected.number))
    return PairSelection(
        pairs=tuple(pairs),
        dropped={rule: count for rule, count in dropped.items() if count},
        prompts=len({(pair.prompt, pair.group) for pair in pairs}),
        single=sum(len(clips) == 1 for clips in table.prompts.values()),
        left_out=tuple(table.left_out),
    )


def write_pairs(
    selection: PairSelection, table: str | Path, *, out: str | Path, form: PairFormat = "trl", seed: int = 0
) -> None:
    """Write pairs of a table as .csv, .jsonl or .parquet. Paths are relative to the new table's folder.

    form: "trl": prompt, chosen, rejected (the columns of TRL's preference data sets, with an explicit prompt), margin,
    probability. "diffusers": prompt, chosen_video, rejected_video. "descore": the schema of pairs that `descore train`
    reads, with the chains that end with a verdict, their marks, group and source; which clip is a is drawn by the seed.

    ConfigError if `out` is there or cannot be written; DataError if there are no pairs."""
    table, out = Path(table), Path(out)
    if not selection.pairs:
        raise DataError(str(table), 1, f"no pair is left: {_why_none(selection)}")
    columns, make = _FORMATS[form]
    with table_writer(out, columns, schema=_arrow_schema(out, columns)) as write:
        for row in make(selection.pairs, table, seed):
            write(row | {key: moved_path(row[key], table=table, out=out) for key in _VIDEOS & row.keys()})


def write_best(ranked: RankedTable, table: str | Path, *, out: str | Path) -> None:
    """Write the rows of the ranked clips, prompt by prompt and best first, with all columns of the scored table and
    LEAD_COLUMNS. Paths are relative to the new table's folder.

    ConfigError if `out` is there or cannot be written; DataError if no clip is ranked."""
    table, out = Path(table), Path(out)
    if not ranked.rankings:
        raise DataError(str(table), 1, "no clip has a reward; expected one at least")
    columns = tuple(dict.fromkeys((*columns_of(table), *LEAD_COLUMNS)))
    sets = {index: [clip.number for clip in r.places] for index, r in enumerate(ranked.rankings)}
    schema = _arrow_schema(out, columns)
    with table_writer(out, columns, schema=schema) as write:
        for index, rows in together(read_scored(table, resolve=False), sets):
            for place, row in enumerate(rows):
                cells = {**row.columns, **row.results(), **_lead_cells(ranked.rankings[index], place)}
                cells["video"] = moved_path(row.video, table=table, out=out)
                write(_written({c: cells.get(c) for c in columns}, schema))


def _lead_cells(ranking: Ranking, place: int) -> TableRow:
    lead = ranking.leads[place] if place < len(ranking.leads) else None
    return {
        "place": place + 1,
        "clips": ranking.clips,
        "margin": None if lead is None else lead.margin,
        "deviations": None if lead is None else lead.deviations,
        "probability": None if lead is None else lead.probability,
        "clear_winner": None if lead is None else lead.clear,
    }


def _arrow_schema(out: Path, columns: Sequence[str]) -> Any:  # noqa: ANN401  # pyarrow is not typed
    """The types of columns in Parquet: numbers for known ones, texts for all others. None for a table of another kind,
    which needs none."""
    if out.suffix.lower() != ".parquet":
        return None
    try:
        arrow = import_module("pyarrow")
    except ImportError:
        raise ConfigError(f"{out}: Parquet needs pyarrow; {how_to_install('tables')}") from None
    numbers = {c for c in columns if c in _NUMBERS or c.startswith((REWARD_PREFIX, MARK_PREFIX))}
    return arrow.schema([(c, arrow.float64() if c in numbers else arrow.string()) for c in columns])


def _written(cells: TableRow, schema: Any) -> TableRow:  # noqa: ANN401
    """The cells as Parquet's columns take them: a value of a column of texts is its JSON."""
    if schema is None:
        return cells
    texts = {name for name, value in cells.items() if value is not None and str(schema.field(name).type) == "string"}
    return {c: json.dumps(v, default=str) if c in texts and not isinstance(v, str) else v for c, v in cells.items()}


def _check_rules(*, per_prompt: int | None, min_margin: float, min_probability: float) -> None:
    if per_prompt is not None and per_prompt < 1:
        raise ConfigError(f"per_prompt is {per_prompt}; expected 1 or more pairs")
    if not min_margin >= 0:
        raise ConfigError(f"min_margin is {min_margin}; expected 0 or more, in units of the reward")
    if not LEAST_PROBABILITY <= min_probability < 1:
        raise ConfigError(f"min_probability is {min_probability}; expected from .5 to below 1")


_Pairs = Iterator[tuple[RankedClip, RankedClip]]


def _best_worst(clips: Sequence[RankedClip], most: int | None) -> _Pairs:
    count = len(clips) // 2 if most is None else min(most, len(clips) // 2)
    return ((clips[k], clips[-1 - k]) for k in range(count))


_STRATEGIES: Mapping[Strategy, Callable[[Sequence[RankedClip], int | None], _Pairs]] = {
    "best-worst": _best_worst,
    "neighbours": lambda clips, _: iter(pairwise(clips)),
    "all": lambda clips, _: combinations(clips, 2),
}


def _broken_rule(lead: Lead, *, min_margin: float, min_probability: float) -> str | None:
    """The first rule that a pair breaks."""
    if lead.margin <= 0:
        return "equal"
    if lead.margin < min_margin:
        return "min_margin"
    if lead.probability is not None and lead.probability < min_probability:
        return "min_probability"
    return None


def _why_none(selection: PairSelection) -> str:
    reasons = [f"{count:,} dropped by {rule}" for rule, count in selection.dropped.items()]
    reasons += [f"{selection.single:,} prompts with one clip"] if selection.single else []
    reasons += [f"{len(selection.left_out):,} clips left out"] if selection.left_out else []
    return ", ".join(reasons) or "the table has no rows"


def _trl_rows(pairs: Sequence[PreferencePair], table: Path, seed: int) -> Iterator[TableRow]:  # noqa: ARG001
    for pair in pairs:
        yield {
            "prompt": pair.prompt,
            "chosen": pair.chosen.name,
            "rejected": pair.rejected.name,
            "margin": pair.lead.margin,
            "probability": pair.lead.probability,
        }


def _diffusers_rows(pairs: Sequence[PreferencePair], table: Path, seed: int) -> Iterator[TableRow]:  # noqa: ARG001
    for pair in pairs:
        yield {"prompt": pair.prompt, "chosen_video": pair.chosen.name, "rejected_video": pair.rejected.name}


def _descore_rows(pairs: Sequence[PreferencePair], table: Path, seed: int) -> Iterator[TableRow]:
    sets = {index: (pair.chosen.number, pair.rejected.number) for index, pair in enumerate(pairs)}
    for index, rows in together(read_scored(table, resolve=False), sets):
        pair = pairs[index]
        swapped = np.random.default_rng([seed, *sets[index]]).random() < 0.5
        a, b = rows[::-1] if swapped else rows
        yield {
            "prompt": pair.prompt,
            "preference": "b" if swapped else "a",
            **_sides(a, b),
            "group": pair.group or pair.prompt,
            "source_a": _source(a),
            "source_b": _source(b),
            "margin": pair.lead.margin,
            "probability": pair.lead.probability,
        }


def _sides(a: ScoredRow, b: ScoredRow) -> TableRow:
    """Videos, chains and marks of both sides. A chain without a verdict teaches nothing, and one chain alone is no
    pair of them: both are there, or neither."""
    marks = {"a": _chain_marks(a), "b": _chain_marks(b)}
    both = None not in marks.values()
    cells: TableRow = {"video_a": a.video, "video_b": b.video}
    for letter, row in (("a", a), ("b", b)):
        cells |= {f"chain_{letter}": row.chain if both else None, f"marks_{letter}": marks[letter] if both else None}
    return cells


def _chain_marks(row: ScoredRow) -> str | None:
    """The marks of a row's chain as JSON; None where it has no verdict."""
    if not row.chain or row.truncated:
        return None
    try:
        return marks_json(read_answer(row.chain).marks)
    except AnswerError:
        return None


def _source(row: ScoredRow) -> str | None:
    source = row.columns.get("source")
    return None if source in (None, "") else str(source)


_VIDEOS = frozenset(("chosen", "rejected", "chosen_video", "rejected_video", "video_a", "video_b"))

_FORMATS: Mapping[
    PairFormat, tuple[tuple[str, ...], Callable[[Sequence[PreferencePair], Path, int], Iterator[TableRow]]]
] = {
    "trl": (("prompt", "chosen", "rejected", "margin", "probability"), _trl_rows),
    "diffusers": (("prompt", "chosen_video", "rejected_video"), _diffusers_rows),
    "descore": (
        (
            *("prompt", "video_a", "video_b", "preference", "chain_a", "chain_b", "marks_a", "marks_b"),
            *("group", "source_a", "source_b", "margin", "probability"),
        ),
        _descore_rows,
    ),
}
"""By name: the columns, and what makes the rows."""
