"""The pictures in docs: screenshots of pages that descore writes.

    python -m experiments.screenshots [--generated runs/generated] [--data FOLDER] [--out runs/pages]

Pages are written to --out, pictures to docs/. The store of generated clips gives half of the pairs that are judged
right and wrong; without it docs/right.webp and docs/wrong.webp stay as they are. FOLDER holds fetv/ and videoalign/
(see `descore benchmarks fetv`); with it, the bundled model and two hand-made features are evaluated on both, and
--out/report.html is the page of it. Without it, docs/report.webp stays as it is. Nothing was trained or tuned on these
clips. Needs chromium."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from descore import Scorer
from descore.report.cards import CardSection, render_cards, score_card
from descore.synthetic.splits import ExamplePair, Split, draw_pair
from descore.types import Score
from experiments.generated.benchmark import harmed_pairs
from experiments.generated.clips import Generated

DOCS = Path(__file__).parent.parent / "docs"
WIDTH = 1040
"""Of a picture, in pixels."""
TALLEST = 6000
"""Pixels of a page that are looked at."""
QUALITY = 68
"""Of the pictures' WebP, of 100: together they stay below 400 KB."""
AGREEMENT = (1268, 1880)
"""Rows of the report's page, in pixels, with the agreement on FETV."""
SHOWN = 2
"""Pairs of docs/world.webp."""
SIZE = (128, 128)
JUDGES = {
    "sharpness": ["--model", "sharpness"],
    "jerk": ["--model", "jerk"],
    "tiny-off": ["--model", "tiny", "--think", "off"],
    "tiny-on": ["--model", "tiny", "--think", "on"],
}


def main() -> None:
    """Write every page and take its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generated", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/pages"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    descore("demo", "--out", options.out / "demo")
    screenshot(options.out / "demo" / "descore-demo.html", DOCS / "demo.webp", rows=(0, 700))
    shutil.rmtree(options.out / "world", ignore_errors=True)
    descore("world", "sample", "--count", SHOWN, "--out", options.out / "world")
    screenshot(options.out / "world" / "contact.html", DOCS / "world.webp")
    if options.generated is not None:
        for name, page in judged_pages("tiny", Generated.open(options.generated)).items():
            path = options.out / f"{name}.html"
            path.write_text(page, encoding="utf-8")
            screenshot(path, DOCS / f"{name}.webp")
    if options.data is not None:
        screenshot(report_page(options.data, out=options.out), DOCS / "report.webp", rows=AGREEMENT)


def descore(*arguments: str | int | Path) -> None:
    """Run a verb; stop where it stops."""
    subprocess.run([sys.executable, "-m", "descore", *map(str, arguments)], check=True)


def report_page(data: Path, *, out: Path) -> Path:
    """Evaluate whatever was not evaluated yet, and write the page of all runs."""
    runs = [out / f"{benchmark}-{name}" for benchmark in ("fetv", "videoalign") for name in JUDGES]
    for run in runs:
        benchmark, _, name = run.name.partition("-")
        descore("evaluate", *JUDGES[name], "--benchmark", benchmark, "--root", data / benchmark, "--out", run)
    stress = out / "stress-tiny"
    if not (stress / "stress.json").is_file():
        descore("stress", "--benchmark", "drawn", "--limit", 12, "--out", stress)
    descore("report", *runs, stress, "--out", out / "report.html")
    return out / "report.html"


def judged_pages(model: str, store: Generated) -> dict[str, str]:
    """The first drawn and the first generated pair that a model orders as they truly are, and the first that it does
    not: none is chosen by eye."""
    scorer = Scorer.from_pretrained(model)
    drawn = (draw_pair(Split.IN_DOMAIN, number, size=SIZE) for number in count())
    harmed: Iterator[ExamplePair[Any]] = harmed_pairs(store, "test")
    sections: dict[bool, list[CardSection]] = {True: [], False: []}
    for kind, pairs in (("Drawn", drawn), ("Generated, one clip harmed", harmed)):
        for right, section in first_of_each(scorer, kind, pairs).items():
            sections[right].append(section)
    title = "Judged {}: the first such drawn pair, and the first of held-out generators"
    return {
        name: render_cards(sections[right], title=title.format(name), generator="experiments.screenshots")
        for right, name in ((True, "right"), (False, "wrong"))
    }


def first_of_each(scorer: Scorer, kind: str, pairs: Iterator[ExamplePair[Any]]) -> Mapping[bool, CardSection]:
    """Whether it is ordered rightly → the first such pair."""
    found: dict[bool, CardSection] = {}
    for number, example in enumerate(pairs):
        if example.preference == "tie":
            continue
        scores = [scorer.score(side.clip, prompt=side.prompt) for side in (example.a, example.b)]
        right = (scores[0].reward > scores[1].reward) == (example.preference == "a")
        found.setdefault(right, judged_section(f"{kind}: pair {number}", example, scores))
        if len(found) == 2:
            break
    return found


def judged_section(title: str, example: ExamplePair[Any], scores: Sequence[Score]) -> CardSection:
    """Both clips, the higher reward first, with their true marks; the badge of the better one is coloured."""
    sides = sorted(zip("ab", scores, (example.a, example.b), strict=True), key=lambda side: -side[1].reward)
    cards = [
        replace(
            score_card(score, rank=rank, truth=shown.verdict),
            title="the better clip" if letter == example.preference else "the worse clip",
            emphasized=letter == example.preference,
        )
        for rank, (letter, score, shown) in enumerate(sides, start=1)
    ]
    return CardSection(title=title, prompt=example.a.prompt, cards=cards, compact=True)


def screenshot(page: Path, picture: Path, *, rows: tuple[int, int] | None = None) -> None:
    """A page as a WebP: some rows of its pixels, or all of it."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "page.png"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}")
        size = f"--window-size={WIDTH},{TALLEST}"
        command = ["chromium", *options, size, f"--screenshot={raw}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        image = Image.open(raw).convert("RGB")
    top, bottom = rows or (0, content_height(image))
    image = image.crop((0, top, image.width, bottom))
    image.save(picture, quality=QUALITY, method=6)
    print(f"{picture}: {image.width}x{image.height}, {picture.stat().st_size:,} bytes")


def content_height(image: Image.Image) -> int:
    """Where the last line stands that is not the background, and a margin."""
    blank = Image.new("RGB", image.size, image.getpixel((0, 0)))
    box = ImageChops.difference(image, blank).getbbox()
    return image.height if box is None else min(image.height, box[3] + 24)


if __name__ == "__main__":
    main()
