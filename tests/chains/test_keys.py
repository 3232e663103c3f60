"""A key is read from the environment, and is nowhere else: not in records, files, messages or tracebacks."""

import traceback

import pytest

from descore.chains import asking
from descore.chains.collect import collect_chains
from descore.chains.estimate import estimate_collection
from descore.config_model import SettingsError
from descore.errors import DescoreError
from tests.chains.conftest import make_config
from tests.chains.made import read_candidates
from tests.chains.stub_teacher import GOOD, StubTeacher, cut, right, rubbish, status

CANARY = "sk-canary-7f3a9"
ECHOES = f"you sent Bearer {CANARY}, which"


def echo_error(handler, _request):
    """An error inside of a stream, with the key."""
    rubbish(f'{{"error": {{"message": "{ECHOES}"}}}}'.encode(), stream=True)(handler, _request)


SCRIPTS = {
    "right": right(f"{ECHOES} {GOOD}", thinking=ECHOES, finish=CANARY),
    "400": status(400, message=ECHOES),
    "401": status(401, message=ECHOES),
    "429": status(429, message=ECHOES, kind=CANARY),
    "quota": status(429, message=ECHOES, kind="insufficient_quota"),
    "500": status(500, message=ECHOES, headers={"X-Key": CANARY}),
    "html": rubbish(ECHOES.encode()),
    "no json": rubbish(ECHOES.encode(), stream=True),
    "error in stream": echo_error,
    "cut": cut(ECHOES),
    "redirect": status(307, headers={"Location": f"http://127.0.0.1:9/{CANARY}"}),
}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", f"  {CANARY}\n")
    monkeypatch.setattr(asking, "_FIRST_WAIT", 0.01)


def everything(folder, error):
    """All text of a run: its files, and an error as --debug shows it."""
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    return "\n".join([*texts, "" if error is None else "".join(traceback.format_exception(error))])


FAST = ("right", "401", "error in stream")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in SCRIPTS])
def test_a_key_is_sent_and_written_nowhere(tmp_path, pairs, name, caplog, capfd):
    error = summary = None
    with StubTeacher(lambda _: SCRIPTS[name]) as stub:
        config = make_config(
            tmp_path, pairs, stub, "limits.retries=1", "limits.max_failures=3", teacher={"api_key_env": "TEACHER_KEY"}
        )
        try:
            summary = collect_chains(config)
        except DescoreError as caught:
            error = caught
        assert {request.headers["authorization"] for request in stub.requests} == {f"Bearer {CANARY}"}
    assert (error is None) == (name == "right")
    shown = "".join([*capfd.readouterr(), caplog.text, repr(summary), repr(error)])
    assert CANARY not in everything(tmp_path, error) + shown
    if name == "right":
        assert "you sent Bearer ***, which" in read_candidates(summary.folder)[0].text


def test_a_key_that_is_missing_is_asked_for_by_name(tmp_path, pairs, monkeypatch):
    monkeypatch.delenv("TEACHER_KEY")
    config = make_config(tmp_path, pairs, teacher={"api_key_env": "TEACHER_KEY"})
    assert estimate_collection(config).missing  # asks nothing, and needs none
    with pytest.raises(DescoreError, match="the environment has no TEACHER_KEY; export it"):
        collect_chains(config)


@pytest.mark.parametrize(
    "teacher",
    [
        {"api_key_env": CANARY},
        {"api_key": CANARY},
        {"base_url": f"https://user:{CANARY}@host/v1"},
        {"base_url": f"https://host/v1?key={CANARY}"},
        {"base_url": f"https://{CANARY} host:port/v1"},
    ],
    ids=["as variable", "as key", "password", "query", "no address"],
)
def test_a_key_in_the_settings_is_refused_and_not_quoted(tmp_path, pairs, teacher):
    with pytest.raises(SettingsError) as caught:
        make_config(tmp_path, pairs, teacher=teacher)
    assert CANARY not in caught.value.page


def test_a_key_anywhere_else_in_the_settings_is_refused(tmp_path, pairs):
    teacher = {"api_key_env": "TEACHER_KEY", "extra_body": {"metadata": CANARY}}
    config = make_config(tmp_path, pairs, teacher=teacher)
    with pytest.raises(DescoreError, match="the settings hold the key itself"):
        collect_chains(config)
    assert not (tmp_path / "run").exists()
