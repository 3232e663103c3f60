"""Score a table or a folder of any length, in batches, while other processes read the next clips.

In: a source, and a scorer. Out: scored rows, one at a time and in order (`score_table`), or a scored table on the disk
(`write_scores`), which a killed run goes on with. Rewards are those of `Scorer.score`. A clip that cannot be scored is
a row with an error."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from descore.data.write import WriteRow, check_text, table_writer
from descore.errors import ConfigError, DescoreError, VideoError
from descore.rewards.decoding import DecodingPool, default_workers
from descore.rewards.journal import Journal, check_out, default_out, result_key
from descore.rewards.scored import ScoredRow, result_columns, result_schema, scored_row
from descore.rewards.sources import OpenedSource, SourceRow, open_source, rebased
from descore.scorer import Request, SamplingParams, Scorer
from descore.types import Clip, Score
from descore.video.reader import read_clip

WINDOW = 4
"""Batches that are sorted by length together. The first windows are shorter, so that the model need not wait for all
of their clips."""

_FAILURES_KEPT = 5
_KINDS_KEPT = 1000
"""So that a summary is small however many rows fail."""
_TOKENS_PER_TIME = 8
"""Tokens of a timestamp, about."""

Result = Score | DescoreError
Decoded = tuple[SourceRow, Clip | VideoError]


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkProgress:
    """How far a run is."""

    done: int
    """Rows whose result is known, those of an earlier run included."""
    total: int
    failed: int
    """Clips without a score, in this run."""


@dataclass(slots=True, kw_only=True)
class ScoringSummary:
    """What a finished run has scored."""

    out: Path
    total: int = 0
    """Rows."""
    failed: int = 0
    """Rows without a reward."""
    truncated: int = 0
    """Rows with a chain that was cut at its limit."""
    kinds: Counter[str] = field(default_factory=Counter)
    """By kind of failure: rows."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """The first few rows without a reward: video and reason."""
    mean_reward: float | None = None
    computed: int = 0
    """Clips that were scored in this run, and not taken from an earlier one."""
    seconds: float = 0.0
    """That this run took, without opening the model."""
    model_seconds: float = 0.0
    """Of these, those in which the model was busy."""

    @property
    def scored(self) -> int:
        """Rows with a reward."""
        return self.total - self.failed

    def add(self, cells: Mapping[str, Any], *, video: str) -> None:
        """Count one row."""
        self.total += 1
        self.truncated += bool(cells["truncated"])
        if cells["error"] is None:
            before = self.mean_reward or 0.0
            self.mean_reward = before + (cells["reward"] - before) / self.scored
            return
        self.failed += 1
        kind = _kind_of(cells["error"])
        if kind in self.kinds or len(self.kinds) < _KINDS_KEPT:
            self.kinds[kind] += 1
        if len(self.failures) < _FAILURES_KEPT:
            self.failures.append((video, cells["error"]))


def _kind_of(reason: str) -> str:
    """A reason without what differs from clip to clip: what stands before the first of these marks."""
    return min((reason.partition(mark)[0] for mark in ":;,("), key=len).strip()


@dataclass(slots=True)
class ModelClock:
    """Seconds in which the model was busy."""

    model_seconds: float = 0.0
    start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.start


def score_table(
    source: str | Path | OpenedSource,
    *,
    scorer: Scorer,
    prompt: str | None = None,
    limit: int | None = None,
    replace: bool = False,
    workers: int | DecodingPool | None = None,
    **sampling_params: Any,  # noqa: ANN401  # fields of `SamplingParams`
) -> Iterator[ScoredRow]:
    """The scored rows of a table or a folder, lazily and in its order; nothing is written.

    prompt, limit, replace: see `open_source`. workers: processes that read clips ahead, or a pool of them that is not
    closed; None: by the number of cores; 0 reads clips in this process. A row that cannot be scored has an `error`.
    ConfigError or DataError, at the first row asked for, if the source cannot be used at all."""
    opened = _opened(source, prompt=prompt, limit=limit, replace=replace)
    params = SamplingParams(**sampling_params).resolved(scorer.settings.paradigm)
    with _pool(workers) as pool:
        for window in _windows(opened.rows(), scorer=scorer, pool=pool):
            results = {
                row.number: result
                for batch in score_window(window, scorer, params, ModelClock())
                for row, result in batch
            }
            for row, _ in window:
                yield row_of_result(row, results[row.number], scorer)


def write_scores(
    source: str | Path | OpenedSource,
    out: str | Path | None = None,
    *,
    scorer: Scorer,
    prompt: str | None = None,
    limit: int | None = None,
    replace: bool = False,
    overwrite: bool = False,
    workers: int | DecodingPool | None = None,
    on_progress: Callable[[BulkProgress], object] = lambda progress: None,  # noqa: ARG005
    **sampling_params: Any,  # noqa: ANN401  # fields of `SamplingParams`
) -> ScoringSummary:
    """Score a table or a folder into a scored table, CSV, JSON Lines or Parquet by the suffix of `out`.

    out: None is `default_out`. Each result is kept in a journal beside it as it comes; the same call goes on with a run
    that was killed, and tries rows without a score again. overwrite: begin anew. The others are as in `score_table`.

    ConfigError if `out` holds something else, or a run of other settings; ConfigError or DataError if the source cannot
    be used."""
    opened = _opened(source, prompt=prompt, limit=limit, replace=replace)
    target = default_out(opened.path) if out is None else Path(out)
    check_out(target, overwrite=overwrite)
    check_text(target, opened.not_utf8)
    params = SamplingParams(**sampling_params).resolved(scorer.settings.paradigm)
    schema = None
    if target.suffix.lower() == ".parquet":
        schema = result_schema(opened.arrow_schema(out=target), scorer.settings.dimensions)
    clock = ModelClock()
    settings = {"source": opened.path.name, **settings_of(scorer, params)}
    with Journal.open(target, settings=settings, overwrite=overwrite) as journal:
        run = _JournalledRun(journal, total=opened.count, on_progress=on_progress)
        with _pool(workers) as pool:
            for window in _windows(run.unscored(opened.rows()), scorer=scorer, pool=pool):
                for batch in score_window(window, scorer, params, clock):
                    run.keep(batch, scorer)
        summary = ScoringSummary(out=target, computed=run.computed)
        columns = (*opened.columns, *result_columns(scorer.settings.dimensions))
        with table_writer(target, columns, schema=schema, overwrite=True) as write:
            join_results(opened, journal.read(iter(run.keys)), summary, folder=target.parent, write=write)
    summary.seconds, summary.model_seconds = clock.seconds, clock.model_seconds
    return summary


def _opened(source: str | Path | OpenedSource, *, prompt: str | None, limit: int | None, replace: bool) -> OpenedSource:
    if isinstance(source, OpenedSource):
        return source
    return open_source(source, prompt=prompt, limit=limit, replace=replace)


def _pool(workers: int | DecodingPool | None) -> AbstractContextManager[DecodingPool]:
    if isinstance(workers, DecodingPool):
        return nullcontext(workers)
    return DecodingPool(workers=default_workers() if workers is None else workers)


def _windows(rows: Iterable[SourceRow], *, scorer: Scorer, pool: DecodingPool) -> Iterator[list[Decoded]]:
    """Rows with their clips, as many as are sorted together, while those of the next window are read."""
    size, most = scorer.batch_size, WINDOW * scorer.batch_size
    read = partial(read_clip, sampling=scorer.settings.sampling)
    decoded = pool.read_ahead(rows, read=read, video_of=lambda row: None if row.error else row.path, ahead=most)
    while window := [
        (row, VideoError(row.video, row.error or "") if clip is None else clip) for row, clip in islice(decoded, size)
    ]:
        yield window
        size = min(2 * size, most)


def score_window(
    window: list[Decoded], scorer: Scorer, params: SamplingParams, clock: ModelClock
) -> Iterator[list[tuple[SourceRow, Result]]]:
    """The results of a window: first of what cannot be scored, then in batches of about one length."""
    failed: list[tuple[SourceRow, Result]] = [(row, clip) for row, clip in window if isinstance(clip, VideoError)]
    if failed:
        yield failed
    readable = [(row, clip) for row, clip in window if isinstance(clip, Clip)]
    readable.sort(key=lambda one: _length(one[1], one[0].prompt, scorer))
    for start in range(0, len(readable), scorer.batch_size):
        batch = readable[start : start + scorer.batch_size]
        begin = time.perf_counter()
        requests = [Request(video=clip, prompt=row.prompt) for row, clip in batch]
        try:
            results = list(scorer.score_each(requests, **params.model_dump()))
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"{len(batch)} clips at a time are too many for the memory of {scorer.engine.device}; give the same "
                "command with a smaller --batch-size, and it goes on from here"
            ) from None
        clock.model_seconds += time.perf_counter() - begin
        yield [(row, result) for (row, _), result in zip(batch, results, strict=True)]


def _length(clip: Clip, prompt: str, scorer: Scorer) -> int:
    """About how many tokens a clip and its prompt take: two frames, and a square of pixels, make one."""
    (width, height), edge = clip.size, scorer.settings.sampling.size_multiple
    pictures = (len(clip.times) + 1) // 2
    words = len(scorer.chat.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return pictures * ((width // edge) * (height // edge) + _TOKENS_PER_TIME) + words


class _JournalledRun:
    """Keeps results as they come, and remembers which row has which."""

    def __init__(self, journal: Journal, *, total: int, on_progress: Callable[[BulkProgress], object]) -> None:
        self.journal = journal
        self.keys = array("Q")
        """Of each row, in order."""
        self.computed = 0
        self._failed = 0
        self._total = total
        self._on_progress = on_progress
        self._key_of: dict[int, int] = {}
        """Of the rows that are being scored."""
        self._pending: set[int] = set()

    def unscored(self, rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
        """The rows that have no result yet, and are not being scored in another row of the same clip and prompt."""
        for row in rows:
            key = result_key(prompt=row.prompt, video=row.video, path=row.path)
            is_new = key not in self._pending and key not in self.journal
            if is_new and not self._pending:
                self._report()
            self.keys.append(key)
            if is_new:
                self._pending.add(key)
                self._key_of[row.number] = key
                yield row
        self._report()

    def keep(self, batch: list[tuple[SourceRow, Result]], scorer: Scorer) -> None:
        """Write results to the journal."""
        keyed = [(self._key_of.pop(row.number), row_of_result(row, result, scorer)) for row, result in batch]
        self.journal.append([(key, {"prompt": r.prompt, "video": r.video, **r.results()}) for key, r in keyed])
        self._pending.difference_update(key for key, _ in keyed)
        self.computed += len(batch)
        self._failed += sum(row.error is not None for _, row in keyed)
        self._report()

    def _report(self) -> None:
        done = len(self.keys) - len(self._pending)
        self._on_progress(BulkProgress(done=done, total=self._total, failed=self._failed))


def row_of_result(row: SourceRow, result: Result, scorer: Scorer) -> ScoredRow:
    """The scored row of a result."""
    return scored_row(result, prompt=row.prompt, video=row.video, model=scorer.name, columns=row.cells)


def join_results(
    source: OpenedSource,
    results: Iterable[dict[str, Any]],
    summary: ScoringSummary,
    *,
    folder: Path,
    write: WriteRow,
) -> None:
    """Write the source's columns with the results of its rows, each of which has its prompt and video, and count them.
    folder: where the table is written. ConfigError if the source has changed."""
    cells_of, rows = rebased(source, folder=folder), source.rows()
    for result in results:
        row = next(rows, None)
        prompt, video = result.pop("prompt"), result.pop("video")
        if row is None or (row.prompt, row.video) != (prompt, video):
            raise ConfigError(f"{source.path}: changed while it was scored; give the same command again")
        summary.add(result, video=video)
        write({**cells_of(row), **result})


def settings_of(scorer: Scorer, params: SamplingParams) -> dict[str, Any]:
    """What rewards depend on, beside prompt and clip."""
    settings = scorer.settings
    return {
        "model": scorer.name,
        "paradigm": settings.paradigm,
        "think": params.think,
        "samples": params.samples,
        "seed": params.seed,
        "temperature": params.effective_temperature,
        "max_chain_tokens": params.max_chain_tokens or settings.max_chain_tokens,
        "precision": str(scorer.engine.dtype).removeprefix("torch."),
        "digest": scorer.engine.digest(),
        # Runs from before there were other engines have no such key.
        **({} if scorer.engine.name == "native" else {"engine": scorer.engine.name}),
        **{f"versions.{name}": version(name) for name in ("descore", "torch", "transformers", "av")},
    }
