"""The README's own code and commands run as they stand there, on files of the names that it uses."""

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLIPS = Path(str(files("descore") / "bundled" / "clips"))

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, source in (("clip.mp4", "rabbit.mp4"), ("a.mp4", "rabbit.mp4"), ("b.mp4", "squirrel.mp4")):
        shutil.copy(CLIPS / source, tmp_path / name)
    (tmp_path / "demo" / "clips").mkdir(parents=True)
    shutil.copy(CLIPS / "rabbit.mp4", tmp_path / "demo" / "clips" / "wrong-colour.mp4")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.usefixtures("folder")
def test_the_python_example():
    [example] = [block for block in blocks("python") if "Scorer.from_pretrained" in block]
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert isinstance(names["result"].reward, float)


def test_starting_from_a_backbone(folder, micro):
    """The same lines, with a folder in the place of the hub id that no test may fetch."""
    [example] = [block for block in blocks("python") if "from_backbone" in block]
    backbone = folder / "backbone"
    micro.backbone.save_pretrained(backbone)
    micro.chat.processor.save_pretrained(backbone)
    exec(compile(example.replace("Qwen/Qwen3-VL-8B-Instruct", str(backbone)), "README.md", "exec"), {})
    assert (folder / "my-reward-model" / "descore.json").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/rewards.md"])
def test_the_reward_of_frames_in_memory(page):
    """The session prints what stands there. Its numbers are those of one processor, so the last digits may differ."""
    [session] = re.findall(r"```pycon\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    for example in doctest.DocTestParser().get_examples(session):
        if not example.want:
            exec(example.source, names)
            continue
        expected = [float(number) for number in re.findall(r"-?\d+\.\d*", example.want)]
        assert eval(example.source, names).tolist() == pytest.approx(expected, abs=1e-3)


def commands():
    """Those of a block, which may build on one another."""
    for block in blocks("console"):
        lines = [line.removeprefix("$ ") for line in block.splitlines()]
        if found := [line for line in lines if line.startswith("descore ")]:
            yield found


@pytest.mark.parametrize("block", list(commands()), ids=lambda block: " ".join(block[0].split()[:2]))
def test_the_commands_of_a_block(folder, block):
    for command in block:
        words = [w for word in shlex.split(command, comments=True) for w in expanded(folder, word)]
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def expanded(folder, word):
    return sorted(p.name for p in folder.glob(word)) if "*" in word else [word]
