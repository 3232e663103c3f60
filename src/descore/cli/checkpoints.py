"""`descore convert-checkpoint` turns a checkpoint of the official DeScore code, or of VideoAlign's, into one that every
verb opens;
`descore export` turns one of ours into one that engines open; `descore doctor` shows what is installed, which device is
used, that a bundled H.264 clip is decoded, and that a checkpoint scores reproducibly here."""

import json as json_lines
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from descore.cli import options as opt
from descore.cli.errors import USAGE_ERROR, echo, reported_errors
from descore.errors import ConfigError, DescoreError

if TYPE_CHECKING:
    from descore.model.convert_official import Conversion
    from descore.model.export import Export
    from descore.scorer import Scorer
    from descore.types import Paradigm, Score

PACKAGES = ("descore", "torch", "torchvision", "transformers", "av", "numpy", "pillow")
REWARD_TOLERANCE = 1e-4
"""Rewards that differ by less are equal: float32 sums in another order."""


def convert_checkpoint(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder with rm_head.pth and a backbone or a LoRA adapter; of VideoAlign, with model_config.json.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new checkpoint's folder, which must not be there yet.")],
    code: Annotated[
        Literal["descore", "videoalign"],
        typer.Option("--from", help="Whose code wrote it: the official DeScore's, or VideoAlign's (docs/models.md)."),
    ] = "descore",
    rubric: Annotated[
        Path | None,
        typer.Option(
            "--rubric",
            help="The judging text that it was trained with: {prompt} once, {video} if not first. Needed for "
            "DeScore's.",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="Where its query stood: 'chain, query, end of turn' (stage 2), \"chain and query in the user's "
            "turn\" (stage 1), or 'chain, end of turn, query'. Needed for DeScore's.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="An adapter's backbone, if not where the adapter says.")
    ] = None,
    query_token: Annotated[
        str | None, typer.Option("--query-token", help="The query's name in DeScore's tokenizer. [<Reward>]")
    ] = None,
    dimension: Annotated[
        list[str] | None, typer.Option("--dimension", help="A name for each output of the head, in order. [overall]")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Fold the adapter into the weights. Default: it stays an adapter.")
    ] = False,
    debug: opt.Debug = False,
) -> None:
    """Convert a checkpoint of the official DeScore code, or of VideoAlign's. Nothing in it is run: weights are read as
    plain tensors."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import quiet_transformers

        options = {"layout": layout, "query_token": query_token, "dimensions": dimension}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        text = None if rubric is None else _read_text(rubric)
        _check_options(code, rubric=text, given=given)
        quiet_transformers()
        if code == "videoalign":
            from descore.judges.videoalign import convert_videoalign

            echo(_conversion_text(convert_videoalign(source, out, rubric=text, base=base, merge=merge)))
            return
        from descore.model.convert_official import convert_official

        converted = convert_official(source, out, rubric=text or "", base=base, merge=merge, **given)
        echo(_conversion_text(converted))


def _check_options(code: str, *, rubric: str | None, given: Mapping[str, Any]) -> None:
    """Refuse what is missing, or has no meaning, for a checkpoint of this code."""
    if code == "videoalign":
        if given:
            name = next(iter(given)).replace("_", "-").removesuffix("s")
            raise ConfigError(f"--{name}: for a checkpoint of the DeScore code; VideoAlign's says it itself")
        return
    for name, value in (("rubric", rubric), ("layout", given.get("layout"))):
        if value is None:
            raise USAGE_ERROR(f"Missing option '--{name}'")


def _read_text(rubric: Path) -> str:
    try:
        return rubric.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--rubric: {rubric} cannot be read as text: {error}") from error


def _conversion_text(converted: "Conversion") -> str:
    """What was written, and the next command."""
    settings = converted.settings
    adapter = {"none": "", "kept": ", with its adapter", "merged": ", its adapter merged"}[converted.adapter]
    layout = settings.layout.value if settings.queries is None else "queries in the rubric"
    return (
        f"converted: {converted.folder}{adapter} ({', '.join(settings.dimensions)}; {layout})\n"
        f"next: descore score CLIP --prompt TEXT --model {converted.folder}"
    )


def export(
    *,
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="A folder, a hub id, or the bundled 'tiny'."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new folder, which must not be there yet.")],
    target: Annotated[
        Literal["vllm"],
        typer.Option("--for", help="The engine. vllm: query and head become rows of the vocabulary (docs/engines.md)."),
    ],
    dtype: Annotated[
        Literal["bfloat16", "float32"] | None,
        typer.Option(
            "--dtype", help="Precision of the weights; float32 keeps query and head exact. Default: the checkpoint's."
        ),
    ] = None,
    debug: opt.Debug = False,
) -> None:
    """Export a checkpoint for an engine that knows of no reward head, such as vLLM. Adapters are merged; descore and
    transformers open the result too."""
    with reported_errors(debug=debug):
        from descore.cli.scoring import quiet_transformers

        quiet_transformers()
        import torch

        from descore.model.export import export_for_vllm

        assert target == "vllm", "another engine needs another function"
        echo(_export_text(export_for_vllm(checkpoint, out, dtype=getattr(torch, dtype) if dtype else None)))


def _export_text(exported: "Export") -> str:
    """What was written, how the reward is read from logits, and the next command."""
    rows = exported.rows
    pairs = ", ".join(f"{rows.hi[name]} + {rows.lo[name]} ({name})" for name in rows.hi)
    return "\n".join(
        [
            f"exported: {exported.folder} ({str(exported.dtype).removeprefix('torch.')}; {exported.settings.layout})",
            f"reward: at token {rows.query}, {rows.scale:g} * the sum of two logits: {pairs}",
            f"next: descore score CLIP --prompt TEXT --model {exported.folder}",
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The result of one check."""

    name: str
    result: str
    ok: bool = True


def doctor(
    *,
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    rubric: opt.Rubric = None,
    device: opt.Device = None,
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Say what of the model fits, from its config.json, and open nothing."),
    ] = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Show versions and device, decode H.264, open the model, and test that it scores a small clip reproducibly. With
    --memory: what scoring and each stage of training take, and what of it fits this card or this machine."""
    with reported_errors(debug=debug):
        diagnoses = []
        opening: dict[str, Any] = {"rubric": rubric, "device": device}
        for diagnosis in _diagnose_memory(model, **opening) if memory else _diagnose(model, paradigm, **opening):
            diagnoses.append(diagnosis)
            if not json:
                _print_diagnosis(diagnosis)
        faults = [diagnosis.name for diagnosis in diagnoses if not diagnosis.ok]
        if json:
            results = {diagnosis.name: diagnosis.result for diagnosis in diagnoses}
            echo(json_lines.dumps({**results, "faults": faults, "ok": not faults}))
        if faults:
            raise typer.Exit(DescoreError.exit_code)


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    from descore.report.text import one_line

    sign = typer.style("ok  ", fg=typer.colors.GREEN) if diagnosis.ok else typer.style("FAIL", fg=typer.colors.RED)
    echo(f"  {diagnosis.name:<14} {one_line(diagnosis.result)}", mark=sign)


def _diagnose(
    model: str, paradigm: "Paradigm | None", *, rubric: str | None, device: str | None
) -> Iterator[Diagnosis]:
    import platform

    yield Diagnosis(name="python", result=f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    packages = [_check_package(name) for name in PACKAGES]
    yield from packages
    if not all(package.ok for package in packages):
        return
    imports = _run_check("imports", _import_all)
    yield imports
    if imports.ok:
        yield _run_check("H.264", _decode_h264)
        yield Diagnosis(name="device", result=_describe_device(device))
        if model != "tiny":
            fit = next(_diagnose_memory(model, rubric=rubric, device=device))
            if fit.name == "scoring":  # a config that cannot be read is the model's fault, below
                yield fit
        yield from _check_model(model, paradigm=paradigm, rubric=rubric, device=device)


def _diagnose_memory(model: str, *, rubric: str | None, device: str | None) -> Iterator[Diagnosis]:
    """What of a model fits. Where scoring does not, in any way, that is a fault."""
    from descore.cli.scoring import quiet_transformers

    quiet_transformers()
    from descore.memory.fit import fit_text, fitting, memory_of, read_model, requirements, size_text

    there = memory_of(device)
    try:
        config, clip = read_model(model, rubric=rubric)
        for requirement in requirements(config, clip=clip, gpu=there.is_card):
            ok = requirement.name != "scoring" or bool(fitting(requirement, there))
            yield Diagnosis(name=requirement.name, result=fit_text(requirement, there), ok=ok)
    except DescoreError as error:
        yield Diagnosis(name="memory", result=str(error), ok=False)
        return
    yield Diagnosis(name="computed for", result=size_text(clip))


def _check_package(name: str) -> Diagnosis:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Diagnosis(name=name, result=version(name))
    except PackageNotFoundError:
        return Diagnosis(name=name, result="not installed", ok=False)


def _run_check(name: str, check: Callable[[], str]) -> Diagnosis:
    """The check's text, or the message of an error in the installation or the options."""
    try:
        return Diagnosis(name=name, result=check())
    except (ImportError, OSError, RuntimeError, DescoreError) as error:
        return Diagnosis(name=name, result=str(error) or type(error).__name__, ok=False)


def _import_all() -> str:
    from descore.model import import_torchvision

    import_torchvision()
    for name in ("transformers", "av", "PIL", "descore.scorer"):
        import_module(name)
    return "torch, torchvision, transformers, av and pillow work together"


def _decode_h264() -> str:
    """Decode a bundled clip whole, since some builds of FFmpeg come without H.264."""
    from importlib.resources import as_file, files

    from descore.video.reader import read_clip
    from descore.video.sampling import VideoSampling

    with as_file(files("descore").joinpath("bundled", "clips", "rabbit.mp4")) as file:
        clip = read_clip(file, sampling=VideoSampling())
    width, height = clip.source_size
    return f"{clip.source_frames} frames of {width}x{height} decoded, {len(clip.times)} sampled"


def _describe_device(device: str | None) -> str:
    import torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.startswith("cuda") and torch.cuda.is_available():
        return f"{chosen}, {torch.cuda.get_device_name(chosen)}"
    return f"{chosen}, {torch.get_num_threads()} threads"


def _check_model(model: str, **opening: Any) -> Iterator[Diagnosis]:  # noqa: ANN401  # options of `open_scorer`
    import torch

    from descore.cli.scoring import open_scorer

    scorers: list[Scorer] = []

    def open_model() -> str:
        # float32 everywhere: bfloat16 would hide whether results are equal
        scorers.append(open_scorer(model, **opening, batch_size=2, dtype=torch.float32))
        count = sum(parameter.numel() for parameter in scorers[0].model.parameters())
        return f"{model}, {count / 1e6:.3g} M parameters, scores {', '.join(scorers[0].settings.dimensions)}"

    yield _run_check("model", open_model)
    if scorers:
        yield from _check_scores(scorers[0])


def _check_scores(scorer: "Scorer") -> Iterator[Diagnosis]:
    videos = [_encode_noise(seed) for seed in (0, 1)]
    scores: list[Score] = []

    def score_alone() -> str:
        scores.append(scorer.score(videos[0], prompt="noise"))
        return f"reward {scores[0].reward:+.4f} for a drawn clip of {len(scores[0].clip.times)} frames"

    yield _run_check("scoring", score_alone)
    if not scores:
        return
    in_batch, _ = scorer.score_each([(video, "noise") for video in videos])
    yield _compare("alone = batch", scores[0], in_batch)
    first, second = (next(scorer.score_each([(videos[0], "noise")], temperature=1.0, seed=7)) for _ in range(2))
    yield _compare("seed = seed", first, second)
    yield Diagnosis(name="decoding", result=_describe_decoding(scorer))


def _describe_decoding(scorer: "Scorer") -> str:
    """Which path wrote the chains above, and why."""
    from descore.model.decoding import decoding_path

    return decoding_path(scorer.model)


def _compare(name: str, a: "Score | DescoreError", b: "Score | DescoreError") -> Diagnosis:
    """Whether two scores of one clip are equal. Of noise, a generative model may write what cannot be read; then the
    errors must be equal."""
    if isinstance(a, DescoreError) or isinstance(b, DescoreError):
        return Diagnosis(name=name, result=f"{a}; {b}", ok=str(a) == str(b))
    difference, same_chain = abs(a.reward - b.reward), a.thinking == b.thinking
    words = "the same words" if same_chain else "other words"
    ok = same_chain and difference <= REWARD_TOLERANCE
    return Diagnosis(name=name, result=f"{words}, rewards {difference:.1g} apart", ok=ok)


def _encode_noise(seed: int) -> bytes:
    """An encoded second of drifting noise, so that decoding is tested too."""
    import numpy as np

    from descore.video.encoder import write_mp4

    noise = (
        np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)
    )
    buffer = BytesIO()
    write_mp4(buffer, np.stack([np.roll(noise, 4 * step, axis=1) for step in range(8)]), fps=8, codec="mpeg4")
    return buffer.getvalue()
