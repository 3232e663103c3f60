"""Filter a teacher's chains, step by step, by what can be read in them and by what people say of the clips.

    for outcome in filter_candidates(source.rows, candidates_of_row, settings, rubric=rubric): ...

In: rows of the source table, the candidates of each, the settings. Out: for each row its chains, each kept or rejected
at one of STEPS with the reason. A chain is used as it came or not at all; none is rewritten.

    answer      the request gave an answer at all
    format      it ends with an answer that can be read
    length      words before the answer
    marks       a mark for each of the five dimensions, and not all of them N/A
    grounding   it names a thing of the prompt, does not repeat itself, and does not quote the rubric
    agreement   its overall scores agree with people's label
    choice      of several that are left, the settings' choice

In a table of pairs, the chains of a and b that are left before `agreement` are coupled in their order: the first of a
with the first of b. A couple is kept or rejected together, since training reads both chains of a pair or neither."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from descore.chains.grounding import ungrounded
from descore.chains.records import Candidate
from descore.chains.source import ChainRow
from descore.config_model import ConfigModel, UnitInterval
from descore.data.schema import OVERALL
from descore.errors import AnswerError, ConfigError, MarkError
from descore.rubric import read_answer
from descore.types import PREFERENCE_SIGN, Pair, Verdict

FilterStep = Literal["answer", "format", "length", "marks", "grounding", "agreement", "choice"]
STEPS: tuple[FilterStep, ...] = ("answer", "format", "length", "marks", "grounding", "agreement", "choice")
ChainChoice = Literal["shortest", "median", "nearest", "all"]
RejectedPairs = Literal["pair-loss", "stage-2", "drop"]
WeakMarkName = Literal["subject", "dynamics", "camera", "environment", "style"]

_CLOSE, _OPEN = "</answer>", "<answer>"
_LOWEST, _HIGHEST = 1.0, 5.0
"""Of an overall score."""


class FilterConfig(ConfigModel):
    """Which chains are kept, and what becomes of pairs without one."""

    min_words: NonNegativeInt = 10
    """Words that a chain has before its answer, at least."""
    max_words: PositiveInt = 700
    """Words before its answer, at most: about the 1,024 tokens that a checkpoint allows by default."""
    grounding: bool = True
    """Reject a chain that names no thing of the prompt, repeats itself, or quotes the rubric. Words are compared as
    they are written: a chain that says everything in synonyms is rejected too."""
    most_repeated: UnitInterval = 0.3
    """Share of a chain's runs of four words that may have been there before."""
    longest_quote: PositiveInt = 12
    """Words of the rubric that a chain may have in a row."""
    agreement: bool = True
    """Reject chains whose overall scores disagree with people's label. A row without a label is not tested."""
    label: str | None = None
    """Name of the label: NAME of a column preference.NAME or rating.NAME. null: the column preference or rating; in a
    table without it, the mean over all labels."""
    margin: NonNegativeFloat = 0.0
    """Pairs: how far the overall of the preferred clip is above the other's, at least. It is higher in any case."""
    tie_margin: NonNegativeFloat = 0.5
    """Pairs that people call a tie: how far the two overalls are apart, at most."""
    tolerance: NonNegativeFloat = 1.0
    """Rated clips: how far the overall is from the rating, at most, in points of the overall (1 to 5)."""
    rating_range: Annotated[tuple[float, float], Field(strict=False)] = (_LOWEST, _HIGHEST)
    """The lowest and the highest rating that people could give; they stand for the overalls 1 and 5."""
    choice: ChainChoice = "median"
    """Of several chains or couples that agree. shortest: in words. median: the one of middle length. nearest: the one
    nearest to the ratings; without ratings, the one in which the preferred clip leads by most, or in which clips of a
    tie are closest. all: each is a row of its own."""
    rejected_pairs: RejectedPairs = "pair-loss"
    """Pairs none of whose couples is left. pair-loss: they stay in the table without chains and marks, and train the
    reward. stage-2: they go to stage2.jsonl, for `descore train rl`: chains of a generative model learn from their
    label there; else the head learns from it alone, unless `weak_marks` gives them marks. drop: they are left out."""
    weak_marks: dict[str, WeakMarkName] = Field(default_factory=dict)
    """By label of a rating, the dimension that it stands for, such as {VQ: style, MQ: dynamics, TA: subject}. Rejected
    pairs get marks by it: the lowest third of `rating_range` is 0, the next 1, the highest 2; other dimensions are N/A.
    Empty: they get none."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Bounds that leave room, and a mapping that names each dimension once."""
        if self.min_words > self.max_words:
            yield "min_words", f"is above max_words ({self.min_words} and {self.max_words}); no chain could be kept"
        if self.rating_range[0] >= self.rating_range[1]:
            yield "rating_range", f"is {list(self.rating_range)}; expected the lowest rating, then the highest"
        names = list(self.weak_marks.values())
        if twice := next((name for name in names if names.count(name) > 1), None):
            yield "weak_marks", f"gives {twice} twice; map one label to each dimension"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredChain:
    """A candidate, what was read in it, and where it was rejected."""

    candidate: Candidate
    verdict: Verdict | None = None
    """None if it cannot be read."""
    words: int = 0
    """Before its answer."""
    step: FilterStep | None = None
    """Where it was rejected; None if it was kept."""
    reason: str = ""

    def rejected(self, step: FilterStep, reason: str) -> "FilteredChain":
        """The chain as one that was rejected there."""
        return replace(self, step=step, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredRow:
    """A row with its chains."""

    row: ChainRow
    couples: tuple[tuple[FilteredChain, ...], ...]
    """What was chosen: a and b of a pair, or the one chain of a single clip. None: nothing was."""
    compared: tuple[tuple[FilteredChain, ...], ...]
    """All that came to `agreement`, in the same form, with what became of them."""
    chains: tuple[FilteredChain, ...]
    """All chains of the row, those above included."""
    labelled: bool
    """Whether people's label could be asked."""

    @property
    def rejected(self) -> tuple[FilteredChain, ...]:
        """The chains that were not kept."""
        return tuple(chain for chain in self.chains if chain.step is not None)


CandidatesOfRow = Callable[[int], Sequence[Candidate]]
"""From a row's number to its candidates, by side and number."""


def filter_candidates(
    rows: Iterable[ChainRow], candidates_of: CandidatesOfRow, settings: FilterConfig, *, rubric: str
) -> Iterator[FilteredRow]:
    """The rows with their chains, one at a time, so that a long run takes no memory.

    rubric: the judging text under which chains were asked for. ConfigError for a label that a row cannot have, or a
    rating outside of `rating_range`."""
    for row in rows:
        yield filter_row(row, candidates_of(row.number), settings, rubric=rubric)


def filter_row(row: ChainRow, candidates: Sequence[Candidate], settings: FilterConfig, *, rubric: str) -> FilteredRow:
    """The filters on one row."""
    chains = [read_chain(candidate, settings, rubric=rubric) for candidate in candidates]
    failed = [chain for chain in chains if chain.step is not None]
    couples, alone = _coupled([chain for chain in chains if chain.step is None], row)
    label = label_of(row, settings)
    compared = [_tested(couple, label, settings) for couple in couples]
    agreeing = [couple for couple in compared if couple[0].step is None]
    chosen = _chosen(agreeing, label, settings)
    compared = [_unless_chosen(couple, chosen, settings) for couple in compared]
    kept = tuple(couple for couple in compared if couple[0].step is None)
    everything = (*failed, *alone, *(chain for couple in compared for chain in couple))
    order = {candidate.place: index for index, candidate in enumerate(candidates)}
    return FilteredRow(
        row=row,
        couples=kept,
        compared=tuple(compared),
        chains=tuple(sorted(everything, key=lambda chain: order[chain.candidate.place])),
        labelled=label is not None,
    )


def read_chain(candidate: Candidate, settings: FilterConfig, *, rubric: str) -> FilteredChain:
    """A candidate, by the steps that look at it alone."""
    text = candidate.text
    chain = FilteredChain(candidate=candidate, words=0 if text is None else len(prose_of(text).split()))
    if text is None:
        reason = "no answer" if candidate.error is None else f"{candidate.error.kind}: {candidate.error.message}"
        return chain.rejected("answer", reason)
    try:
        chain, fault = replace(chain, verdict=read_answer(text)), None
    except MarkError as error:
        fault = str(error)
    except AnswerError as error:
        cut = " (it was cut off)" if candidate.finish == "length" else ""
        return chain.rejected("format", f"{error}{cut}")
    if behind := text.rpartition(_CLOSE)[2].strip():
        return chain.rejected("format", f"{len(behind):,} characters behind the answer")
    if not settings.min_words <= chain.words <= settings.max_words:
        return chain.rejected("length", _wrong_length(chain, settings))
    if chain.verdict is None or set(chain.verdict.marks.values()) == {None}:
        return chain.rejected("marks", fault or "all five marks are N/A")
    limits = {"most_repeated": settings.most_repeated, "longest_quote": settings.longest_quote}
    if settings.grounding and (
        why := ungrounded(prose_of(text), prompt=candidate.prompt, rubric=rubric, **limits)  # type: ignore[arg-type]
    ):
        return chain.rejected("grounding", why)
    return chain


def prose_of(chain: str) -> str:
    """A chain without its answer; the whole text if it has none."""
    end = chain.rfind(_OPEN, 0, max(chain.rfind(_CLOSE), 0))
    return chain if end < 0 else chain[:end]


def _wrong_length(chain: FilteredChain, settings: FilterConfig) -> str:
    apart = "; its reasoning came apart from the answer" if chain.candidate.thinking else ""
    return f"{chain.words:,} words; expected {settings.min_words:,} to {settings.max_words:,}{apart}"


def _coupled(
    chains: Sequence[FilteredChain], row: ChainRow
) -> tuple[list[tuple[FilteredChain, ...]], list[FilteredChain]]:
    """Chains of a and b in couples, and those that have no partner; single clips' chains each by itself."""
    if len(row.clips) == 1:
        return [(chain,) for chain in chains], []
    a, b = ([chain for chain in chains if chain.candidate.side == side] for side in ("a", "b"))
    both = min(len(a), len(b))
    why = "no chain of the other clip is left to compare it with"
    return list(zip(a, b, strict=False)), [chain.rejected("agreement", why) for chain in (*a[both:], *b[both:])]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeoplesLabel:
    """What people say of a row, on the scale of overalls."""

    sign: int | None = None
    """Pairs: 1 if a is preferred, -1 if b is, 0 for a tie."""
    overalls: tuple[float, ...] = ()
    """The ratings of its clips as overalls; empty where they are not rated."""


def label_of(row: ChainRow, settings: FilterConfig) -> PeoplesLabel | None:
    """The label that chains have to agree with; None if the row has none, or is not to be tested."""
    record = row.record
    if not settings.agreement:
        return None
    if not isinstance(record, Pair):
        rating = _one(record.ratings, settings.label, row)
        return None if rating is None else PeoplesLabel(overalls=(_as_overall(rating, settings, row),))
    mean = _one({name: PREFERENCE_SIGN[choice] for name, choice in record.preference.items()}, settings.label, row)
    if mean is None:
        return None
    ratings = [_one(side.ratings, settings.label, row, strict=False) for side in (record.a, record.b)]
    overalls = tuple(_as_overall(rating, settings, row, strict=False) for rating in ratings if rating is not None)
    return PeoplesLabel(sign=(mean > 0) - (mean < 0), overalls=overalls if len(overalls) == len(ratings) else ())


def _one(values: dict[str, float] | object, name: str | None, row: ChainRow, *, strict: bool = True) -> float | None:
    """The value of a label: the named one, the overall, or the mean of all; None if the row has none."""
    assert isinstance(values, dict)
    if name is not None:
        known = any(column.endswith(f".{name}") for column in row.cells) or name == OVERALL
        if strict and not known:
            raise ConfigError(
                f"filters.label is {name!r}, of which the table has no column; it has {', '.join(row.cells)}"
            )
        return values.get(name)
    if OVERALL in values:
        return float(values[OVERALL])
    return sum(values.values()) / len(values) if values else None


def _as_overall(rating: float, settings: FilterConfig, row: ChainRow, *, strict: bool = True) -> float:
    low, high = settings.rating_range
    if strict and not low <= rating <= high:
        raise ConfigError(
            f"row {row.number + 1} of the table is rated {rating:g}, outside of filters.rating_range "
            f"[{low:g}, {high:g}]; write the lowest and the highest rating that people could give"
        )
    return _LOWEST + (rating - low) / (high - low) * (_HIGHEST - _LOWEST)


def disagreement(couple: Sequence[FilteredChain], label: PeoplesLabel, settings: FilterConfig) -> str | None:
    """Why the overalls of a couple, or of a single chain, disagree with people's label; None if they agree."""
    overalls = [chain.verdict.overall for chain in couple if chain.verdict is not None]
    if label.sign is None:
        away = round(abs(overalls[0] - label.overalls[0]), 9)
        if away <= settings.tolerance:
            return None
        return f"its overall is {overalls[0]:.2f}, and people's rating stands for {label.overalls[0]:.2f}"
    lead = round(overalls[0] - overalls[1], 9)
    both = f"overalls {overalls[0]:.2f} and {overalls[1]:.2f}"
    if label.sign == 0:
        return None if abs(lead) <= settings.tie_margin else f"{both}, and people see a tie"
    preferred = "a" if label.sign > 0 else "b"
    if lead * label.sign <= 0:
        return f"{both}, and people prefer {preferred}"
    return None if lead * label.sign >= settings.margin else f"{both}: {preferred} is not ahead by {settings.margin:g}"


def _tested(
    couple: tuple[FilteredChain, ...], label: PeoplesLabel | None, settings: FilterConfig
) -> tuple[FilteredChain, ...]:
    reason = None if label is None else disagreement(couple, label, settings)
    return couple if reason is None else tuple(chain.rejected("agreement", reason) for chain in couple)


def _chosen(
    couples: Sequence[tuple[FilteredChain, ...]], label: PeoplesLabel | None, settings: FilterConfig
) -> Sequence[tuple[FilteredChain, ...]]:
    """The couples that the settings choose; of equal ones the first."""
    if not couples or settings.choice == "all":
        return couples
    if settings.choice == "nearest" and label is not None:
        return [min(couples, key=lambda couple: _distance(couple, label))]
    lengths = [sum(chain.words for chain in couple) for couple in couples]
    length = min(lengths) if settings.choice == "shortest" else median_low(lengths)
    return [couples[lengths.index(length)]]


def _distance(couple: Sequence[FilteredChain], label: PeoplesLabel) -> float:
    """How far the overalls are from the ratings; without these, how little the preferred clip leads."""
    overalls = [chain.verdict.overall for chain in couple if chain.verdict is not None]
    if label.overalls:
        return sum(abs(overall - rating) for overall, rating in zip(overalls, label.overalls, strict=True))
    lead = overalls[0] - overalls[1]
    return abs(lead) if label.sign == 0 else -lead * (label.sign or 0)


def _unless_chosen(
    couple: tuple[FilteredChain, ...], chosen: Sequence[tuple[FilteredChain, ...]], settings: FilterConfig
) -> tuple[FilteredChain, ...]:
    if couple[0].step is not None or any(couple is one for one in chosen):
        return couple
    return tuple(chain.rejected("choice", f"another one was chosen ({settings.choice})") for chain in couple)
