"""Teachers of the drawn world that err: a share of their marks is wrong, and some chains are no use at all.

In: a table of pairs with true chains. Out: a run as `descore chains collect` leaves it, without a request."""

import random
import re
from pathlib import Path

from descore.chains.records import Candidate, ChainRun, append_candidates
from descore.chains.source import ChainClip, read_chain_source
from descore.rubric import overall_of, read_answer, write_answer
from descore.types import Mark, Verdict

FAULTY = 0.1
"""Share of chains that are no use: half are cut off before their answer, half would stand behind any prompt."""
_LINE = r"^({name}: .*: )(?:right|partly right|wrong), [012]\.$"
_IN_WORDS = {2: "right", 1: "partly right", 0: "wrong"}
_VAGUE = "The video is quite good to look at, and most of what can be seen in it is as it should be."


def erring_chain(chain: str, *, right: float, rng: random.Random) -> str:
    """A true chain in which each mark is right with probability `right`, and else one of the other two; N/A stays. The
    mark's line, the answer and the overall follow from the marks, the description stays true."""
    verdict = read_answer(chain)
    marks: dict[str, Mark] = {}
    for name, mark in verdict.marks.items():
        others: list[Mark] = [other for other in (0, 1, 2) if other != mark]  # type: ignore[misc]
        marks[name] = mark if mark is None or rng.random() < right else rng.choice(others)
    prose = chain[: chain.rindex("<answer>")]
    for name, mark in marks.items():
        if mark is not None:
            line = re.compile(_LINE.format(name=name.capitalize()), re.MULTILINE)
            prose = line.sub(rf"\g<1>{_IN_WORDS[mark]}, {mark}.", prose)
    return prose + write_answer(Verdict(marks=marks, overall=overall_of(marks)))


def with_faults(chain: str, rng: random.Random) -> str:
    """The chain, or with probability FAULTY one that is no use."""
    draw = rng.random()
    if draw < FAULTY / 2:
        return chain[: len(chain) // 2]
    return f"{_VAGUE}\n{chain[chain.rindex('<answer>') :]}" if draw < FAULTY else chain


def write_teacher_run(table: Path, folder: Path, *, right: float, chains: int, seed: int) -> ChainRun:
    """The answers of a teacher, `chains` for each clip. Runs of one seed begin with the same chains."""
    run, source = ChainRun(folder), read_chain_source(table)
    if run.candidates.is_file():
        run.candidates.unlink()  # of a run that was stopped while it was written
    folder.mkdir(parents=True, exist_ok=True)
    candidates = []
    for clip in source.clips:
        true = str(source.rows[clip.row].cells[f"chain_{clip.side}"])
        for number in range(chains):
            rng = random.Random(f"{seed} {clip.row} {clip.side} {number} {right}")
            text = with_faults(erring_chain(true, right=right, rng=rng), rng)
            candidates.append(_candidate(clip, number, text, teacher=f"right {right:g}", seed=seed))
    append_candidates(run, candidates)
    return run


def _candidate(clip: ChainClip, number: int, text: str, *, teacher: str, seed: int) -> Candidate:
    return Candidate(
        key=f"{teacher} {seed} {clip.row} {clip.side} {number}",
        row=clip.row,
        side=clip.side,
        number=number,
        prompt=clip.prompt,
        video=clip.video,
        text=text,
        thinking=None,
        finish="stop",
        teacher=teacher,
        settings=teacher,
        seed=seed,
        tokens_in=0,
        tokens_out=0,
        cost=0.0,
        seconds=0.0,
        time="",
        sees="nothing",
        error=None,
    )
