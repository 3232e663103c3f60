"""`descore doctor`: show what is installed and which device is used, and test that a bundled H.264 clip is decoded and
that a model scores reproducibly."""

import json as json_lines
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors
from descore.errors import DescoreError

if TYPE_CHECKING:
    from descore.scorer import Scorer
    from descore.types import Paradigm, Score

PACKAGES = ("descore", "torch", "torchvision", "transformers", "av", "numpy", "pillow")
REWARD_TOLERANCE = 1e-4
"""Rewards that differ by less are equal: float32 sums in another order."""


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
    device: opt.Device = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Show versions and device, decode H.264, open the model, and test that it scores a small clip reproducibly."""
    with reported_errors(debug=debug):
        diagnoses = []
        for diagnosis in _diagnose(model, paradigm, device):
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


def _diagnose(model: str, paradigm: "Paradigm | None", device: str | None) -> Iterator[Diagnosis]:
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
        yield from _check_model(model, paradigm, device)


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


def _check_model(model: str, paradigm: "Paradigm | None", device: str | None) -> Iterator[Diagnosis]:
    import torch

    from descore.cli.scoring import open_scorer

    scorers: list[Scorer] = []

    def open_model() -> str:
        # float32 everywhere: bfloat16 would hide whether results are equal
        scorers.append(open_scorer(model, paradigm=paradigm, device=device, batch_size=2, dtype=torch.float32))
        count = sum(parameter.numel() for parameter in scorers[0].model.parameters())
        return f"{model}, {count / 1e6:.3g} M parameters, scores {', '.join(scorers[0].model.settings.dimensions)}"

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
