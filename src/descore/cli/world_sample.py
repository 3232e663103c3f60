"""Write pairs of the drawn world into a folder: clips, a table in the project's schema of pairs, and a picture.

In: a split and the numbers of pairs. Out: clips/N-a.mp4, clips/N-b.mp4, pairs.csv, contact.png. The folder appears when
all is in it. Knows files; how a scene is drawn and a page is laid out others know."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from descore.errors import ConfigError
from descore.io import atomic_directory
from descore.report.sheet import Entry, Side, draw_sheet
from descore.rubric import marks_json
from descore.synthetic.rendering import FPS
from descore.synthetic.splits import Example, PairExample, Split, pair
from descore.types import Preference
from descore.video.encoder import write_mp4

COLUMNS = (
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

_MOST_IN_PICTURE = 40
_NOTE = (
    "What was asked, what is to be seen in both clips, and their true marks; the letter of the preferred clip stands "
    "on colour. Below each clip: what a judge who sees everything writes. Under the marks: which generator made it."
)


def write_sample(
    out: Path,
    *,
    split: Split,
    numbers: Sequence[int],
    size: tuple[int, int],
    label_noise: float = 0.0,
    loose: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> list[Preference]:
    """The preferences, in order. size: width and height in pixels. loose: as in `write_prompt`. tick: called after each
    pair.

    A folder that exists, or cannot be made, raises ConfigError."""
    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder with --out, or remove it")
    rows: list[dict[str, str]] = []
    entries: list[Entry] = []
    preferences: list[Preference] = []
    with atomic_directory(out) as aside:
        (aside / "clips").mkdir()
        for number in numbers:
            drawn = pair(split, number, size=size, label_noise=label_noise, loose=loose)
            preferences.append(drawn.preference)
            rows.append(_write_pair(aside, number, drawn))
            if len(entries) < _MOST_IN_PICTURE:
                entries.append(_entry(number, drawn))
            tick()
        _write_table(aside / "pairs.csv", rows)
        _picture(entries, split=split, of=len(rows)).save(aside / "contact.png")
    return preferences


def _write_pair(folder: Path, number: int, drawn: PairExample) -> dict[str, str]:
    row: dict[str, str] = {"prompt": drawn.a.prompt, "preference": drawn.preference, "group": drawn.a.prompt}
    for letter, example in (("a", drawn.a), ("b", drawn.b)):
        name = f"clips/{number:05d}-{letter}.mp4"
        # Noise and blur are part of the truth: what the encoder adds must stay far below them.
        write_mp4(folder / name, example.clip.frames, fps=round(FPS), options={"crf": "8"})
        row |= {f"{key}_{letter}": value for key, value in _told(name, example).items()}
    return row


def _told(video: str, example: Example) -> dict[str, str]:
    return {
        "video": video,
        "chain": example.chain,
        "marks": marks_json(example.verdict.marks),
        "rating": f"{example.verdict.overall:.2f}",
        "source": example.generator,
    }


def _write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


def _entry(number: int, drawn: PairExample) -> Entry:
    a, b = _side(drawn.a), _side(drawn.b)
    return Entry(title=f"pair {number}", prompt=drawn.a.prompt, a=a, b=b, preference=drawn.preference)


def _side(example: Example) -> Side:
    return Side(
        clip=example.clip,
        marks=example.verdict.marks,
        rating=example.verdict.overall,
        note=example.chain.split("\n")[0],
        source=f"by {example.generator}",
    )


def _picture(entries: Sequence[Entry], *, split: Split, of: int) -> Image.Image:
    shown = f" The first {len(entries)} of {of:,} pairs." if len(entries) < of else ""
    return draw_sheet(entries, title=f"The drawn world: {split.value.replace('_', '-')}", note=_NOTE + shown)
