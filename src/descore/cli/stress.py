"""`descore stress`: change clips and prompts, and see whether the reward changes as it should."""

import json as json_text
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors
from descore.cli.evaluate import STRESS_FILE
from descore.errors import ConfigError, DataError

if TYPE_CHECKING:
    from descore.evaluation.benchmarks import Judgements

STRESS_SCHEMA = 1
JOURNAL_FILE = "stress.jsonl"
"""Beside stress.json, until that is written: the config, then a line for each trial with a reward."""

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
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for stress.json. That of a run of descore evaluate will do, if it is of the same model.",
        ),
    ] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Change clips and prompts, and measure whether the reward falls or stays as it should.

    The frames are shuffled, frozen, greyed; the prompt is another clip's, or has praise and commands in it; and so on.
    Clips come from the command line, from a benchmark, or, without either, from a dozen pairs of drawn scenes. With
    --out, the same command goes on with a test that was interrupted."""
    with reported_errors(debug=debug):
        from descore.cli.evaluation_output import print_stress
        from descore.cli.scoring import open_judge, progress_bar
        from descore.evaluation.judges import FEATURE_SAMPLING, FeatureJudge
        from descore.evaluation.records import to_plain
        from descore.evaluation.stress import run_stress
        from descore.io import atomic_write

        with progress_bar(time_remaining=True) as bar:
            task = bar.add_task("reading the prompts", total=None)
            source, judgements = _load_clips(clips or [], prompt=prompt, benchmark=benchmark, root=root, limit=limit)
            bar.update(task, description=f"opening {model}")
            judge = open_judge(
                model,
                paradigm=paradigm,
                device=device,
                batch_size=batch_size,
                sampling_params={"think": think, "seed": seed},
            )
            sampling = FEATURE_SAMPLING if isinstance(judge, FeatureJudge) else judge.scorer.model.settings.sampling
            config = {"schema": STRESS_SCHEMA, **judge.config, "seed": seed, **source, "asked": _digest(judgements)}
            with _open_folder(out, config) as journal:
                bar.update(task, description="changing and scoring")
                results = run_stress(
                    judge,
                    judgements,
                    sampling=sampling,
                    seed=seed,
                    journal=journal,
                    on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
                file = None if out is None else out / STRESS_FILE
                if file is not None and journal is not None:
                    text = json_text.dumps({**config, **to_plain(results)}, indent=1, allow_nan=False)
                    atomic_write(file, text + "\n")
                    journal.unlink(missing_ok=True)
        print_stress(results, config, file=file, json=json)


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
def _open_folder(out: Path | None, config: Mapping[str, Any]) -> Iterator[Path | None]:
    """Make the folder and hold it; its journal. None without a folder."""
    if out is None:
        yield None
        return
    from descore.io import append_records, lock_directory, make_directory

    make_directory(out)
    with lock_directory(out):
        _check_folder(out, config)
        if _read_config(out / JOURNAL_FILE) is None:
            append_records(out / JOURNAL_FILE, [config])
        yield out / JOURNAL_FILE


def _check_folder(out: Path, config: Mapping[str, Any]) -> None:
    """An evaluation in the folder must be of the same model, and a stress test in it, ended or not, of the same
    options."""
    from descore.evaluation.runs import RUN_FILE

    kept = {RUN_FILE: ("digest", "paradigm", "think"), STRESS_FILE: tuple(config), JOURNAL_FILE: tuple(config)}
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
        return next(iter(read_records(path)), None) if path.name == JOURNAL_FILE else read_json_object(path)
    except DataError as error:
        raise DataError(error.file, error.line, f"{error.reason}; choose another --out, or remove it") from None
