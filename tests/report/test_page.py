"""The page is whole, says what the records say, is the same for the same records, and takes any text."""

import base64
import hashlib
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from tests.report.made_runs import HOSTILE, made_runs, made_stress, with_records

from descore.evaluation.results import results_of
from descore.report.page import render
from descore.report.tables import name_runs
from descore.report.text import decimal, interval_text

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Elements with their attributes and texts; what is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return made_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def html(runs):
    return render(runs, stress=[made_stress()])


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def section(html, name):
    return re.search(rf'<section id="{name}".*?</section>', html, re.S)[0]


def words(html):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_the_same_records_give_the_same_page(html, runs):
    assert render(runs, stress=[made_stress()]) == html


def test_every_section_is_there_and_every_link_leads_to_one(page):
    sections = [attributes["id"] for attributes in page.all("section")]
    assert len(sections) == 11
    assert [link["href"] for link in page.all("a")] == [f"#{name}" for name in sections]
    assert len(set(page.ids())) == len(page.ids())


def test_nothing_is_fetched(html, page):
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
    assert not re.search(r"@import|url\(|https?:", html)


def test_the_policy_allows_only_our_style_and_script(html, page):
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    for tag in ("style", "script"):
        [inside] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_failed_clips_come_first(html):
    section_text = words(section(html, "runs"))
    # every thirtieth of 72 clips, in each of eight runs
    assert section_text.startswith("What was run 560 of 576 clips were scored, 16 were not.")
    assert "videos/cogvideo-x/007.mp4 of FETV : the file ends in the middle of a frame" in section_text
    assert html.index("were not") < html.index('id="agreement"')


def test_the_tables_show_the_results(html, runs):
    section_text = words(section(html, "agreement"))
    for run in runs:
        for result in run.results["labels"].values():
            accuracy, tied = result["accuracy"], result["with_ties"]["figure"]
            assert (
                f"{decimal(accuracy['value'])} {interval_text(accuracy)} {accuracy['n']} ({accuracy['failed']} failed)"
                in section_text
            )
            others = result["with_ties_held_out"]["figure"]["value"], result["compatible"]
            assert f"{decimal(tied['value'])} {interval_text(tied)} {' '.join(map(decimal, others))}" in section_text
            for kind in (result["correlation"] or {}).get("within", {}).values():
                assert f"{decimal(kind['value'])} {interval_text(kind)}" in section_text


def test_published_figures_stand_beside_with_their_source(html):
    section_text = words(section(html, "agreement"))
    assert "VideoAlign published .728 .494 arXiv 2605.05922, table 1" in section_text
    assert section_text.count("arXiv 2605.05922, table 1") == 1  # though four runs carry it


def test_runs_of_other_pairs_are_marked(runs):
    some = [runs[0], replace(runs[1], pairs=runs[1].pairs[:-1])]
    assert "judged on different pairs" in render(some)
    assert "judged on different pairs" not in render(runs[:2])


def test_models_are_set_against_the_first(runs):
    html = render(runs[:3])
    text = words(section(html, "models"))
    names = [named.name for named in name_runs(runs[:3])]
    assert f"against {names[0]}" in text
    assert all(name in text for name in names[1:])
    assert 'id="models"' not in render(runs[:1])


def test_mistakes_show_frames_chains_marks_and_preferences(html, page):
    section_text = section(html, "mistakes")
    assert section_text.count("<article>") == 12
    assert 0 < len(page.all("img")) <= 24
    assert all(image["src"].startswith("data:image/jpeg;base64,") and image["alt"] for image in page.all("img"))
    for shown in ("people prefer this clip", "the model prefers this clip", "The camera holds still", "in truth"):
        assert shown in words(section_text)
    assert "frames: CC0, made up" in words(section_text)
    assert "dimensional_scores" not in section_text  # the answer was read: the marks say the same


def test_thinking_is_set_against_scoring_at_once(html):
    section_text = words(section(html, "thinking"))
    assert len(re.findall(r"Thinking helped \d+ and hurt \d+ of \d+ pairs: [+−]?[.\d]+ \[", section_text)) == 4
    assert section(html, "thinking").count("<tr><th") <= 2 * 4 + 1 + 12


def test_stress_results_are_shown(html):
    section_text = words(section(html, "stress"))
    assert "swap the prompt lower .930 [.850, 1.000] 72 −1.62 because" in section_text
    assert "half the frames per second same – 0 –" in section_text
    assert "1 clip has no score" in section_text


def test_charts_have_descriptions(page):
    drawn = [attributes for attributes in page.all("svg") if "chart" in attributes["class"]]
    assert all(attributes["role"] == "img" and len(attributes["aria-label"]) > 40 for attributes in drawn)
    rest = [attributes for attributes in page.all("svg") if "chart" not in attributes["class"]]
    assert all(attributes["aria-hidden"] == "true" for attributes in rest)


def test_tables_have_heads(page):
    assert all(attributes.get("scope") for attributes in page.all("th"))


def test_hostile_text_stays_text(tmp_path):
    page = Page(render(made_runs(tmp_path, hostile=HOSTILE), stress=[made_stress(HOSTILE)]))
    assert len(page.all("script")) == 1
    assert all(image["src"].startswith("data:image/jpeg") for image in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "{{7*7}}" in page.text
    assert "\x1b" not in page.text
    assert len({attributes["id"] for attributes in page.all("section")}) == 11


def test_a_lone_surrogate_can_be_written(runs):
    odd = with_records(runs[0], thinking="half a letter: \udc80")
    assert "half a letter: \N{REPLACEMENT CHARACTER}" in render([odd]).encode().decode()


@pytest.mark.slow
def test_many_clips_make_no_larger_page(tmp_path, html):
    large = render(made_runs(tmp_path, prompts=40), stress=[made_stress()])
    assert large.count("<") < 1.15 * html.count("<")
    assert len(large) < 1.3 * len(html)


def test_a_long_chain_is_cut(runs):
    page = render([with_records(runs[0], thinking="word " * 10_000)])
    assert "more letters)" in page
    assert len(page) < 400_000


def test_the_spread_of_several_chains_has_a_section(runs):
    run = runs[0]
    records = {key: record | {"std": 0.4, "samples": 4} for key, record in run.records.items()}
    html = render([replace(run, records=records, results=results_of(run.clips, run.pairs, records))])
    Page(html)
    spread = section(html, "spread")
    assert "Margin alone" in words(spread)
    assert spread.count('<svg viewBox="0 0 340') == len(run.results["labels"])
    assert 'href="#spread"' in html


def test_a_run_without_a_single_score_can_be_shown(tmp_path):
    page = Page(render(made_runs(tmp_path, failing=True)))
    assert "0 of 576 clips were scored" in words(page.text)
    assert "nan" not in page.text.lower().split()


def test_unknown_figures_have_no_section(runs):
    clips = tuple(replace(clip, source=None) for clip in runs[0].clips)
    plain = [replace(runs[0], clips=clips, results=runs[0].results | {"by_aspect": {}})]
    sections = [attributes["id"] for attributes in Page(render(plain)).all("section")]
    assert sections == ["runs", "agreement", "rewards", "difference", "reliability", "mistakes", "reading"]


def test_stress_alone_and_empty_input_make_pages():
    assert [a["id"] for a in Page(render([], stress=[made_stress()])).all("section")] == ["stress", "reading"]
    assert [a["id"] for a in Page(render([])).all("section")] == ["reading"]
