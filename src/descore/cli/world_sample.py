"""Write pairs of the drawn world into a folder: clips, a table in the project's schema of pairs, and a page.

In: a split and the numbers of pairs. Out: clips/N-a.mp4, clips/N-b.mp4, pairs.csv, contact.html. The folder appears
when all is in it."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from descore.errors import ConfigError
from descore.io import atomic_directory
from descore.report.cards import CardSection, ClipCard, render_cards
from descore.rubric import marks_json
from descore.synthetic.rendering import DRAWN_FPS
from descore.synthetic.splits import Example, ExamplePair, Split, draw_pair
from descore.types import Preference
from descore.video.encoder import write_mp4

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


def write_sample(
    out: Path,
    *,
    split: Split,
    numbers: Sequence[int],
    size: tuple[int, int],
    label_noise: float = 0.0,
    loose: bool = False,
    on_pair: Callable[[], object] = lambda: None,
) -> list[Preference]:
    """The preferences, in order. size: width and height in pixels. loose: as in `write_prompt`. on_pair: called after
    each pair.

    A folder that exists, or cannot be made, raises ConfigError."""
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


def _write_pair(folder: Path, number: int, drawn: ExamplePair[Example]) -> dict[str, str]:
    row: dict[str, str] = {"prompt": drawn.a.prompt, "preference": drawn.preference, "group": drawn.a.prompt}
    for letter, example in (("a", drawn.a), ("b", drawn.b)):
        name = f"clips/{number:05d}-{letter}.mp4"
        # Noise and blur are part of the truth: what the encoder adds must stay far below them.
        write_mp4(folder / name, example.clip.frames, fps=round(DRAWN_FPS), options={"crf": "8"})
        row |= {f"{key}_{letter}": value for key, value in _cells(name, example).items()}
    return row


def _cells(video: str, example: Example) -> dict[str, str]:
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


def _section(number: int, drawn: ExamplePair[Example]) -> CardSection:
    cards = [_card(letter, example, drawn.preference) for letter, example in (("a", drawn.a), ("b", drawn.b))]
    return CardSection(title=f"Pair {number}", prompt=drawn.a.prompt, cards=cards, compact=True)


def _card(letter: str, example: Example, preference: Preference) -> ClipCard:
    return ClipCard(
        clip=example.clip,
        title=f"generator: {example.generator}",
        badge=letter.upper(),
        emphasized=preference == letter,
        text=example.chain.split("\n")[0],
        verdict=example.verdict,
    )


def _page(sections: Sequence[CardSection], *, split: Split, of: int) -> str:
    shown = f" The first {len(sections)} of {of:,} pairs." if len(sections) < of else ""
    title = f"The drawn world: {split.value.replace('_', '-')}"
    return render_cards(sections, title=title, generator="descore world sample", note=_NOTE + shown)
