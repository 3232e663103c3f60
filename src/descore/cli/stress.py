"""`descore stress`: change clips and prompts, and see whether the reward changes as it should; or compare the clips of
two generators, and see whether the reward went up while they got worse."""

import json as json_text
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors
from descore.cli.evaluate import STRESS_FILE
from descore.errors import ConfigError, DataError, VideoError

if TYPE_CHECKING:
    from descore.evaluation.benchmarks import Judgements
    from descore.evaluation.judges import FeatureJudge, ModelJudge
    from descore.evaluation.stress import Side
    from descore.types import Paradigm

STRESS_SCHEMA = 1
JOURNAL_FILE = "stress.jsonl"
"""Beside stress.json, until that is written: the config, then a line for each trial with a reward."""
GENERATORS_FILE, GENERATORS_JOURNAL = "generators.json", "generators.jsonl"
"""The same of a comparison of two generators."""
HACKED = 1
"""Exit code of --fail."""

DRAWN_PAIRS = 12
"""Drawn where no clips are given: some 300 chains, minutes on two cores."""


def stress_test(
    *,
    clips: Annotated[list[str] | None, typer.Argument(metavar="CLIP", help="Video files of one prompt.")] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The text that the clips were generated from.")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark", "-b", help="Clips of a benchmark, each with its own prompt; see descore benchmarks."
        ),
    ] = None,
    root: opt.BenchmarkRoot = None,
    before: Annotated[
        str | None,
        typer.Option("--before", help="A generator's clips: a folder with a .txt beside each clip, or a table."),
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", help="Clips of another one, or of the same after it was trained.")
    ] = None,
    fail: Annotated[
        bool, typer.Option("--fail", help="Of --before and --after: exit code 1 if a hack is named.")
    ] = False,
    limit: opt.Limit = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A checkpoint: folder, hub id, or the bundled 'tiny'; or a hand-made feature: 'sharpness', 'jerk'.",
        ),
    ] = "tiny",
    paradigm: opt.ParadigmChoice = None,
    think: opt.ThinkChoice = None,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = None,
    device: opt.Device = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for stress.json, or generators.json of two generators. That of a run of descore evaluate will "
            "do, if it is of the same model.",
        ),
    ] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Change clips and prompts, and measure whether the reward falls or stays as it should.

    The frames are shuffled, frozen, greyed; the prompt is another clip's, or has praise and commands in it; and so on.
    Clips come from the command line, from a benchmark, or, without either, from a dozen pairs of drawn scenes. With
    --out, the same command goes on with a test that was interrupted.

    With --before and --after, compare the clips of two generators by reward and by hand-made measures: frozen motion,
    repeated frames, over-sharpening, noise, saturation, brightness, contrast, text and borders. A reward that went up
    while a measure says worse is named."""
    with reported_errors(debug=debug):
        judged: dict[str, Any] = {
            "model": model,
            "paradigm": paradigm,
            "think": think,
            "seed": seed,
            "batch_size": batch_size,
            "device": device,
        }
        if before is not None or after is not None or fail:
            _check_generators(before, after, others={"CLIP": clips, "--benchmark": benchmark, "--root": root})
            assert before is not None
            assert after is not None
            sources: dict[Side, str] = {"before": before, "after": after}
            _compare_generators(sources, prompt=prompt, limit=limit, out=out, fail=fail, json=json, **judged)
            return
        _test_model(
            clips or [], prompt=prompt, benchmark=benchmark, root=root, limit=limit, out=out, json=json, **judged
        )


def _test_model(
    clips: Sequence[str],
    *,
    prompt: str | None,
    benchmark: str | None,
    root: Path | None,
    limit: int | None,
    out: Path | None,
    json: bool,
    model: str,
    seed: int,
    **judged: Any,  # noqa: ANN401  # of `_open_judge`
) -> None:
    from descore.cli.evaluation_output import print_stress
    from descore.cli.scoring import progress_bar
    from descore.evaluation.features import FEATURE_SAMPLING
    from descore.evaluation.judges import FeatureJudge
    from descore.evaluation.stress import run_stress

    with progress_bar(time_remaining=True) as bar:
        task = bar.add_task("reading the prompts", total=None)
        source, judgements = _load_clips(clips, prompt=prompt, benchmark=benchmark, root=root, limit=limit)
        bar.update(task, description=f"opening {model}")
        judge = _open_judge(model, seed=seed, **judged)
        sampling = FEATURE_SAMPLING if isinstance(judge, FeatureJudge) else judge.scorer.settings.sampling
        config = {"schema": STRESS_SCHEMA, **judge.config, "seed": seed, **source, "asked": _digest(judgements)}
        with _open_folder(out, config, results=STRESS_FILE, journal=JOURNAL_FILE) as journal:
            bar.update(task, description="changing and scoring")
            results = run_stress(
                judge,
                judgements,
                sampling=sampling,
                seed=seed,
                journal=journal,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            file = _write(out, STRESS_FILE, config, results, journal=journal)
    print_stress(results, config, file=file, json=json)


def _compare_generators(
    sources: Mapping["Side", str],
    *,
    prompt: str | None,
    limit: int | None,
    out: Path | None,
    fail: bool,
    json: bool,
    model: str,
    seed: int,
    **judged: Any,  # noqa: ANN401  # of `_open_judge`
) -> None:
    from descore.cli.evaluation_output import print_generators
    from descore.cli.scoring import progress_bar
    from descore.evaluation.features import HACK_MEASURES
    from descore.evaluation.stress import compare_generators

    with progress_bar(time_remaining=True) as bar:
        task = bar.add_task("reading the prompts", total=None)
        sides = {side: _source_clips(path, prompt=prompt, limit=limit) for side, path in sources.items()}
        bar.update(task, description=f"opening {model}")
        judge = _open_judge(model, seed=seed, **judged)
        config = {
            "schema": STRESS_SCHEMA,
            **judge.config,
            "seed": seed,
            "limit": limit,
            "asked": {side: _digest(judgements) for side, judgements in sides.items()},
            "measures": {name: row.formula for name, row in HACK_MEASURES.items()},
        }
        with _open_folder(out, config, results=GENERATORS_FILE, journal=GENERATORS_JOURNAL) as journal:
            bar.update(task, description="scoring and measuring")
            results = compare_generators(
                judge,
                sides,
                journal=journal,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            file = _write(out, GENERATORS_FILE, {**config, "sources": sources}, results, journal=journal)
    print_generators(results, config, file=file, json=json)
    if results.failures:
        raise typer.Exit(VideoError.exit_code)
    if fail and results.hacks:
        raise typer.Exit(HACKED)


def _check_generators(before: str | None, after: str | None, *, others: Mapping[str, Any]) -> None:
    if before is None or after is None:
        missing = "--before and --after" if before is after else "--before" if before is None else "--after"
        raise ConfigError(f"{missing}: missing; give the clips of two generators, each a folder or a table")
    given = [name for name, value in others.items() if value]
    if given:
        raise ConfigError(f"{given[0]} beside --before and --after; leave it out: the clips are those of the two")


def _source_clips(path: str, *, prompt: str | None, limit: int | None) -> "Judgements":
    """The clips of a generator. One without a prompt fails when it is opened."""
    from descore.evaluation.benchmarks import Judgements
    from descore.rewards.sources import open_source
    from descore.types import RatedClip

    rows = list(open_source(path, prompt=prompt, limit=limit, replace=True).rows())
    errors = {row.path or row.video: row.error for row in rows if row.error is not None}

    def checked(video: str) -> str:
        if video in errors:
            raise VideoError(video, str(errors[video]))
        return video

    rated = (RatedClip(prompt=row.prompt, video=row.path or row.video, group=row.prompt) for row in rows)
    return Judgements(clips=tuple(rated), pairs=(), open=checked, file=Path)


def _open_judge(
    model: str, *, paradigm: "Paradigm | None", think: str | None, seed: int, batch_size: int | None, device: str | None
) -> "FeatureJudge | ModelJudge":
    from descore.cli.scoring import open_judge

    return open_judge(
        model,
        paradigm=paradigm,
        device=device,
        batch_size=batch_size,
        sampling_params={"think": think, "seed": seed},
    )


def _write(
    out: Path | None, name: str, config: Mapping[str, Any], results: object, *, journal: Path | None
) -> Path | None:
    """Write the results in the place of the journal; their file."""
    from descore.evaluation.records import to_plain
    from descore.io import atomic_write

    if out is None or journal is None:
        return None
    text = json_text.dumps({**config, **to_plain(results)}, indent=1, allow_nan=False)
    atomic_write(out / name, text + "\n")
    journal.unlink(missing_ok=True)
    return out / name


def _load_clips(
    clips: Sequence[str], *, prompt: str | None, benchmark: str | None, root: Path | None, limit: int | None
) -> tuple[dict[str, Any], "Judgements"]:
    """The part of the config that names the clips, and the clips."""
    from descore.evaluation.benchmarks import Judgements, find_benchmark, load
    from descore.rubric import check_prompt
    from descore.types import RatedClip

    if clips:
        if benchmark is not None:
            raise ConfigError(f"found clips and --benchmark {benchmark}; give one of the two")
        if prompt is None or not prompt.strip():
            raise ConfigError("clips without a prompt; give the text that they were generated from with --prompt")
        check_prompt(prompt)
        rated = tuple(RatedClip(prompt=prompt, video=clip, group=prompt) for clip in dict.fromkeys(clips))
        return {"benchmark": None, "limit": None}, Judgements(
            clips=rated, pairs=(), open=lambda video: video, file=Path
        )
    if prompt is not None:
        raise ConfigError("--prompt without clips; name the clips, or leave it out: a benchmark has its own prompts")
    if benchmark is None:
        benchmark, limit = "drawn", limit or DRAWN_PAIRS
    row = find_benchmark(benchmark)
    return {"benchmark": row.name, "limit": limit}, load(row, root=root, limit=limit)


def _digest(judgements: "Judgements") -> str:
    """A short name for the clips and their prompts."""
    import hashlib

    requests = [(clip.video, clip.prompt) for clip in judgements.clips]
    return hashlib.sha256(json_text.dumps(requests).encode()).hexdigest()[:16]


@contextmanager
def _open_folder(out: Path | None, config: Mapping[str, Any], *, results: str, journal: str) -> Iterator[Path | None]:
    """Make the folder and hold it; its journal. None without a folder."""
    if out is None:
        yield None
        return
    from descore.io import append_records, lock_directory, make_directory

    make_directory(out)
    with lock_directory(out):
        _check_folder(out, config, names=(results, journal))
        if _read_config(out / journal) is None:
            append_records(out / journal, [config])
        yield out / journal


def _check_folder(out: Path, config: Mapping[str, Any], *, names: Sequence[str]) -> None:
    """An evaluation in the folder must be of the same model, and a test in it, ended or not, of the same options."""
    from descore.evaluation.runs import RUN_FILE

    kept = {RUN_FILE: ("digest", "paradigm", "think"), **dict.fromkeys(names, tuple(config))}
    for name, keys in kept.items():
        existing = _read_config(out / name)
        unequal = [] if existing is None else [key for key in keys if existing.get(key) != config[key]]
        if existing is not None and unequal:
            differences = "; ".join(f"{key} is {existing.get(key)!r} there, {config[key]!r} here" for key in unequal)
            raise ConfigError(
                f"{out / name}: of other options ({differences}); choose another --out, or the same options"
            )


def _read_config(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or in the first line of a journal; None where there is no file, or no whole line."""
    if not path.is_file():
        return None
    from descore.io import read_json_object, read_records

    try:
        return next(iter(read_records(path)), None) if path.suffix == ".jsonl" else read_json_object(path)
    except DataError as error:
        raise DataError(error.file, error.line, f"{error.reason}; choose another --out, or remove it") from None
