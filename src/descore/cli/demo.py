"""`descore demo`: score drawn clips and real ones, and write a page of the results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from descore.cli import options as opt
from descore.cli.errors import reported_errors

if TYPE_CHECKING:
    from rich.console import Console

    from descore.types import Paradigm, Score, Verdict

PAGE = "descore-demo.html"
SEED = 1
"""Seed of the size, path and texture of the drawn scenes."""
FPS, PER_DRAWN_FRAME = 24, 6
"""The drawn world has 4 frames a second; the films have 6 frames for each of them, so that motion looks smooth."""

REAL = {
    "rabbit.mp4": "a rabbit sniffs a flower on a meadow",
    "squirrel.mp4": "a squirrel on the branch of a tree",
}
"""Bundled clips and a prompt for each. Each is scored unchanged, and blurred."""
BLUR = 0.9
"""Strength, of at most 1."""
REAL_FPS = 12
"""Of the blurred copies."""

ON_DRAWN = "The asked scene, and three that each depart further from it: {prompt}."
ON_REAL = (
    "Real footage, sound and blurred. The bundled model knows no words for what footage shows: it judges the picture "
    "and the motion, and marks the rest N/A."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A drawn clip as a file, with its true verdict."""

    path: Path
    verdict: "Verdict"


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the page and the drawn clips.")] = Path("demo"),
    model: opt.Model = "tiny",
    paradigm: opt.ParadigmChoice = None,
    device: opt.Device = None,
    debug: opt.Debug = False,
) -> None:
    """Judge drawn and real clips, and write a page of it."""
    with reported_errors(debug=debug):
        _run(out, model=model, paradigm=paradigm, device=device)


def _run(out: Path, *, model: str, paradigm: "Paradigm | None", device: str | None) -> None:
    from descore.cli.output import console, show_ranking, show_score
    from descore.cli.scoring import score_clips
    from descore.io import make_directory
    from descore.types import Score

    folder = out / "clips"
    make_directory(folder)
    prompt, variants = _draw_clips(folder)
    requests = [(str(variant.path), prompt) for variant in variants] + _real_clips(folder)
    screen = console()
    scores: list[Score] = []
    for result in score_clips(requests, model=model, paradigm=paradigm, device=device):
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
    _write_page(out / PAGE, ranked, real, order=order)
    screen.print(f"\nThe page: {out / PAGE}\nThe drawn clips: {out / 'clips'}")


def _draw_clips(folder: Path) -> tuple[str, list[Variant]]:
    """Four films for one prompt, in the order of their faults, none first."""
    import numpy as np

    from descore.synthetic.prompts import write_prompt
    from descore.synthetic.rendering import DRAWN_FRAMES, render_scene
    from descore.synthetic.scene import Action, Colour, Scene, Setting, Shape, Speed
    from descore.synthetic.truth import true_verdict
    from descore.video.encoder import write_mp4

    requested = Scene(
        shape=Shape.STAR, colour=Colour.YELLOW, action=Action.LEFT, speed=Speed.FAST, setting=Setting.NIGHT_SKY
    )
    attributes = frozenset({"count", "shape", "colour", "action", "setting"})
    scenes = {
        "as-asked": requested,
        "wrong-colour": replace(requested, colour=Colour.BLUE),
        "stands-still": replace(requested, action=Action.STILL, speed=Speed.SLOW),
        "other-thing": replace(requested, shape=Shape.SQUARE, colour=Colour.RED, setting=Setting.MEADOW),
    }
    variants = []
    for name, scene in scenes.items():
        variant = Variant(path=folder / f"{name}.mp4", verdict=true_verdict(requested, scene, attributes))
        frames = (DRAWN_FRAMES - 1) * PER_DRAWN_FRAME + 1
        pixels = render_scene(scene, rng=np.random.default_rng(SEED), frames=frames, height=256, width=256)
        write_mp4(variant.path, pixels, fps=FPS, hold=PER_DRAWN_FRAME, options={"crf": "16"})
        variants.append(variant)
    return write_prompt(requested, attributes, np.random.default_rng(SEED)), variants


def _real_clips(folder: Path) -> list[tuple[str, str]]:
    """Path and prompt of each real clip, and of its blurred copy."""
    import numpy as np

    from descore.synthetic.degradations import degrade
    from descore.video.encoder import write_mp4
    from descore.video.reader import read_clip
    from descore.video.sampling import VideoSampling

    sampling = VideoSampling(fps=REAL_FPS, max_frames=64, size_multiple=2)
    requests = []
    for name, prompt in REAL.items():
        sound = Path(str(files("descore") / "bundled" / "clips")) / name
        blurred = folder / f"{sound.stem}-blurred.mp4"
        frames = read_clip(str(sound), sampling=sampling).frames
        worse = degrade(frames, "blur", strength=BLUR, rng=np.random.default_rng(SEED))
        write_mp4(blurred, worse, fps=REAL_FPS, options={"crf": "16"})
        requests += [(str(sound), prompt), (str(blurred), prompt)]
    return requests


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


def _write_page(path: Path, ranked: "Sequence[Score]", real: "Sequence[Score]", *, order: str) -> None:
    from descore.io import atomic_write
    from descore.report.cards import CardSection, render_cards, score_card

    drawn = CardSection(
        title="One prompt, four drawn clips, best first",
        prompt=ranked[0].prompt,
        note=order,
        cards=[score_card(score, rank=rank) for rank, score in enumerate(ranked, start=1)],
    )
    footage = CardSection(title="Real clips", note=ON_REAL, cards=[score_card(score) for score in real])
    page = render_cards(
        [drawn, footage],
        title="Think, then score",
        generator="descore demo",
        note=_note(ranked[0]),
        footer="rabbit.mp4, squirrel.mp4: Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0",
    )
    atomic_write(path, page)


def _note(score: "Score") -> str:
    if not score.thinking:
        return f"The reward that the model {score.model} gives each clip at once: it was trained without chains."
    return f"What the model {score.model} wrote of each clip, and the reward read behind its last word."
