"""What a run of `descore chains collect` keeps: a teacher's answers, one a line, and where its files lie.

config.yaml        the settings, by which the run is recognized
asked.json         digests of the table, the rubric and the teacher, and the sampling
candidates.jsonl   each answer, in the order in which they came; a failed request has its error in place of one
ledger.jsonl       what each request was reserved and what it cost
batches/           requests and answers of batch files, if the teacher takes those
chains.jsonl       what the filters chose: a table that `descore train` reads
rejected.jsonl     what they rejected, with the reason
summary.json       the counts of both

In: candidates. Out: the same read back, in the order in which they came."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from descore.errors import DataError
from descore.io import append_records, parse_json_object

Sees = Literal["nothing", "label", "comments"]
"""What a teacher is shown of what people say of a clip, beside the clip and its prompt."""
PairSide = Literal["a", "b"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFault:
    """Why a request gave no answer."""

    kind: str
    """unreadable (the video), refused (by the server, or its filter), limited (429), server (5xx), unreachable,
    timeout, cut (the stream ended early), too_much (for the limit of tokens), empty (it has no text) or format (what
    came is no chat completion)."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One teacher's answer for one clip, or why there is none.

    A clip that stands in several rows is asked for once: its other places have the same answer under the same key, at
    no cost."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    key: str
    """Digest of the request: equal for what need not be asked twice."""
    row: int
    """Number of the row in the source table, from 0."""
    side: PairSide | None
    """Which clip of a pair; None in a table of single clips."""
    number: int
    """From 0 to K - 1, of the K chains that are asked for."""
    prompt: str
    video: str
    """As the source table has it."""
    text: str | None
    """The answer as it came; None with an error."""
    thinking: str | None
    """Reasoning that the server gave apart from the answer."""
    finish: str | None
    """Why the answer ends, in the server's word: stop, length ..."""
    teacher: str
    """The model's name, as the teacher itself gives it where it does."""
    settings: str
    """Digest of all that the teacher was asked with, beside clip, prompt and number."""
    seed: int
    """As a server was sent it. A native teacher draws the chain `number` of this seed."""
    tokens_in: int
    tokens_out: int
    cost: float
    """In the currency of the settings' prices, failed tries included."""
    seconds: float
    """From sending the request to the end of its answer; 0 in a batch file."""
    time: str
    """When the answer came, in UTC, ISO 8601."""
    sees: Sees
    error: RequestFault | None

    @property
    def place(self) -> tuple[int, PairSide | None, int]:
        """Row, side and number: what the answer is for."""
        return self.row, self.side, self.number


_CANDIDATES = TypeAdapter(Candidate)


@dataclass(frozen=True, slots=True)
class ChainRun:
    """The folder of a run, and where its files lie."""

    folder: Path

    @property
    def config(self) -> Path:
        """The settings."""
        return self.folder / "config.yaml"

    @property
    def asked(self) -> Path:
        """What all requests have in common."""
        return self.folder / "asked.json"

    @property
    def candidates(self) -> Path:
        """The journal of answers."""
        return self.folder / "candidates.jsonl"

    @property
    def ledger(self) -> Path:
        """The journal of reservations and costs."""
        return self.folder / "ledger.jsonl"

    @property
    def batches(self) -> Path:
        """The folder of batch files."""
        return self.folder / "batches"

    @property
    def table(self) -> Path:
        """What the filters chose."""
        return self.folder / "chains.jsonl"

    @property
    def rejected(self) -> Path:
        """What the filters rejected."""
        return self.folder / "rejected.jsonl"

    @property
    def summary(self) -> Path:
        """The counts of both."""
        return self.folder / "summary.json"


def append_candidates(run: ChainRun, candidates: Iterable[Candidate]) -> None:
    """Add answers to a run's journal, and return once they are on the disk."""
    append_records(run.candidates, (dataclasses.asdict(candidate) for candidate in candidates))


def iterate_candidates(folder: Path) -> Iterator[Candidate]:
    """All candidates of a run, in the order in which they came; none if there is no journal. A last line without its
    end, which a kill cut off, is skipped. DataError for a line that is no candidate."""
    path = ChainRun(folder).candidates
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield parse_candidate(line, path, number)


def parse_candidate(text: bytes, path: Path, line: int) -> Candidate:
    """The candidate of a journal's line. DataError if it is none."""
    try:
        return _CANDIDATES.validate_python(parse_json_object(text.rstrip(), file=path, line=line))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = ".".join(map(str, fault["loc"])) or "line"
        raise DataError(str(path), line, f"{name}: {fault['msg']}; delete the line to ask again") from None
