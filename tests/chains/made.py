"""Candidates and rows that a test makes: a chain of a prompt with any marks and overall."""

import json
from pathlib import Path

from descore.chains.output import CandidateIndex
from descore.chains.records import Candidate, ChainRun, append_candidates, iterate_candidates
from descore.chains.source import read_chain_source
from descore.rubric import overall_of, write_answer
from descore.types import DIMENSIONS, Verdict

PROMPT = "A red ball rolls across the table."
PROSE = "I see one small red ball. It rolls across a wooden table to the left while the camera is still."


def made_chain(overall=4.0, *, prose=PROSE, marks=(2, 2, None, 1, 1)):
    verdict = Verdict(marks=dict(zip(DIMENSIONS, marks, strict=True)), overall=overall)
    return f"{prose}\n{write_answer(verdict)}"


def chain_of_marks(marks, *, prose=PROSE):
    by_name = dict(zip(DIMENSIONS, marks, strict=True))
    return f"{prose}\n{write_answer(Verdict(marks=by_name, overall=overall_of(by_name)))}"


def made_candidate(text, *, row=0, side="a", number=0, **fields):
    values = {
        "key": f"key-{row}{side}{number}",
        "prompt": PROMPT,
        "video": f"clips/{row}{side or ''}.mp4",
        "thinking": None,
        "finish": "stop",
        "teacher": "stub",
        "settings": "digest",
        "seed": number,
        "tokens_in": 100,
        "tokens_out": 40,
        "cost": 0.25,
        "seconds": 1.5,
        "time": "2026-11-27T10:00:00+00:00",
        "sees": "nothing",
        "error": None,
    }
    return Candidate(row=row, side=side, number=number, text=text, **(values | fields))


def pair_source(folder, *preferences, **columns):
    """A table of pairs, one for each preference; further columns have a value for each."""
    rows = [
        {"prompt": PROMPT, "video_a": f"clips/{n}a.mp4", "video_b": f"clips/{n}b.mp4", "preference": preference}
        | {name: values[n] for name, values in columns.items()}
        for n, preference in enumerate(preferences)
    ]
    return source_of(folder, rows)


def source_of(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "source.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_chain_source(table)


def read_candidates(folder):
    """The answers of a run, as the filters read them: the last one of each place and number, in their order."""
    rows = sorted({candidate.row for candidate in iterate_candidates(folder)})
    if not rows:
        return []
    index = CandidateIndex(ChainRun(folder))
    return [candidate for row in rows for candidate in index.of_row(row)]


def write_run(folder, candidates):
    folder.mkdir(parents=True, exist_ok=True)
    append_candidates(ChainRun(folder), candidates)
    return ChainRun(folder)


def lines_of(path: Path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
