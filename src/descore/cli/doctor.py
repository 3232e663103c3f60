"""`descore doctor`: what is installed, what it runs on, and whether it judges as it should."""

import json as json_lines
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from typing import TYPE_CHECKING, Any

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors
from descore.errors import DescoreError, VideoError

if TYPE_CHECKING:
    from descore.scorer import Scorer
    from descore.types import Paradigm, Score

PACKAGES = ("descore", "torch", "torchvision", "transformers", "av", "numpy", "pillow")
TOLERANCE = 1e-4
"""Rewards that differ by less are the same: float32 sums in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    found: str
    ok: bool = True


def doctor(
    *,
    model: opt.Model = "tiny",
    paradigm: opt.Paradigm = None,
    device: opt.Device = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Show versions and device, find the model, and score a small clip to see that all is well."""
    with reported_errors(debug=debug):
        findings = []
        for finding in _examine(model, paradigm, device):
            findings.append(finding)
            if not json:
                _show(finding)
        ok = all(finding.ok for finding in findings)
        if json:
            found = {finding.name: finding.found for finding in findings}
            faults = [finding.name for finding in findings if not finding.ok]
            typer.echo(json_lines.dumps({**found, "faults": faults, "ok": ok}))
        if not ok:
            raise typer.Exit(DescoreError.exit_code)


def _show(finding: Finding) -> None:
    from descore.report.text import one_line

    sign = typer.style("ok  ", fg=typer.colors.GREEN) if finding.ok else typer.style("FAIL", fg=typer.colors.RED)
    typer.echo(f"{sign}  {finding.name:<14} {one_line(finding.found)}")


def _examine(model: str, paradigm: "Paradigm | None", device: str | None) -> Iterator[Finding]:
    yield Finding(name="python", found=f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    packages = [_package(name) for name in PACKAGES]
    yield from packages
    if not all(finding.ok for finding in packages):
        return
    imported = _attempt("imports", _import_all)
    yield imported
    if imported.ok:
        yield Finding(name="device", found=_device(device))
        yield from _self_test(model, paradigm, device)


def _package(name: str) -> Finding:
    try:
        return Finding(name=name, found=version(name))
    except PackageNotFoundError:
        return Finding(name=name, found="not installed", ok=False)


def _attempt(name: str, action: Callable[[], str]) -> Finding:
    """What the action finds; a fault in the installation or in what was asked is a finding too."""
    try:
        return Finding(name=name, found=action())
    except (ImportError, OSError, RuntimeError, DescoreError) as fault:
        return Finding(name=name, found=str(fault) or type(fault).__name__, ok=False)


def _import_all() -> str:
    from descore.model import import_torchvision

    import_torchvision()
    for name in ("transformers", "av", "PIL", "descore.scorer"):
        import_module(name)
    return "torch, torchvision, transformers, av and pillow work together"


def _device(device: str | None) -> str:
    import torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.startswith("cuda") and torch.cuda.is_available():
        return f"{chosen}, {torch.cuda.get_device_name(chosen)}"
    return f"{chosen}, {torch.get_num_threads()} threads"


def _self_test(model: str, paradigm: "Paradigm | None", device: str | None) -> Iterator[Finding]:
    import torch

    from descore.cli.scoring import open_scorer

    opened: list[Scorer] = []

    def open_it() -> str:
        # float32 everywhere: what is tested is whether results agree, and bfloat16 would blur it
        opened.append(open_scorer(model, paradigm=paradigm, device=device, batch_size=2, dtype=torch.float32))
        count = sum(parameter.numel() for parameter in opened[0].model.parameters())
        return f"{model}, {count / 1e6:.3g} M parameters, scores {', '.join(opened[0].model.settings.dimensions)}"

    yield _attempt("model", open_it)
    if opened:
        yield from _trials(opened[0])


def _trials(scorer: "Scorer") -> Iterator[Finding]:
    films = [_film(seed) for seed in (0, 1)]
    alone: list[Score] = []

    def score_alone() -> str:
        alone.append(scorer.score(films[0], prompt="noise"))
        return f"reward {alone[0].reward:+.4f} for a drawn clip of {len(alone[0].clip.times)} frames"

    yield _attempt("scoring", score_alone)
    if not alone:
        return
    in_batch, _ = scorer.score_each([(film, "noise") for film in films])
    yield _same("alone = batch", alone[0], in_batch)
    first, second = (next(scorer.score_each([(films[0], "noise")], temperature=1.0, seed=7)) for _ in range(2))
    yield _same("seed = seed", first, second)


def _same(name: str, one: "Score | VideoError", other: "Score | VideoError") -> Finding:
    """A generative model may write, of noise, what cannot be read; then that must be the same."""
    if isinstance(one, VideoError) or isinstance(other, VideoError):
        return Finding(name=name, found=f"{one}; {other}", ok=str(one) == str(other))
    apart = abs(one.reward - other.reward)
    ok = apart <= TOLERANCE and one.thinking == other.thinking
    words = "the same words" if one.thinking == other.thinking else "other words"
    return Finding(name=name, found=f"{words}, rewards {apart:.1g} apart", ok=ok)


def _film(seed: int) -> Any:  # noqa: ANN401
    """The bytes of a second of drifting noise, so that decoding is tried too."""
    import numpy as np

    from descore.video.encoder import write_mp4

    noise = (
        np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)
    )
    buffer = BytesIO()
    write_mp4(buffer, np.stack([np.roll(noise, 4 * step, axis=1) for step in range(8)]), fps=8, codec="mpeg4")
    return buffer.getvalue()
