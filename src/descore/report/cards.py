"""Clips as cards on one page of HTML: frames with their times, chain, marks, reward and score. A scored table is such a
page too.

In: cards in sections, or what a page shows of a table. Out: the page, the same text for the same cards. All text of
cards is untrusted and is escaped; the page has no script and fetches nothing."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from PIL import Image

from descore.chains.checking import ChainCheck
from descore.chains.filtering import FilteredChain
from descore.errors import AnswerError
from descore.report.charts import histogram
from descore.report.findings import short_path
from descore.report.page import fill
from descore.report.plots import Chart
from descore.report.text import chain_prose, clip_facts, completion_warnings, signed
from descore.rewards.overview import ScoredOverview, ShownClip, ShownPrompt
from descore.rubric import read_answer
from descore.types import DIMENSIONS, Clip, Completion, Score, Verdict

FRAMES = 8
"""Frames of a card at most."""
SIDE = 256
"""Longest side of a frame, in pixels; larger frames are scaled down."""
QUALITY = 90
"""Of the frames' JPEGs, of 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCard:
    """One clip with what is known of it."""

    clip: Clip | None
    """None if it cannot be shown; the warnings say why."""
    title: str
    badge: str = ""
    """A rank or a letter before the title."""
    emphasized: bool = False
    """The badge is filled with colour."""
    prompt: str = ""
    """Empty where the section names it."""
    numbers: Mapping[str, str] = field(default_factory=dict)
    """Reward and score, by name."""
    text: str = ""
    """The chain without its answer."""
    warnings: Sequence[str] = ()
    """Why the chain may not be trusted."""
    verdict: Verdict | None = None
    truth: Verdict | None = None
    """The true marks; where they differ from the verdict's, both are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSection:
    """Cards that belong together."""

    title: str
    cards: Sequence[ClipCard]
    prompt: str = ""
    """The prompt that all its clips have."""
    note: str = ""
    compact: bool = False
    """Frames and text beside the marks, not above them: for pages of many clips."""


def score_card(score: Score, *, rank: int | None = None, truth: Verdict | None = None) -> ClipCard:
    """The card of a scored clip. With a rank, the section names the prompt; without one, the card does."""
    typical = score.typical
    spread = "" if score.std is None else f" ± {score.std:.2f}"
    numbers = {"reward": signed(score.reward, digits=2) + spread}
    if score.score is not None:
        numbers["score"] = signed(score.score, digits=2)
    return ClipCard(
        clip=score.clip,
        title=PurePath(score.clip.source).name,
        badge="" if rank is None else str(rank),
        emphasized=True,
        prompt=score.prompt if rank is None else "",
        numbers=numbers,
        text=chain_prose(typical) if typical.text else "(scored without thinking)",
        warnings=completion_warnings(typical),
        verdict=typical.verdict,
        truth=truth,
    )


def render_cards(
    sections: Sequence[CardSection], *, title: str, generator: str, note: str = "", footer: str = ""
) -> str:
    """The page. generator: the command that writes it."""
    return fill(
        "cards.html.j2",
        generator=generator,
        title=title,
        note=note,
        footer=footer,
        sections=sections,
        dimensions=DIMENSIONS,
        clip_facts=clip_facts,
        frames=_frames,
    )


MAX_SOURCES = 12
"""Distributions on the page of a scored table."""
MAX_FAILED = 12
"""Clips without a reward that it names."""
_LONGEST_CHAIN = 6000  # letters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Distributions:
    charts: tuple[Chart, ...]
    hidden: int


def render_scored(overview: ScoredOverview) -> str:
    """The page of a scored table: failures first, the distribution of rewards for each source, and the best and the
    worst clip of each prompt."""
    left_out, shown, of = overview.left_out, len(overview.prompts), overview.of_prompts
    model = f" by {overview.model}" if overview.model else ""
    which = "" if shown == of else f" The best and worst clips of the first {shown:,} of {of:,} prompts are shown."
    failed = sum(overview.failed.values())
    return fill(
        "scored.html.j2",
        generator="descore report",
        title=f"Scored clips: {overview.table}",
        note=f"{overview.rows:,} clips{model}; {of:,} prompts with a reward.{which}",
        footer="Made by descore report from the scored table and its clips.",
        sections=[_prompt_section(number, prompt) for number, prompt in enumerate(overview.prompts, start=1)],
        dimensions=DIMENSIONS,
        clip_facts=clip_facts,
        frames=_frames,
        failed=[one for one in left_out if one.failed],
        twice=[one for one in left_out if not one.failed],
        scored=overview.rows - failed,
        of=overview.rows,
        max_named=MAX_FAILED,
        column=overview.column,
        distributions=_distributions(overview),
    )


def _distributions(overview: ScoredOverview) -> _Distributions:
    """Histograms on one axis."""
    if not overview.rewards:
        return _Distributions(charts=(), hidden=0)
    over = np.concatenate(list(overview.rewards.values()))
    drawn = []
    for name, rewards in list(overview.rewards.items())[:MAX_SOURCES]:
        missing = overview.failed.get(name, 0)
        note = f"{len(rewards):,} clips, mean {rewards.mean():+.3g}, deviation {rewards.std():.3g}"
        drawn.append(
            Chart(
                title=name,
                drawing=histogram(rewards, name=name, style=0, unit="reward", over=over),
                note=note + (f"; {missing:,} without a reward" if missing else ""),
            )
        )
    return _Distributions(charts=tuple(drawn), hidden=max(0, len(overview.rewards) - MAX_SOURCES))


def _prompt_section(number: int, shown: ShownPrompt) -> CardSection:
    ends = [("best", shown.best)] + ([("worst", shown.worst)] if shown.worst is not None else [])
    return CardSection(
        title=f"Prompt {number}",
        prompt=shown.prompt,
        note=_lead_note(shown),
        cards=[_row_card(badge, end) for badge, end in ends],
        compact=True,
    )


def _lead_note(shown: ShownPrompt) -> str:
    group = f"Group {shown.group}. " if shown.group and shown.group != shown.prompt else ""
    lead = shown.lead
    if lead is None:
        return f"{group}A single clip, and nothing to rank it against."
    deviations = "" if lead.deviations is None else f" ({lead.deviations:.2f} deviations)"
    clear = "" if lead.clear else " No clear winner."
    return (
        f"{group}{shown.clips:,} clips; the best is ahead of the worst by {lead.margin:.3f}{deviations}, and preferred "
        f"with probability {lead.probability:.2f}.{clear}"
    )


def _row_card(badge: str, shown: ShownClip) -> ClipCard:
    row = shown.row
    numbers = {"reward": signed(row.reward, digits=2) + ("" if row.std is None else f" ± {row.std:.2f}")}
    if row.score is not None:
        numbers["score"] = signed(row.score, digits=2)
    numbers |= {name: signed(reward, digits=2) for name, reward in row.rewards.items()}
    verdict, text = _verdict_and_prose(row.chain or "")
    warnings = [f"not shown: {shown.error}"] if shown.error else []
    warnings += ["the thinking was cut off"] if row.truncated else []
    warnings += ["no marks could be read"] if row.chain and verdict is None else []
    return ClipCard(
        clip=shown.clip,
        title=short_path(shown.name),
        badge=badge,
        emphasized=badge == "best",
        numbers=numbers,
        text=text or "(scored without thinking)",
        warnings=warnings,
        verdict=verdict,
    )


def _verdict_and_prose(chain: str) -> tuple[Verdict | None, str]:
    """The verdict of a chain, and the chain without its answer; an answer that cannot be read stays."""
    try:
        verdict = read_answer(chain)
    except AnswerError:
        verdict = None
    completion = Completion(token_ids=(), text=chain, truncated=False, verdict=verdict, flaw=None, rewards={})
    text = chain_prose(completion)
    more = len(text) - _LONGEST_CHAIN
    return verdict, text if more <= 0 else f"{text[:_LONGEST_CHAIN]} … ({more:,} more letters)"


def _frames(clip: Clip | None) -> list[tuple[str, float]]:
    """Data URI and time of up to FRAMES frames, evenly spaced from the first to the last."""
    if clip is None:
        return []
    count = min(len(clip.times), FRAMES)
    chosen = [round(k * (len(clip.times) - 1) / max(1, count - 1)) for k in range(count)]
    return [(_data_uri(Image.fromarray(clip.frames[index])), clip.times[index]) for index in chosen]


def _data_uri(frame: Image.Image) -> str:
    frame.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    frame.save(file, "JPEG", quality=QUALITY, subsampling=0)  # thin coloured edges stay sharp
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


_AGREEMENT = {
    "own": "own chains: the preferred clip's overall is higher",
    "shuffled": "labels shuffled among pairs",
    "exchanged": "one chain exchanged for that of another prompt's clip",
    "words": "words of one chain alone, cross-validated",
    "verdict": "marks and overall of one chain alone, cross-validated",
}
"""Test of a leak → what it measures."""


def render_chain_check(check: ChainCheck, *, names: Mapping[str, str] = _AGREEMENT) -> str:
    """The page of `descore chains check`: figures, then rows with kept and rejected chains side by side."""
    record = check.record
    return fill(
        "chain_check.html.j2",
        generator="descore chains check",
        check=check,
        record=record,
        steps=[(step, count) for step, count in record["rejected"].items()],
        tests=[(names[name], record["leak"][name]) for name in names if name in record["leak"]],
        dimensions=DIMENSIONS,
        frames=_frames,
        chain_prose=_checked_prose,
        unlike=unlike_marks,
    )


def unlike_marks(chain: FilteredChain, others: Sequence[FilteredChain]) -> frozenset[str]:
    """The dimensions in which a rejected chain's marks differ from those of the kept chain of its clip."""
    kept = next((other for other in others if other.step is None and other.verdict is not None), None)
    if kept is None or kept.verdict is None or chain.verdict is None or chain.step is None:
        return frozenset()
    return frozenset(name for name in DIMENSIONS if chain.verdict.marks[name] != kept.verdict.marks[name])


def _checked_prose(chain: FilteredChain) -> str:
    text = chain.candidate.text or ""
    return _verdict_and_prose(text)[1] if chain.verdict is not None else text[:_LONGEST_CHAIN]
