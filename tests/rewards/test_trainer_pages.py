"""The pages on trainers: their code runs as it stands there, and the index and its settings are complete."""

import os
import re
from pathlib import Path
from unittest import mock

import pytest

from descore.rewards.adapter import ENVIRONMENT, AdapterSettings

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = sorted((DOCS / "trainers").glob("*.md"))
MODULES = Path(__file__).parent.parent.parent / "src" / "descore" / "rewards"
INDEX = (DOCS / "rewards.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 25
    with mock.patch.dict(os.environ):
        exec(compile(code, page.name, "exec"), {"__name__": page.stem})


def test_the_index_has_every_page_and_its_module():
    assert set(re.findall(r"\(trainers/(\w+)\.md\)", INDEX)) == {page.stem for page in PAGES}
    modules = re.findall(r"`descore\.rewards\.(\w+)`", INDEX)
    assert {page.stem for page in PAGES} <= set(modules)
    assert all((MODULES / f"{name}.py").is_file() for name in modules)


def test_the_settings_table_is_that_of_the_code():
    rows = re.findall(rf"^\| `(\w+)` \| `{ENVIRONMENT}(\w+)` \|", INDEX, re.MULTILINE)
    assert all(name.upper() == variable for name, variable in rows)
    assert sorted(name for name, _ in rows) == sorted(AdapterSettings.model_fields)
