"""`descore demo`: the model judges drawn clips and real ones, and a picture shows what it said."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descore.cli import options as opt
from descore.cli.manners import manners

if TYPE_CHECKING:
    from rich.console import Console

    from descore.types import Score, Verdict

PICTURE = "descore-demo.png"
SEED = 1
"""Of what the scenes leave open: size, path, texture."""
FPS, PER_DRAWN_FRAME = 24, 6
"""The world draws 4 frames a second; the films have 6 for each, so that people see motion, not a slide show."""

REAL = {
    "rabbit.mp4": "a white shape moving up on a meadow",
    "squirrel.mp4": "a solid orange star at rest",
}
"""Bundled clips, and for each a prompt in the few words that the bundled model knows."""

ON_DRAWN = "The asked scene, and three that each depart further from it: {prompt}."
ON_REAL = (
    "The bundled model grew up on drawn shapes alone and has never seen real footage; the prompts are put in the few "
    "words that it knows. This shows that real files go the same way, not a judgement to trust."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A drawn clip as a file, and the truth about it."""

    path: Path
    verdict: "Verdict"


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the picture and the drawn clips.")] = Path(
        "demo"
    ),
    model: opt.Model = "tiny",
    device: opt.Device = None,
    debug: opt.Debug = False,
) -> None:
    """Judge drawn and real clips, and draw a picture of it."""
    with manners(debug=debug):
        _run(out, model=model, device=device)


def _run(out: Path, *, model: str, device: str | None) -> None:
    from descore.cli.judging import judge
    from descore.cli.screen import console, show_ranking, show_score
    from descore.types import Score

    prompt, variants = _draw(_made(out / "clips"))
    folder = Path(str(files("descore") / "bundled" / "clips"))
    requests = [(str(v.path), prompt) for v in variants] + [(str(folder / name), said) for name, said in REAL.items()]
    screen = console()
    scores: list[Score] = []
    for result in judge(requests, model=model, device=device):
        if not isinstance(result, Score):
            raise result
        if len(scores) in (0, len(variants)):
            _announce(
                screen, "Real clips" if scores else "Drawn clips", ON_REAL if scores else ON_DRAWN.format(prompt=prompt)
            )
        show_score(screen, result, name=Path(result.clip.source).name)
        scores.append(result)
    drawn, real = scores[: len(variants)], scores[len(variants) :]
    ranked = sorted(drawn, key=lambda score: score.reward, reverse=True)
    order = _order(ranked, variants)
    _announce(screen, "The drawn clips, best first", order)
    show_ranking(screen, [(Path(score.clip.source).name, score) for score in ranked])
    picture = _picture(out / PICTURE, ranked, real, order=order)
    screen.print(f"\nThe picture: {picture}\nThe drawn clips: {out / 'clips'}")


def _draw(folder: Path) -> tuple[str, list[Variant]]:
    """Four films for one prompt, each with a graver fault than the one before."""
    import numpy as np

    from descore.cli.film import write_mp4
    from descore.world.drawing import FRAMES, render
    from descore.world.scenes import Camera, Colour, Motion, Request, Scene, Setting, Shape, Style
    from descore.world.telling import true_verdict, write_prompt

    asked = Scene(
        shape=Shape.STAR,
        colour=Colour.YELLOW,
        motion=Motion.LEFT,
        camera=Camera.STILL,
        setting=Setting.NIGHT_SKY,
        style=Style.FILLED,
    )
    request = Request(shape=True, colour=True, motion=True, camera=False, setting=True, style=False)
    shown = {
        "as-asked": asked,
        "wrong-colour": replace(asked, colour=Colour.BLUE),
        "stands-still": replace(asked, motion=Motion.STILL),
        "other-thing": replace(asked, shape=Shape.SQUARE, colour=Colour.RED, setting=Setting.MEADOW),
    }
    variants = []
    for name, scene in shown.items():
        variant = Variant(path=folder / f"{name}.mp4", verdict=true_verdict(asked, scene, request))
        frames = (FRAMES - 1) * PER_DRAWN_FRAME + 1
        pixels = render(scene, rng=np.random.default_rng(SEED), frames=frames, height=256, width=256)
        write_mp4(variant.path, pixels, fps=FPS, hold=PER_DRAWN_FRAME, options={"crf": "16"})
        variants.append(variant)
    return write_prompt(asked, request, np.random.default_rng(SEED)), variants


def _order(ranked: "Sequence[Score]", variants: Sequence[Variant]) -> str:
    """How the order compares with the truth."""
    truth = {str(variant.path): variant.verdict.overall for variant in variants}
    overalls = [truth[score.clip.source] for score in ranked]
    pairs = [(a, b) for place, a in enumerate(overalls) for b in overalls[place + 1 :]]
    right = sum(a > b for a, b in pairs)
    return f"{right} of {len(pairs)} pairs in the true order."


def _announce(screen: "Console", title: str, text: str) -> None:
    from rich.text import Text

    screen.print(Text.assemble("\n", (title, "bold cyan"), "\n", text, "\n"))


def _picture(path: Path, ranked: "Sequence[Score]", real: "Sequence[Score]", *, order: str) -> Path:
    from descore.report.card import Section, draw_page

    page = draw_page(
        [
            Section(title="One prompt, four drawn clips, best first", note=order, scores=tuple(ranked), ranked=True),
            Section(title="Real clips", note=ON_REAL, scores=tuple(real)),
        ],
        title="Think, then score",
        note=f"What the model {ranked[0].model} wrote of each clip, and the reward read behind its last word.",
        footer="rabbit.mp4, squirrel.mp4: Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0",
    )
    page.save(path)
    return path


def _made(folder: Path) -> Path:
    from descore.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ConfigError(f"{folder}: cannot be made: {fault.strerror}; choose another folder with --out") from fault
    return folder
