"""`descore world` writes pairs of the drawn world: clips, a table in the project's schema of pairs, and a page;
`descore demo` scores drawn clips and real ones, and writes a page of the results."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from descore.cli import options as opt
from descore.cli.errors import echo, reported_errors
from descore.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from descore.report.cards import CardSection, ClipCard
    from descore.synthetic.splits import Example, ExamplePair, Split
    from descore.types import Paradigm, Preference, Score, Verdict

world_app = typer.Typer(name="world", help="The drawn world, whose truth is known.", no_args_is_help=True)

SplitName = Literal["train", "calibration", "in_domain", "combinations", "wordings", "generators"]
"""The values of `synthetic.splits.Split`, which --help does not import."""

PAIR_COLUMNS = (
    "prompt",
    "video_a",
    "video_b",
    "preference",
    "chain_a",
    "chain_b",
    "marks_a",
    "marks_b",
    "rating_a",
    "rating_b",
    "group",
    "source_a",
    "source_b",
)

_PAIRS_ON_PAGE = 40
_NOTE = (
    "The prompt, both clips with their true marks, and what a judge who sees everything writes; the letter of the "
    "preferred clip stands on colour."
)

DEMO_PAGE = "descore-demo.html"
DEMO_SEED = 1
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
    "Real footage, sound and blurred. The bundled model names coarse kinds of things there, judges the picture and the "
    "motion, and marks N/A what it cannot know."
)


@world_app.callback()
def _world() -> None:
    """The drawn world, whose truth is known."""


@world_app.command("sample")
def draw_sample(
    *,
    split: Annotated[SplitName, typer.Option("--split", help="The last three are out of domain.")] = "in_domain",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Pairs to draw.")] = 24,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; it must not exist.")],
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Pixels, even, at least 32.")] = "128x128",
    seed_offset: Annotated[int, typer.Option("--seed-offset", min=0, help="Number of the first pair.")] = 0,
    label_noise: Annotated[
        float, typer.Option("--label-noise", min=0, max=1, help="How often a preference is reversed.")
    ] = 0.0,
    loose: Annotated[
        bool, typer.Option("--loose", help="Loosely worded prompts: parts in any order, some words left out.")
    ] = False,
    debug: opt.Debug = False,
) -> None:
    """Write clips, a table of pairs, and a page that shows them."""
    with reported_errors(debug=debug):
        width_height = _read_size(size)
        _refuse_loose_wordings(split, loose=loose)
        from descore.cli.scoring import progress_bar
        from descore.synthetic.splits import Split

        with progress_bar() as bar:
            task = bar.add_task("drawing", total=count)
            preferences = write_sample(
                out,
                split=Split(split),
                numbers=range(seed_offset, seed_offset + count),
                size=width_height,
                label_noise=label_noise,
                loose=loose,
                on_pair=lambda: bar.advance(task),
            )
        counts = ", ".join(f"{name} {preferences.count(name)}" for name in ("a", "b", "tie"))
        echo(f"{out}: {count:,} pairs of the split {split} ({counts}): pairs.csv, clips/, contact.html")


def _refuse_loose_wordings(split: SplitName, *, loose: bool) -> None:
    if loose and split == "wordings":
        raise ConfigError(
            "--loose: puts training's words loosely, and the split wordings has none of them; leave it out"
        )


def _read_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    sides = tuple(int(side) for side in match.groups()) if match else ()
    if len(sides) != 2 or min(sides) < 32 or any(side % 2 for side in sides):
        raise ConfigError(f"--size: found {text}, expected WIDTHxHEIGHT, both even and at least 32, such as 128x128")
    return sides[0], sides[1]


def write_sample(
    out: Path,
    *,
    split: "Split",
    numbers: Sequence[int],
    size: tuple[int, int],
    label_noise: float = 0.0,
    loose: bool = False,
    on_pair: Callable[[], object] = lambda: None,
) -> "list[Preference]":
    """The preferences, in order. size: width and height in pixels. loose: as in `write_prompt`. on_pair: called after
    each pair.

    A folder that exists, or cannot be made, raises ConfigError."""
    from descore.io import atomic_directory
    from descore.synthetic.splits import draw_pair

    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder with --out, or remove it")
    rows: list[dict[str, str]] = []
    sections: list[CardSection] = []
    preferences: list[Preference] = []
    with atomic_directory(out) as aside:
        (aside / "clips").mkdir()
        for number in numbers:
            drawn = draw_pair(split, number, size=size, label_noise=label_noise, loose=loose)
            preferences.append(drawn.preference)
            rows.append(_write_pair(aside, number, drawn))
            if len(sections) < _PAIRS_ON_PAGE:
                sections.append(_section(number, drawn))
            on_pair()
        _write_table(aside / "pairs.csv", rows)
        (aside / "contact.html").write_text(_page(sections, split=split, of=len(rows)), encoding="utf-8")
    return preferences


def _write_pair(folder: Path, number: int, drawn: "ExamplePair[Example]") -> dict[str, str]:
    from descore.synthetic.rendering import DRAWN_FPS
    from descore.video.encoder import write_mp4

    row: dict[str, str] = {"prompt": drawn.a.prompt, "preference": drawn.preference, "group": drawn.a.prompt}
    for letter, example in (("a", drawn.a), ("b", drawn.b)):
        name = f"clips/{number:05d}-{letter}.mp4"
        # Noise and blur are part of the truth: what the encoder adds must stay far below them.
        write_mp4(folder / name, example.clip.frames, fps=round(DRAWN_FPS), options={"crf": "8"})
        row |= {f"{key}_{letter}": value for key, value in _cells(name, example).items()}
    return row


def _cells(video: str, example: "Example") -> dict[str, str]:
    from descore.rubric import marks_json

    return {
        "video": video,
        "chain": example.chain,
        "marks": marks_json(example.verdict.marks),
        "rating": f"{example.verdict.overall:.2f}",
        "source": example.generator,
    }


def _write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, PAIR_COLUMNS)
        table.writeheader()
        table.writerows(rows)


def _section(number: int, drawn: "ExamplePair[Example]") -> "CardSection":
    from descore.report.cards import CardSection

    cards = [_card(letter, example, drawn.preference) for letter, example in (("a", drawn.a), ("b", drawn.b))]
    return CardSection(title=f"Pair {number}", prompt=drawn.a.prompt, cards=cards, compact=True)


def _card(letter: str, example: "Example", preference: "Preference") -> "ClipCard":
    from descore.report.cards import ClipCard

    return ClipCard(
        clip=example.clip,
        title=f"generator: {example.generator}",
        badge=letter.upper(),
        emphasized=preference == letter,
        text=example.chain.split("\n")[0],
        verdict=example.verdict,
    )


def _page(sections: "Sequence[CardSection]", *, split: "Split", of: int) -> str:
    from descore.report.cards import render_cards

    shown = f" The first {len(sections)} of {of:,} pairs." if len(sections) < of else ""
    title = f"The drawn world: {split.value.replace('_', '-')}"
    return render_cards(sections, title=title, generator="descore world sample", note=_NOTE + shown)


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
        _run_demo(out, model=model, paradigm=paradigm, device=device)


def _run_demo(out: Path, *, model: str, paradigm: "Paradigm | None", device: str | None) -> None:
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
    for result in score_clips(requests, model=model, sampling_params={}, paradigm=paradigm, device=device):
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
    _write_demo_page(out / DEMO_PAGE, ranked, real, order=order)
    screen.print(f"\nThe page: {out / DEMO_PAGE}\nThe drawn clips: {out / 'clips'}")


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
        pixels = render_scene(scene, rng=np.random.default_rng(DEMO_SEED), frames=frames, height=256, width=256)
        write_mp4(variant.path, pixels, fps=FPS, hold=PER_DRAWN_FRAME, options={"crf": "16"})
        variants.append(variant)
    return write_prompt(requested, attributes, np.random.default_rng(DEMO_SEED)), variants


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
        worse = degrade(frames, "blur", strength=BLUR, rng=np.random.default_rng(DEMO_SEED))
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


def _write_demo_page(path: Path, ranked: "Sequence[Score]", real: "Sequence[Score]", *, order: str) -> None:
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
        note=_demo_note(ranked[0]),
        footer="rabbit.mp4, squirrel.mp4: Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0",
    )
    atomic_write(path, page)


def _demo_note(score: "Score") -> str:
    if not score.thinking:
        return f"The reward that the model {score.model} gives each clip at once: it was trained without chains."
    return f"What the model {score.model} wrote of each clip, and the reward read behind its last word."
