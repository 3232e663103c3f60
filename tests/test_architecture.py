"""The bounds of the house: what may import what, how many modules there are, how many of them a score and a step of
training load, and that no name stands for two things.

    python -m tests.test_architecture

prints the figures that docs/architecture.md quotes."""

import ast
import re
import statistics
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import descore
from descore.model.modeling import FAMILIES

SOURCE = Path(descore.__file__).parent
TESTS = Path(__file__).parent
BACKBONES = TESTS.parent / "docs" / "backbones.md"
CLIP = SOURCE / "bundled" / "clips" / "rabbit.mp4"

# What each package may import. A file at the top of src/descore is a package of its own here.
BASE = {"types", "errors", "rubric", "io", "config_model"}
MAY_IMPORT = {
    "types": set(),
    "errors": set(),
    "rubric": {"types", "errors", "config_model"},
    "io": {"errors"},
    "config_model": {"errors"},
    "stats": {"types", "errors"},
    "video": BASE,
    "data": BASE | {"video"},
    "synthetic": BASE | {"video"},
    "model": BASE | {"video"},
    "engines": BASE | {"video", "model"},
    "judges": BASE | {"video", "model"},
    "scorer": BASE | {"video", "model", "engines", "judges"},
    "training": BASE | {"data", "video", "model", "stats"},
    "memory": BASE | {"data", "video", "model", "training"},
    "evaluation": BASE | {"data", "video", "model", "stats", "scorer", "synthetic"},
    "rewards": BASE | {"data", "video", "model", "stats", "scorer"},
    "serving": BASE | {"data", "video", "model", "stats", "scorer", "rewards"},
    "chains": BASE | {"data", "video", "model", "stats", "scorer", "training", "evaluation"},
    "report": BASE | {"evaluation", "rewards", "stats", "chains"},
    "cli": BASE
    | {
        "data",
        "video",
        "synthetic",
        "model",
        "scorer",
        "judges",
        "memory",
        "training",
        "evaluation",
        "rewards",
        "serving",
        "chains",
        "report",
        "stats",
        "__init__",
    },
    "__main__": {"cli"},
    "__init__": {
        "types",
        "errors",
        "video",
        "model",
        "scorer",
        "rewards",
        "serving",
    },  # for the type checker only; at run time they are loaded when used
}

MOST_MODULES, LEAST_MEDIAN, SMALL_MODULE = 105, 150, 40
UNCOUNTED = {"rewards", "serving", "chains", "engines", "judges", "memory"}
"""Trainers; a service; training data; engines and models of others; what fits a card."""
MOST_TO_SCORE, MOST_TO_STEP = 18, 40
LONGEST_TEST_NAME = 60

SCORE = f"""
from descore import Scorer
Scorer.from_pretrained("tiny").score({str(CLIP)!r}, prompt="a rabbit", max_chain_tokens=4)
"""
STEP = """
from pathlib import Path
from descore.training.config_file import read_config
from descore.training.rl.config import RlConfig
from descore.training.rl.run import train_rl
train_rl(read_config(Path({config!r}), RlConfig))
"""
LOADED = """
import sys
print(*(name for name in sys.modules if name.split(".")[0] == "descore"), sep="\\n")
"""


@cache
def modules():
    """Every module by its dotted name, with its path."""
    paths = sorted(SOURCE.rglob("*.py"))
    return {".".join(path.relative_to(SOURCE.parent).with_suffix("").parts): path for path in paths}


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def package_of(name):
    return name.split(".")[1]


def imports(path, *, at_start=False):
    """The modules of this package that a file imports; `at_start`: only those that are imported when it is."""
    nodes = tree(path).body if at_start else ast.walk(tree(path))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "descore":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "descore")


def importers():
    """By module, how many others import it."""
    found = Counter()
    for name, path in modules().items():
        found.update(set(imports(path)) - {name})
    return found


FURTHER_FAMILIES = {f"descore.model.{name}" for name in FAMILIES[1:]}
"""Backbones: a module for each, all with the same names."""


def counted():
    """The modules outside the packages that hold one for each trainer or route, and without further families."""
    return [name for name in modules().keys() - FURTHER_FAMILIES if package_of(f"{name}.") not in UNCOUNTED]


def crumbs():
    """Small modules that one other uses alone."""
    uses = importers()
    return [
        name
        for name, path in modules().items()
        if lines(path) < SMALL_MODULE and uses[name] == 1 and path.stem not in ("__init__", "__main__")
    ]


def loaded_by(code):
    """The modules of this package that a fresh process has loaded after running the code."""
    done = subprocess.run([sys.executable, "-c", code + LOADED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sorted({line for line in done.stdout.splitlines() if line.split(".")[0] == "descore"})


def loaded_by_a_step(folder):
    """The same for one step of stage 2."""
    from tests.training.conftest import make_data, write_table
    from tests.training.rl_case import make_rl_config, marked_rows

    write_table(make_data(folder) / "marked.csv", marked_rows())
    make_rl_config(folder, folder / "run")
    overrides = "overrides=['optim.max_steps=1', 'rewards.function=null']"
    return loaded_by(STEP.format(config=str(folder / "rl.yaml")).replace("RlConfig))", f"RlConfig, {overrides}))"))


def names_of(path):
    """The public classes, functions and constants that a module defines."""
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))


def equal_names():
    """The public names that several modules define; the command line apart: its verbs are named like what they call."""
    names = Counter(
        name
        for module, path in modules().items()
        if package_of(f"{module}.") not in ("cli", "__main__", "") and module not in FURTHER_FAMILIES
        for name in set(names_of(path))
        if not name.startswith("_")
    )
    return sorted(name for name, count in names.items() if count > 1)


def test_every_package_has_its_place():
    assert {package_of(name) if "." in name else "__init__" for name in modules()} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("name", modules(), ids=lambda name: name.removeprefix("descore."))
def test_imports_point_back(name):
    package = package_of(name) if "." in name else "__init__"
    targets = {package_of(target) if "." in target else "__init__" for target in imports(modules()[name])}
    forward = targets - {package} - MAY_IMPORT[package]
    assert not forward, f"{package} must not import {', '.join(sorted(forward))}"


def test_imports_are_absolute():
    relative = [n for n in modules() for node in ast.walk(tree(modules()[n])) if getattr(node, "level", 0)]
    assert not relative


def test_no_two_packages_import_each_other():
    both = [(a, b) for a, allowed in MAY_IMPORT.items() for b in allowed if a < b and a in MAY_IMPORT[b]]
    assert not both


def test_no_modules_import_in_a_circle():
    waiting = {name: set(imports(path, at_start=True)) - {name} for name, path in modules().items()}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"these import one another: {', '.join(sorted(waiting))}"


def test_there_are_few_modules_of_a_readable_size():
    assert len(counted()) <= MOST_MODULES
    assert statistics.median(map(lines, modules().values())) >= LEAST_MEDIAN


def test_no_small_module_serves_one_other_alone():
    assert not crumbs()


def test_families_have_the_same_names():
    names = re.findall(
        r"^\| `(\w+)`(?:, `(\w+)`)? \|", BACKBONES.read_text(encoding="utf-8").split("## Another")[1], re.M
    )
    for family in FAMILIES:
        missing = {name for pair in names for name in pair if name} - vars(
            import_module(f"descore.model.{family}")
        ).keys()
        assert not missing, family


NAMES = {re.sub(r"\d.*", "", name).replace("_", "[-_]?") for name in (*FAMILIES, "llava")}
FAMILY_NAME = re.compile(rf"(?!qwen_vl_utils)({'|'.join(sorted(NAMES))})", re.I)
"""Their names without numbers, as code, files or people write them. qwen_vl_utils is a rule of sampling."""
MAY_NAME_FAMILIES = {
    "descore.model.modeling": {*FAMILIES},  # the table, and the one comparison
    "descore.model.small": {"Qwen2VLImageProcessor", "Qwen3VLProcessor", "Qwen3VLVideoProcessor", "Qwen3VLConfig"},
}


def named_families(source):
    """Where code, not prose, has a family's name, as a name or in a text, or compares a model_type."""
    parsed = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(parsed) if isinstance(node, ast.Expr)}
    for node in ast.walk(parsed):
        texts = [getattr(node, key, None) for key in ("id", "attr", "name", "arg", "module")]
        texts += [node.value] if isinstance(node, ast.Constant) and id(node) not in prose else []
        yield from (text for text in texts if isinstance(text, str) and FAMILY_NAME.search(text))
        if isinstance(node, ast.Compare) and "model_type" in ast.unparse(node):
            yield ast.unparse(node)


@pytest.mark.parametrize("name", modules(), ids=lambda name: name.removeprefix("descore."))
def test_no_code_branches_on_a_family(name):
    path = modules()[name]
    if path.stem in FAMILIES:
        return
    found = set(named_families(path.read_text(encoding="utf-8")))
    comparison = {"model_type in family.MODEL_TYPES"} if name == "descore.model.modeling" else set()
    assert found <= MAY_NAME_FAMILIES.get(name, set()) | comparison


@pytest.mark.parametrize(
    "line",
    [
        'if config.model_type == "x": pass',
        'if config.model_type.startswith("qwen"): pass',
        'patch = 14 if "Qwen2_5" in type(backbone).__name__ else 16',
        "isinstance(backbone, transformers.InternVLForConditionalGeneration)",
        "from descore.model.smolvlm import positions",
        "from descore.model import llava_onevision",
        'match kind:\n    case "qwen3_5": pass',
    ],
)
def test_a_branch_on_a_family_would_be_found(line):
    assert list(named_families(line))
    assert not list(named_families('"""Qwen3-VL has times."""\nrule = "qwen_vl_utils"'))


def test_no_name_stands_for_two_things():
    assert not equal_names()


def test_a_score_loads_few_modules():
    assert len(loaded_by(SCORE)) <= MOST_TO_SCORE


@pytest.mark.slow
def test_a_step_of_training_loads_few_modules(tmp_path):
    assert len(loaded_by_a_step(tmp_path)) <= MOST_TO_STEP


def test_test_names_are_short():
    names = [n for path in TESTS.rglob("test_*.py") for n in re.findall(r"^def (test_\w+)", path.read_text(), re.M)]
    assert not [name for name in names if len(name) > LONGEST_TEST_NAME]


def test_importing_descore_loads_no_torch():
    code = "import sys, descore; assert not {'torch', 'transformers', 'numpy', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_public_name_lists_the_known():
    with pytest.raises(AttributeError, match="it has AnswerError"):
        descore.Scorrer  # noqa: B018


def main():
    """Print the figures."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        step = loaded_by_a_step(Path(folder))
    sizes = [lines(path) for path in modules().values()]
    uses = importers()
    print(f"modules that are counted      {len(counted())} of {len(sizes)}")
    print(f"median lines                  {statistics.median(sizes):g}")
    print(f"used by one other             {sum(uses[name] == 1 for name in modules())}")
    print(f"small and used by one other   {len(crumbs())}")
    print(f"names of several things       {len(equal_names())}")
    print(f"loaded to score a clip        {len(loaded_by(SCORE))}")
    print(f"loaded for a step of stage 2  {len(step)}")
    print(f"lines of code, of tests       {sum(sizes)}, {sum(lines(path) for path in TESTS.rglob('*.py'))}")


if __name__ == "__main__":
    main()
