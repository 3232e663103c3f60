"""The page in a real browser: no console error, no network, no sideways scrolling on a phone, light, dark and print.

To look at the pictures: DESCORE_SCREENSHOTS=folder pytest tests/report/test_browser.py"""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import noise_clip
from tests.report.made_runs import HOSTILE, made_runs, made_stress
from tests.report.test_cards import MARKS, completion_of, score_of

from descore.report.cards import CardSection, render_cards, score_card
from descore.report.page import render
from descore.types import Verdict

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--log-level=0",
    "--virtual-time-budget=3000",
)
DARK = "--blink-settings=preferredColorScheme=0"
# Looks at the page through a frame as wide as a phone or a desk, and writes down what it finds.
PROBE = """<!doctype html><title>probe</title>
<iframe src="{page}" width="{width}" height="900"></iframe><pre></pre>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument;
  const table = page.querySelector("table.sortable");
  const column = () => table ? [...table.tBodies[0].rows].map((row) => row.cells[1].textContent.trim()) : [];
  const before = column();
  const sticksOut = (one) => one.getBoundingClientRect().right > {width} && !one.closest(".scroll");
  const loaded = frame.contentWindow.performance.getEntriesByType("resource");
  table?.tHead.rows[0].cells[1].querySelector("button").click();
  const hidden = [...page.querySelectorAll(".scroll")].flatMap((box) => {{
    box.scrollLeft = box.scrollWidth;
    const edge = box.getBoundingClientRect().left;
    const names = box.querySelectorAll("tbody th[scope='row'], tr.band bdi:first-child");
    return [...names].filter((one) => one.getBoundingClientRect().left < edge - 1).map((one) => one.textContent.trim());
  }});
  document.querySelector("pre").textContent = JSON.stringify({{
    wide: [...page.querySelectorAll("body *")].filter(sticksOut).map((one) => one.outerHTML.slice(0, 200)),
    nodes: page.querySelectorAll("*").length,
    requests: loaded.filter((one) => !one.name.startsWith("data:")).length,
    broken: [...page.images].filter((image) => image.complete && !image.naturalWidth).length,
    alarmed: frame.contentWindow.alarmed === true,
    before, after: column(), hidden,
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(render(made_runs(folder), stress=[made_stress()]), encoding="utf-8")
    return path


@pytest.fixture
def chromium(tmp_path):
    """Run the browser; gives its standard output. A message on the page's console fails the test."""

    def run(*args):
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert not messages, messages
        return done.stdout

    return run


def picture(chromium, page, path, *flags):
    chromium(f"--screenshot={path}", *flags, page.as_uri())
    return np.asarray(Image.open(path).convert("L")).astype(float)


def probe(chromium, page, width):
    path = page.with_name(f"probe-{width}.html")
    path.write_text(PROBE.format(page=page.name, width=width))
    dom = chromium("--dump-dom", path.as_uri())
    return json.loads(unescape(re.search(r"<pre>(.*?)</pre>", dom, re.S)[1]))


def test_a_console_error_fails_the_test(chromium, tmp_path):
    for number, script in enumerate(("console.error('oh')", "absent()", "fetch('https://example.org')")):
        path = tmp_path / f"{number}.html"
        path.write_text(f"<!doctype html><script>{script}</script>")
        with pytest.raises(AssertionError, match="CONSOLE"):
            chromium("--dump-dom", path.as_uri())


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_scrolls_sideways_loads_or_breaks(chromium, page, width):
    result = probe(chromium, page, width)
    assert result["wide"] == []
    assert result["requests"] == 0
    assert result["broken"] == 0
    assert not result["alarmed"]
    assert result["nodes"] < 8000
    assert result["hidden"] == []  # the names of rows stay in view beside the figures that are scrolled to


def test_a_click_on_a_head_sorts(chromium, page):
    result = probe(chromium, page, 1280)
    assert result["after"] == sorted(result["before"], reverse=True)


def test_hostile_text_runs_nothing(chromium, tmp_path):
    path = tmp_path / "hostile.html"
    runs = made_runs(tmp_path, hostile=HOSTILE)
    path.write_text(render(runs, stress=[made_stress(HOSTILE)]), encoding="utf-8")
    result = probe(chromium, path, 375)
    assert not result["alarmed"]
    assert result["wide"] == []
    assert result["requests"] == 0


def test_light_dark_phone_and_print(chromium, page, tmp_path):
    """A phone is narrower than a browser's window may be, so the page stands in a frame."""
    folder = Path(os.environ.get("DESCORE_SCREENSHOTS") or tmp_path).absolute()
    phone = page.with_name("phone.html")
    phone.write_text(f'<!doctype html><iframe src="{page.name}" width="375" height="9000" style="border:0"></iframe>')
    light = picture(chromium, page, folder / "light.png", "--window-size=1280,6000")
    dark = picture(chromium, page, folder / "dark.png", "--window-size=1280,6000", DARK)
    picture(chromium, phone, folder / "phone.png", "--window-size=500,9000")
    assert np.median(light) > 240
    assert np.median(dark) < 50
    assert light.std() > 20  # there is something on it
    chromium(f"--print-to-pdf={folder / 'print.pdf'}", "--no-pdf-header-footer", page.as_uri())
    assert (folder / "print.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("width", [320, 1280])
def test_cards_fit_phones_and_desks(chromium, tmp_path, width, compact):
    truth = Verdict(marks={**MARKS, "style": 0}, overall=2.5)
    shapes = ((32, 32), (640, 32), (32, 640))
    scores = [
        score_of(completion_of(text=HOSTILE * 5, verdict=None, flaw=HOSTILE), prompt="w" * 400),
        *(score_of(clip=noise_clip(0, frames=9, width=w, height=h)) for w, h in shapes),
    ]
    cards = [score_card(score, truth=truth) for score in scores]
    path = tmp_path / "cards.html"
    section = CardSection(title="Cards", cards=cards, compact=compact)
    path.write_text(render_cards([section], title="Cards", generator="test"), encoding="utf-8")
    result = probe(chromium, path, width)
    assert result["wide"] == []
    assert result["requests"] == result["broken"] == 0
    assert not result["alarmed"]
