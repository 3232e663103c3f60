"""Control characters and bidirectional overrides of names, prompts and chains never reach the terminal."""

import io
import json
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
from rich.console import Console

import descore.cli as cli_package
from descore.cli import app
from descore.cli.errors import echo
from descore.cli.output import console, show_score
from descore.cli.scoring import progress_bar
from descore.report.charts import element
from tests.cli.conftest import descore, films, model, terminal  # noqa: F401  # fixtures
from tests.report.test_cards import completion_of, score_of

EVIL = "\x1b]0;owned\x07\x1b[31m\u202e\u2066\x9b2J\x7f"
"""Sets a terminal's title, colours, reverses the order of letters, clears the screen."""
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
PROMPT = f"a ball{EVIL}"
FAST = ("--think", "off")


def unsafe(text):
    return {c for c in text if c in BIDI or (c != "\n" and unicodedata.category(c) == "Cc")}


@pytest.fixture(scope="module")
def hostile(films, model, tmp_path_factory):  # noqa: F811
    """A folder of a hostile name, with clips, tables, settings and a checkpoint of hostile names in it."""
    folder = tmp_path_factory.mktemp("hostile") / f"x{EVIL}y"
    folder.mkdir()
    for name, film in zip("ab", films[0], strict=False):
        shutil.copy(film, folder / f"{name}{EVIL}.mp4")
    shutil.copytree(model, folder / f"model{EVIL}")
    clip_a, clip_b, gone = (f"{name}{EVIL}.mp4" for name in ("a", "b", "gone"))
    pair = {"prompt": PROMPT, "video_a": clip_a, "video_b": clip_b, f"preference.{EVIL}": "a"}
    rows = [pair, pair | {"video_b": gone, "prompt": "q"}, {**pair, f"preference.{EVIL}": EVIL}]
    write(folder / f"pairs{EVIL}.jsonl", rows)
    write(folder / f"good{EVIL}.jsonl", rows[:2])
    write(folder / f"scores{EVIL}.jsonl", [{"video": clip_a, "reward": 1}, {"video": gone, "error": EVIL}])
    scored = [{"prompt": PROMPT, "video": v, "group": EVIL, "model": EVIL, "error": None} for v in (clip_a, clip_b)]
    scored = [row | {"reward": reward, "source": EVIL} for row, reward in zip(scored, (1.0, 2.0), strict=True)]
    write(folder / f"ranked{EVIL}.jsonl", [*scored, scored[0] | {"video": gone, "reward": None, "error": EVIL}])
    write(folder / f"ratings{EVIL}.jsonl", [{"prompt": PROMPT, "video": v, "rating": 1} for v in (clip_a, clip_b)])
    (folder / f"run{EVIL}.yaml").write_text(json.dumps({f"data{EVIL}": {"train": f"gone{EVIL}.csv"}}))
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def commands(folder):
    """By verb: command lines over hostile names, good and bad."""

    def at(name):
        return folder / name.replace("*", EVIL)

    clips = (at("a*.mp4"), at("gone*.mp4"), at("b*.mp4"))
    tiny = ("--model", at("model*"), *FAST)
    settings = [(at("run*.yaml"),), (at("gone*.yaml"),), (at("run*.yaml"), f"a{EVIL}=1")]
    return {
        "score": [(*clips, "-p", PROMPT, *tiny), (*clips, "-p", PROMPT, *tiny, "--json"), (clips[0], "-p", "", *tiny)],
        "rank": [(*clips, "-p", PROMPT, *tiny), (clips[0], "-p", "p", "-m", at("gone*")), (at("scores*.jsonl"),)]
        + [(at("ranked*.jsonl"), *more) for more in ((), ("--by", EVIL), ("--json",), ("--out", at("best*.csv")))],
        "compare": [(clips[0], clips[2], "-p", PROMPT, *tiny), (*clips[:2], "-p", PROMPT, *tiny)],
        "evaluate": [
            ("-b", at("good*.jsonl"), "-o", at("run*"), *tiny),
            ("-b", at("good*.jsonl"), "-o", at("run2*"), "--scores", at("scores*.jsonl")),
            ("-b", at("pairs*.jsonl"), "-o", at("run3*"), *tiny),
            ("-b", EVIL),
        ],
        "benchmarks": [(EVIL,), (at("good*.jsonl"),)],
        "report": [(at("run*"), "-o", at("page*.html")), (at("gone*"),), (at("run*"), "-o", at("no*/page.html"))]
        + [(at("ranked*.jsonl"), "-o", at("page*.html"), *more) for more in ((), ("--column", EVIL))],
        "stress": [
            (*clips, "-p", PROMPT, "-m", "sharpness", "-o", at("stress*")),
            (clips[0], "-p", PROMPT, "-m", at("gone*")),
        ],
        "serve": [
            ("-m", f"a={at('gone*')}"),
            ("--media-root", at("gone*")),
            ("--host", EVIL),
            ("-m", f"{EVIL}={at('gone*')}"),
        ],
        "data check": [(at("pairs*.jsonl"), "--videos"), (at("pairs*.jsonl"), "--json"), (at("gone*.csv"),)],
        "data convert": [
            (at("ratings*.jsonl"), "--from", "ratings", "-o", at("out*.jsonl")),
            (at("pairs*.jsonl"), "--from", EVIL, "-o", at("out*.jsonl")),
        ],
        "convert-checkpoint": [(at("gone*"), "-o", at("official*"), "--rubric", at("gone*.txt"))],
        "export": [
            (at("model*"), at("exported*"), "--for", "vllm"),
            (at("gone*"), at("exported*"), "--for", "vllm"),
            (at("model*"), at("exported*"), "--for", EVIL),
        ],
        "train sft": settings,
        "train cold-start": settings,
        "train rl": settings,
        "world sample": [("--count", 1, "--out", at("world*")), ("--split", EVIL, "--out", at("world*"))],
        "doctor": [()],
        "data votes": [(at("good*.jsonl"),), (at("gone*"),), (at("good*.jsonl"), "--scores", at("scores*.jsonl"))],
        "chains collect": settings,
        "chains rounds": settings,
        "chains filter": [(at("run*"),), (at("gone*"),)],
        "chains check": [(at("good*.jsonl"), "-o", at("check*.html")), (at("gone*.jsonl"),), (at("run*"),)],
        "chains weak-marks": [(at("ratings*.jsonl"), "-o", at("marks*.jsonl")), (at("gone*.jsonl"), "-o", at("m*"))],
        "pairs": [(at("scores*.jsonl"), "-o", at("out*.csv")), (at("gone*.jsonl"), "-o", at("out*.csv"))]
        + [(at("ranked*.jsonl"), "-o", at(f"{form}*.csv"), "--format", form) for form in ("trl", "descore", EVIL)],
    }


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=[pytest.mark.slow] * (verb == "doctor")) for verb in commands(Path())]
)
def test_nothing_of_a_name_steers_the_terminal(descore, hostile, verb):  # noqa: F811
    for arguments in commands(hostile)[verb]:
        result = descore(*verb.split(), *arguments)
        assert result.stdout or result.stderr
        assert not unsafe(result.stdout + result.stderr), (verb, arguments)


def test_every_verb_is_among_them():
    groups = {group.typer_instance.info.name: group.typer_instance for group in app.registered_groups}
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    for name, group in groups.items():
        verbs |= {f"{name} {one.name or one.callback.__name__}" for one in group.registered_commands}
    assert verbs - {"demo"} == set(commands(Path()))  # demo has no file's name but its folder's, see below


def test_a_chain_and_a_prompt_are_shown_without_it(capsys):
    score = score_of(completion_of(text=f"I see{EVIL} a star.", verdict=None, flaw=EVIL), prompt=PROMPT)
    show_score(console(), score, name=f"a{EVIL}.mp4")
    shown = capsys.readouterr().out
    assert "I see" in shown
    assert not unsafe(shown)


def test_whatever_is_printed_is_made_plain(capsys):
    """The console and `echo` do it for every text, whoever wrote it."""
    console().print(f"The page: {EVIL}/page.html")
    echo(f"out: {EVIL}", mark="\x1b[32mok\x1b[0m ")
    echo(f"out: {EVIL}", err=True)
    shown = capsys.readouterr()
    assert not unsafe(shown.out.replace("\x1b[32mok\x1b[0m", ""))
    assert not unsafe(shown.err)


def test_the_progress_bar_is_plain():
    bar = progress_bar()
    bar.add_task(f"opening [red]m{EVIL}\nx")
    screen = Console(file=io.StringIO(), width=100)
    screen.print(bar.get_renderable())
    shown = screen.file.getvalue()
    assert "opening [red]m" in shown
    assert not unsafe(shown)


def test_a_chart_is_plain():
    assert not unsafe(element("text", f"a{EVIL}", aria_label=EVIL))


def test_no_verb_prints_past_what_makes_text_plain():
    """`typer.echo` is in cli/errors.py alone, and consoles are made where texts are made plain."""
    for path in Path(cli_package.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert path.name == "errors.py" or not re.search(r"typer\.(echo|secho)\(|(?<![\w.])print\(", text), path.name
        assert path.name in ("output.py", "scoring.py") or "Console(" not in text, path.name
