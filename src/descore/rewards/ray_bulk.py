"""Score a table or a folder on a Ray cluster, into a folder of Parquet shards.

In: a source, and the name of a checkpoint. Out: a scored table with the rows that `write_scores` gives. One process
reads the source and writes the table. In between, Ray Data streams the rows from actors that decode to actors that hold
a model, and its checkpoint remembers which rows are done. Clips, checkpoint and table are where all nodes see them."""

import hashlib
import os
import shutil
import threading
import time
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from descore.data.write import shards_writer
from descore.errors import ConfigError, DescoreError, DescoreWarning
from descore.io import append_records, check_place, lock_file, make_directory, read_records
from descore.rewards.bulk import WINDOW, BulkProgress, ScoringSummary, join_results
from descore.rewards.journal import check_settings, journal_of, result_key
from descore.rewards.ray_cluster import Placement, RayOptions, check_ray, connected, first_error, place_actors
from descore.rewards.ray_stages import ID, KEY, ClipDecoder, ClipScorer, ModelChoice, ModelFacts, read_facts
from descore.rewards.scored import ScoredRow, result_columns, result_schema
from descore.rewards.shards import ResultIndex, ResultShards
from descore.rewards.sources import OpenedSource, SourceRow, open_source
from descore.scorer import SamplingParams
from descore.types import Paradigm

_SETTINGS, _WORK, _LOCK = "settings.jsonl", "rows.parquet", "lock"
"""In the journal's folder."""
_WORK_ROWS = 65_536
"""Rows of the work list that are in memory at a time."""
_RESULT_ROWS = 1024
"""Rows of a shard of results, at most."""
_STAT_THREADS = 16
"""On a network file system each call waits."""
_LOOK_PERIOD = 2.0
"""Seconds between looks at what the nodes have written."""
_FILTER_BYTES = 1 << 28
"""Memory that Ray sets aside for the ids of what is done, which take 8 bytes each, and a process."""
_FILE_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
_LOST = "no result: its block of rows failed on the cluster; give the same command again"


def default_folder(source: Path) -> Path:
    """Where the shards are written: beside the table or folder, with `.scores` behind its name."""
    folder = source.absolute()
    return folder.with_name(f"{folder.name if folder.is_dir() else folder.stem}.scores")


def check_shards_folder(out: Path, *, overwrite: bool) -> None:
    """ConfigError if shards cannot be written there, as far as is known without the model."""
    journal = journal_of(out)
    if out.suffix.lower() in _FILE_SUFFIXES:
        raise ConfigError(
            f"{out}: --engine ray writes a folder of Parquet shards; expected a name without {out.suffix}"
        )
    check_place(out)
    if journal.is_file() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out}: is a file, or has the journal of another kind of run; choose another --out")
    if not overwrite and out.exists() and not journal.is_dir():
        raise ConfigError(f"{out}: exists already; choose another --out, or write over it with --overwrite")


def write_scores_on_ray(
    source: str | Path | OpenedSource,
    out: str | Path | None = None,
    *,
    model: str = "tiny",
    paradigm: Paradigm | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    engine: str = "native",
    options: RayOptions | None = None,
    prompt: str | None = None,
    limit: int | None = None,
    replace: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[BulkProgress], object] = lambda progress: None,  # noqa: ARG005
    **sampling_params: Any,  # noqa: ANN401  # fields of `SamplingParams`
) -> ScoringSummary:
    """Score a table or a folder into the folder `out` of Parquet shards, on a Ray cluster.

    The same call goes on with a run that was stopped, and tries rows without a score again. out: None is
    `default_folder`. device: "cuda" or "cpu"; None: GPUs if the cluster has them. engine: what each actor opens, see
    `Scorer.from_pretrained`. options: where, and how much of it.
    The others are as in `write_scores`. ConfigError if Ray is not installed, no cluster answers, its nodes do not have
    one model, or `out` holds something else; CheckpointError; otherwise as `write_scores`."""
    options = options or RayOptions()
    check_ray(options.address)
    opened = (
        source if isinstance(source, OpenedSource) else open_source(source, prompt=prompt, limit=limit, replace=replace)
    )
    target = default_folder(opened.path) if out is None else Path(out)
    check_shards_folder(target, overwrite=overwrite)
    schema = opened.arrow_schema(out=target)
    params = SamplingParams(**sampling_params).resolved(paradigm)
    begin = time.perf_counter()
    with connected(options) as ray, _journal_folder(target, overwrite=overwrite) as journal:
        placement = place_actors(ray.cluster_resources(), options, device=device)
        choice = ModelChoice(
            name=model,
            source=str(Path(model).absolute()) if Path(model).is_dir() else model,
            paradigm=paradigm,
            device=("cuda" if placement.on_gpu else "cpu") if engine == "native" else None,
            batch_size=batch_size,
            engine=engine,
        )
        facts = _facts_of(ray, choice, params, placement, journal=journal)
        _keep_settings(journal, {"source": opened.path.name, **facts.settings}, out=target)
        run = _RayRun(ResultShards(journal), total=opened.count, on_progress=on_progress)
        if run.list_work(opened):
            with _data_context(journal, options):
                run.score(choice, params, facts, placement)
        summary = run.write_table(opened, target, facts=facts, schema=schema)
        summary.seconds = time.perf_counter() - begin
        summary.model_seconds /= placement.actors
    return summary


@contextmanager
def _journal_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """The folder of the run's journal, locked until the block ends. One in which nothing has begun is removed."""
    journal = journal_of(out).absolute()
    make_directory(journal)
    with lock_file(journal / _LOCK, name=out):
        if overwrite:
            (journal / _SETTINGS).unlink(missing_ok=True)
            for folder in (ResultShards(journal).checkpoint, ResultShards(journal).results):
                shutil.rmtree(folder, ignore_errors=True)
        try:
            yield journal
        finally:
            if not (journal / _SETTINGS).exists():
                shutil.rmtree(journal, ignore_errors=True)


def _facts_of(
    ray: Any,  # noqa: ANN401  # a module that need not be there
    choice: ModelChoice,
    params: SamplingParams,
    placement: Placement,
    *,
    journal: Path,
) -> ModelFacts:
    """What the model is, as one node opens it."""
    facts: ModelFacts
    seen = ray.remote(_facts_and_folder).options(max_retries=0, **placement.needs)
    try:
        facts, has_journal = ray.get(seen.remote(choice, params, str(journal / _LOCK)))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DescoreError):
            raise error.cause from None
        raise ConfigError(f"{choice.name}: a node cannot open it ({first_error(error)})") from error
    except ray.exceptions.RayError as error:
        raise ConfigError(f"{choice.name}: a node cannot open it ({first_error(error)})") from error
    if not has_journal:
        raise ConfigError(f"{journal}: a node does not see this folder; choose an --out that is shared by all nodes")
    for warning in facts.warnings:
        warnings.warn(warning, DescoreWarning, stacklevel=2)
    return facts


def _facts_and_folder(choice: ModelChoice, params: SamplingParams, lock: str) -> tuple[ModelFacts, bool]:
    return read_facts(choice, params), Path(lock).exists()


def _keep_settings(journal: Path, settings: Mapping[str, Any], *, out: Path) -> None:
    """Write down what the run's rewards depend on; ConfigError if results are there that depended on something else."""
    path = journal / _SETTINGS
    kept = read_records(path) if path.is_file() else []
    if kept:
        check_settings(kept[0], settings, out=out)
    else:
        append_records(path, [{"settings": dict(settings)}])


@contextmanager
def _data_context(journal: Path, options: RayOptions) -> Iterator[None]:
    """Ray Data's settings for the length of a block: its checkpoint, no bar, and how many blocks may fail."""
    checkpoint: Any = import_module("ray.data.checkpoint")
    context = import_module("ray.data").DataContext.get_current()
    config = checkpoint.CheckpointConfig(ID, str(ResultShards(journal).checkpoint), delete_checkpoint_on_success=False)
    config.checkpoint_actor_pool_max_size, config.checkpoint_actor_memory_bytes = 1, _FILTER_BYTES
    wanted = {
        "checkpoint_config": config,
        "enable_progress_bars": False,
        "max_errored_blocks": options.max_errored_blocks,
    }
    former = {name: getattr(context, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in former.items():
            setattr(context, name, value)


@dataclass(slots=True)
class _RayRun:
    """One run: its work list, the rows that are scored, and the table."""

    shards: ResultShards
    total: int
    on_progress: Callable[[BulkProgress], object]
    keys: "array[int]" = field(default_factory=lambda: array("Q"))
    """Of each row, in order."""
    missing: int = 0
    """Clips without a result, at the start."""
    known: frozenset[str] = field(init=False)
    """The shards of earlier runs."""
    before: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.known = frozenset(path.name for path in self.shards.paths())
        self.before = self.shards.counts()

    @property
    def work(self) -> Path:
        """The work list."""
        return self.shards.results.parent / _WORK

    def list_work(self, source: OpenedSource) -> int:
        """Write the work list: each clip once, those that have a reward too, which Ray's checkpoint leaves out. Gives
        how many have none."""
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        index = ResultIndex(self.shards)
        listed: set[int] = set()
        texts = [(name, arrow.string()) for name in ("prompt", "video", "path", "error")]
        schema = arrow.schema([(ID, arrow.uint64()), (KEY, arrow.uint64()), *texts])
        make_directory(self.work.parent)
        with parquet.ParquetWriter(self.work, schema) as writer:
            for keyed in _keyed(source.rows()):
                self.keys.extend(key for key, _ in keyed)
                new = {key: row for key, row in keyed if key not in listed}
                listed.update(new)
                rows = [_work_row(key, row, *index.tries(key)) for key, row in new.items()]
                self.missing += sum(row.pop("is_missing") for row in rows)
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
        return self.missing

    def score(
        self,
        choice: ModelChoice,
        params: SamplingParams,
        facts: ModelFacts,
        placement: Placement,
    ) -> None:
        """Have the cluster score what is missing, while progress is reported. ConfigError for the error that stops it;
        what is written is kept."""
        window = WINDOW * facts.batch_size
        data: Any = import_module("ray.data")
        dataset = data.read_parquet(str(self.work)).repartition(target_num_rows_per_block=window)
        dataset = dataset.map_batches(
            ClipDecoder,
            fn_constructor_args=(facts.sampling,),
            batch_size=None,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=placement.decoders),
            num_cpus=1,
        ).map_batches(
            ClipScorer,
            fn_constructor_args=(choice, params, facts),
            batch_size=window,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=placement.actors, max_tasks_in_flight_per_actor=2),
            **placement.needs,
        )
        errors: Any = import_module("ray.exceptions")
        with self._watched():
            try:
                dataset.write_parquet(
                    str(self.shards.results), min_rows_per_file=min(_RESULT_ROWS, window * placement.actors)
                )
            except errors.RayError as error:
                raise ConfigError(
                    f"stopped: {first_error(error)}; what is scored is kept: mend it and give the same command again, "
                    "or let blocks of rows fail with --max-errored-blocks"
                ) from error

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Report progress until the block ends."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_LOOK_PERIOD):
                self._report()

        self._report()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
        self._report()

    def _report(self) -> None:
        rows, failed = (now - before for now, before in zip(self.shards.counts(), self.before, strict=True))
        self.on_progress(BulkProgress(done=self.total - self.missing + rows, total=self.total, failed=failed))

    def write_table(self, source: OpenedSource, out: Path, *, facts: ModelFacts, schema: Any) -> ScoringSummary:  # noqa: ANN401
        """Put the source's columns and the results together. A row whose block was lost has an error."""
        index, model = ResultIndex(self.shards), facts.settings["model"]
        columns = (*source.columns, *result_columns(facts.dimensions))
        summary = ScoringSummary(out=out, computed=self.shards.counts()[0] - self.before[0])
        summary.model_seconds = index.model_seconds(apart_from=self.known)
        with shards_writer(out, columns, schema=result_schema(schema, facts.dimensions)) as write:
            join_results(source, _with_lost(source, index.read(self.keys), model), summary, folder=out, write=write)
        return summary


def _with_lost(source: OpenedSource, results: Iterable[dict[str, Any] | None], model: str) -> Iterator[dict[str, Any]]:
    for row, result in zip(source.rows(), results, strict=False):  # `join_results` refuses a source that has changed
        lost = ScoredRow(prompt=row.prompt, video=row.video, reward=None, error=_LOST, model=model)
        yield {"prompt": row.prompt, "video": row.video, **lost.results()} if result is None else result


def _keyed(rows: Iterator[SourceRow]) -> Iterator[list[tuple[int, SourceRow]]]:
    """Rows with their keys, as many as are in memory together."""

    def key_of(row: SourceRow) -> int:
        return result_key(prompt=row.prompt, video=row.video, path=row.path)

    with ThreadPoolExecutor(_STAT_THREADS) as threads:
        while chunk := list(islice(rows, _WORK_ROWS)):
            yield list(zip(threads.map(key_of, chunk), chunk, strict=True))


def _work_row(key: int, row: SourceRow, failures: int, has_reward: bool) -> dict[str, Any]:
    """The row of the work list. Its id is new when the row has failed, so that Ray's checkpoint lets it pass again."""
    tried = hashlib.blake2b(f"{key} {failures}".encode(), digest_size=8)
    return {
        ID: int.from_bytes(tried.digest(), "big"),
        KEY: key,
        "prompt": row.prompt,
        "video": row.video,
        "path": os.path.abspath(row.path) if row.path else "",  # noqa: PTH100  # of every row
        "error": row.error,
        "is_missing": not has_reward,
    }
