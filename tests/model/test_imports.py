"""What is not imported for a score is imported by whoever uses it, and all that was replaced is put back."""

import json
import subprocess
import sys
from importlib import import_module
from importlib.machinery import PathFinder

import pytest

from descore.model import DeferredModule, deferred

pytestmark = pytest.mark.slow

LEFT_OUT = ("torch._dynamo", "scipy.optimize", "torchvision.models", "torchvision.datasets", "torchvision.ops")

SCORE_THEN_USE = """
import gc, json, sys
import numpy as np
import torch
true_disable = torch.compiler.disable
from descore import Scorer
scorer = Scorer.from_pretrained("tiny", device="cpu")
frames = np.zeros((2, 64, 64, 3), np.uint8)
reward = scorer.score(frames, prompt="a ball", fps=1).reward
found = {name: name in sys.modules for name in json.loads(sys.argv[1])}

import scipy.optimize
import torchvision
from torchvision import datasets
from torchvision.transforms.v2 import _geometry
from transformers import masking_utils, modeling_utils
from transformers.loss import loss_for_object_detection

found["resnet"] = callable(torchvision.models.__dict__["resnet18"]) and hasattr(datasets, "CIFAR10")
found["no such"] = hasattr(torchvision, "no_such_name")
box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
found["iou"] = float(_geometry.box_iou(box, box))
found["assigned"] = [int(x) for row in loss_for_object_detection.linear_sum_assignment([[1, 0], [0, 1]]) for x in row]
found["optimize"] = type(scipy.optimize).__name__
with masking_utils.TransformGetItemToIndex():
    found["compiled"] = torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item()
from torch._dynamo import trace_rules
from transformers.integrations.finegrained_fp8 import _load_finegrained_fp8_kernel as marked
found["marked"] = trace_rules.is_callable_allowed(marked)
found["loader"] = "exec_module" in vars(torch._dynamo.__spec__.loader)
found["finders"] = [type(finder).__module__ for finder in sys.meta_path if "descore" in type(finder).__module__]
found["stand-ins"] = [name for name, module in sys.modules.items() if type(module).__module__ == "descore.model"]
found["disable"] = torch.compiler.disable is true_disable and gc.isenabled()
found["again"] = scorer.score(frames, prompt="a ball", fps=1).reward == reward
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    """What a process finds that scores a clip, and then uses what scoring did not import."""
    command = [sys.executable, "-W", "ignore", "-c", SCORE_THEN_USE, json.dumps(LEFT_OUT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_score_imports_neither_compiler_nor_models(found):
    assert [name for name in LEFT_OUT if found[name]] == []


def test_torchvisions_submodules_are_there_when_used(found):
    assert (found["resnet"], found["no such"], found["iou"]) == (True, False, 1.0)


def test_deferred_functions_call_the_true_ones(found):
    assert found["assigned"] == [0, 1, 1, 0]
    assert found["optimize"] == "module"


def test_the_compiler_works_and_knows_marked_functions(found):
    assert (found["compiled"], found["marked"]) == (2.0, True)


def test_all_that_was_replaced_is_put_back(found):
    assert found["finders"] == found["stand-ins"] == []
    assert (found["loader"], found["disable"], found["again"]) == (False, True, True)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that counts its imports, and what stands for it."""
    folder = tmp_path / "lazy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from . import inner\nname = __name__\ndef double(x): return 2 * x\n")
    (folder / "inner.py").write_text("value = object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield DeferredModule(PathFinder.find_spec("lazy_package"), functions=("double",))
    for name in [name for name in sys.modules if name.startswith("lazy_package")]:
        del sys.modules[name]


def test_a_function_imports_its_module_when_called(package):
    with deferred({"lazy_package": package}):
        double = import_module("lazy_package").double
        assert sys.modules["lazy_package"] is package
    assert "lazy_package" not in sys.modules
    assert double(2) == 4
    assert sys.modules["lazy_package"] is not package


def test_another_attribute_imports_the_module_at_once(package):
    with deferred({"lazy_package": package}):
        assert import_module("lazy_package").name == "lazy_package"
        assert sys.modules["lazy_package"] is not package
        with pytest.raises(AttributeError):
            package.no_such_name  # noqa: B018
    assert sys.modules["lazy_package"] is not package


def test_a_submodule_is_imported_once_with_its_package(package):
    with deferred({"lazy_package": package}):
        inner = import_module("lazy_package.inner")
    true = import_module("lazy_package")
    assert inner is true.inner is sys.modules["lazy_package.inner"]
    assert inner.__spec__.origin.endswith("inner.py")


def test_asking_all_modules_for_their_files_imports_none(package):
    with deferred({"lazy_package": package}):
        assert not hasattr(package, "__file__")
        assert sys.modules["lazy_package"] is package
