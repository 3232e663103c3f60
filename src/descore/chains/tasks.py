"""What is asked: each clip once, with the digests by which its requests are recognized.

In: a source table and the settings. Out: tasks, in the order of the table. Two rows with the same clip and prompt share
a task. A request's digest is of everything that its answer depends on, and not of where files lie: the prompt, the
video's contents, what the teacher may know of people's opinion, the rubric, the sampling, the teacher's settings, and
the seed."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descore.chains.config import CollectConfig
from descore.chains.messages import JudgingText, comment_note, label_note
from descore.chains.source import ChainClip, ChainRow, ChainSourceTable
from descore.data.tables import Cells
from descore.errors import ConfigError
from descore.rubric import DEFAULT_RUBRIC, fill_rubric
from descore.video.sampling import VideoSampling

if TYPE_CHECKING:
    from descore.model.checkpoint import CheckpointSettings

_MAX_TOKENS = 2048
"""Tokens that a server's answer may have where the settings do not say."""
_END = 1 << 16
"""Bytes from a video's start and end that are hashed, with its size: all of it would be read at each start."""
_ASKED_WITH = (
    "model",
    "video",
    "temperature",
    "top_p",
    "max_tokens_name",
    "send_seed",
    "extra_body",
)
"""Settings of the teacher that an answer depends on, beside the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedWith:
    """What all requests of a run have in common, read from the files that the settings name."""

    rubric: str
    sampling: VideoSampling
    max_tokens: int
    """Tokens that an answer may have."""
    engine: str
    """server, or native with the digest of the teacher's files."""
    digest: str
    """Of all of it, and of the teacher's settings."""

    @property
    def record(self) -> dict[str, Any]:
        """What tells whether a later session asks the same."""
        rubric = hashlib.sha256(self.rubric.encode()).hexdigest()[:16]
        return {
            "rubric": rubric,
            "engine": self.engine,
            "max_completion_tokens": self.max_tokens,
            "sampling": self.sampling.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainTask:
    """A clip and its prompt, to be asked about K times."""

    places: tuple[ChainClip, ...]
    """Where the clip stands in the table."""
    text: JudgingText
    note: str
    """What the teacher may know of people's opinion; empty if nothing."""
    keys: tuple[str, ...]
    """The digest of each of the K requests."""

    @property
    def prompt(self) -> str:
        """The prompt that the video was generated from."""
        return self.places[0].prompt

    @property
    def path(self) -> Path:
        """Where the video is."""
        return Path(self.places[0].path)


def read_asked_with(config: CollectConfig) -> AskedWith:
    """Read the rubric, the sampling and, of a native teacher, the digest of its files. ConfigError or CheckpointError
    if they cannot be read."""
    native = config.teacher.kind == "native"
    max_tokens, source = _MAX_TOKENS, config.data.checkpoint or (config.teacher.model if native else None)
    rubric, sampling = DEFAULT_RUBRIC, VideoSampling()
    if source is not None:
        settings, rubric = _read_checkpoint(source)
        sampling = settings.sampling
    if native:
        max_tokens = _read_checkpoint(config.teacher.model)[0].max_chain_tokens
    rubric = rubric if config.data.rubric is None else _read_rubric(config.data.rubric)
    sampling, max_tokens = config.data.sampling or sampling, config.teacher.max_completion_tokens or max_tokens
    engine = f"native {_checkpoint_digest(config.teacher.model)}" if native else "server"
    teacher = {name: getattr(config.teacher, name) for name in _ASKED_WITH}
    everything = [rubric, sampling.model_dump(mode="json"), max_tokens, engine, teacher]
    return AskedWith(rubric=rubric, sampling=sampling, max_tokens=max_tokens, engine=engine, digest=_digest(everything))


def _read_checkpoint(source: str) -> "tuple[CheckpointSettings, str]":
    """Settings and rubric. A plain backbone has the built-in rubric."""
    from descore.model.checkpoint import find_checkpoint, read_as  # loads torch

    return read_as(find_checkpoint(source), "generative")


def _checkpoint_digest(source: str) -> str:
    from descore.evaluation.judges import checkpoint_digest

    return checkpoint_digest(source)


def _read_rubric(file: Path) -> str:
    try:
        rubric = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"data.rubric: {file} cannot be read as text: {fault}") from None
    fill_rubric(rubric, prompt="")
    return rubric


def plan_tasks(source: ChainSourceTable, config: CollectConfig, asked_with: AskedWith) -> list[ChainTask]:
    """The tasks of a table. ConfigError if the teacher is to see what the table does not have."""
    _check_sees(source, config)
    places: dict[tuple[str, str, str], list[ChainClip]] = {}
    contents: dict[str, str] = {}
    for row in source.rows:
        for clip in row.clips:
            if clip.path not in contents:
                contents[clip.path] = _content_digest(Path(clip.path))
            asked = (clip.prompt, contents[clip.path], _note_of(row, clip, config, source))
            places.setdefault(asked, []).append(clip)
    return [_task(tuple(clips), *asked, config, asked_with) for asked, clips in places.items()]


def _task(
    clips: tuple[ChainClip, ...], prompt: str, content: str, note: str, config: CollectConfig, asked_with: AskedWith
) -> ChainTask:
    first = config.teacher.seed
    seeds = range(first, first + config.num_chains)
    return ChainTask(
        places=clips,
        text=JudgingText.of(asked_with.rubric, prompt=prompt, note=note),
        note=note,
        keys=tuple(_digest([asked_with.digest, prompt, content, note, seed]) for seed in seeds),
    )


def _check_sees(source: ChainSourceTable, config: CollectConfig) -> None:
    if config.sees == "label" and source.kind == "clips":
        raise ConfigError(f"sees is label, and {source.path} has no column preference or rating; write sees: nothing")
    columns = set(_comment_columns(source))
    if config.sees == "comments" and not columns <= set(source.columns):
        missing = ", ".join(sorted(columns - set(source.columns)))
        raise ConfigError(f"sees is comments, and {source.path} has no column {missing}; write sees: nothing")


def _comment_columns(source: ChainSourceTable) -> Iterator[str]:
    yield from ("comments_a", "comments_b") if source.kind == "pairs" else ("comments",)


def _note_of(row: ChainRow, clip: ChainClip, config: CollectConfig, source: ChainSourceTable) -> str:
    if config.sees == "nothing":
        return ""
    if config.sees == "label":
        return label_note(row.record, clip.side)
    cells = Cells(file=str(source.path), line=row.line, row=row.cells)
    return comment_note(cells.text("comments" if clip.side is None else f"comments_{clip.side}"))


def _content_digest(path: Path) -> str:
    """Of a file's size, start and end; of its name if it cannot be read."""
    try:
        with path.open("rb") as file:
            start, size = file.read(_END), path.stat().st_size
            file.seek(max(0, size - _END))
            return hashlib.sha256(b"%d\n" % size + start + file.read(_END)).hexdigest()[:32]
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return f"unread {path.name}"


def _digest(value: Any) -> str:  # noqa: ANN401  # whatever JSON holds
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
