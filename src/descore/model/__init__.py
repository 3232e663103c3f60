"""The backbone, the query token, the reward head, and generation.

Importing this package imports torchvision and transformers, but not what they import and scoring does not use: torch's
compiler (`torch._dynamo`), torchvision's models, datasets and operators, and scipy's optimizers. Each is imported when
somebody uses it. What is replaced for an import is put back behind it."""

import gc
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch._compile import _disable_dynamo

from descore.errors import ConfigError, DescoreWarning, how_to_install

_Function = Callable[..., Any]

_UNUSED: Mapping[str, tuple[str, ...]] = {
    "torchvision.datasets": (),
    "torchvision.models": (),
    "torchvision.ops": (),
    "torchvision.ops.boxes": ("box_iou",),
    "torch._dynamo._trace_wrapped_higher_order_op": ("TransformGetItemToIndex",),
    "scipy.optimize": ("linear_sum_assignment",),
}
"""Modules that scoring does not use → the functions that torchvision and transformers import from them by name."""

_COMPILER = "torch._dynamo"


class DeferredModule(ModuleType):
    """Stands in `sys.modules` for a module that is not imported yet. Its `functions` import it when they are called;
    any other attribute, and any submodule, imports it at once."""

    def __init__(self, spec: ModuleSpec, *, functions: tuple[str, ...] = ()) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        if spec.submodule_search_locations is not None:
            self.__path__: list[str] = []  # a package, whose submodules `_Submodules` finds
        for name in functions:
            setattr(self, name, _deferred_function(spec.name, name))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        # `inspect` and `warnings` ask every module for the first two, and `from module import name` for the last.
        if name in ("__file__", "__warningregistry__", "__path__"):
            raise AttributeError(name)
        return getattr(self.import_true(self.__name__), name)

    def import_true(self, name: str) -> ModuleType:
        """The true module of this name, this one or one inside it."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return import_module(name)


def _deferred_function(module: str, name: str) -> _Function:
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return getattr(import_module(module), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call


class _Submodules:
    """A finder of what lies inside of a deferred module."""

    def find_spec(self, name: str, _path: Any, _target: Any = None) -> ModuleSpec | None:  # noqa: ANN401
        parent = sys.modules.get(name.rpartition(".")[0])
        if not isinstance(parent, DeferredModule):
            return None
        return ModuleSpec(name, _Imported(parent.import_true(name)))


class _Imported(Loader):
    """Loads a module that is imported already."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _DeferredCompiler(DeferredModule):
    """Stands for `torch._dynamo`. Functions that are marked for the compiler are marked when it is imported."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec)
        self._marks = _MarksAtImport()
        self._called: list[_Function] = []

    def allow_in_graph(self, function: _Function) -> _Function:
        return self._marks.add("allow_in_graph", function)

    def assume_constant_result(self, function: _Function) -> _Function:
        return self._marks.add("assume_constant_result", function)

    def disable(
        self,
        function: _Function | None = None,
        recursive: bool = True,
        *,
        wrapping: bool = True,
        reason: str | None = None,  # noqa: ARG002  # torch's signature
    ) -> _Function:
        """Torch's own lazy form of the decorator, which asks again, with `wrapping` False, when the function is called:
        without a compiler there is nothing to disable."""
        if wrapping or function is None:
            return _disable_dynamo(function, recursive)  # type: ignore[arg-type, return-value]  # its overloads
        self._called.append(function)
        return function

    def forget_calls(self) -> None:
        """Let functions that were called ask again, now that the compiler may be there."""
        for function in self._called:
            vars(function).pop("__dynamo_disable", None)


class _MarksAtImport:
    """A finder of `torch._dynamo` that marks functions behind its import, and then is gone."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, _Function]] = []

    def add(self, decorator: str, function: _Function) -> _Function:
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)  # type: ignore[arg-type]  # a finder by its form
        self.marks.append((decorator, function))
        return function

    def find_spec(self, name: str, path: Any, _target: Any = None) -> ModuleSpec | None:  # noqa: ANN401
        if name != _COMPILER:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        loader, execute = spec.loader, spec.loader.exec_module

        def execute_and_mark(module: ModuleType) -> None:
            del loader.exec_module
            execute(module)
            for decorator, function in self.marks:
                getattr(module, decorator)(function)

        loader.exec_module = execute_and_mark  # type: ignore[method-assign]
        return spec


def _find_spec(name: str) -> ModuleSpec | None:
    """Where a module is, without importing its parents as `importlib.util.find_spec` does; None if there is none."""
    spec, locations = None, None
    for prefix in accumulate(name.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(prefix, locations)
        if spec is None:
            return None
        locations = spec.submodule_search_locations
    return spec


@contextmanager
def deferred(modules: Mapping[str, DeferredModule]) -> Iterator[None]:
    """Let these modules stand in `sys.modules`, by name, until it is left."""
    finder: Any = _Submodules()
    sys.modules.update(modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in modules.items():
            if sys.modules.get(name) is module:  # and not the true one, which was needed meanwhile
                del sys.modules[name]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Do not import torch's compiler for what only asks it not to compile, such as shapes on the meta device."""
    spec = None if _COMPILER in sys.modules else _find_spec(_COMPILER)
    if spec is None:
        yield
        return
    compiler = _DeferredCompiler(spec)
    try:
        with deferred({_COMPILER: compiler}):
            yield
    finally:
        compiler.forget_calls()


@contextmanager
def without_progress_bar() -> Iterator[None]:
    """Show no bar of transformers in the body; afterwards all is as before."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: imports make many objects and leave nearly all of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def attending_by(backbone: Any, name: str) -> Iterator[None]:  # noqa: ANN401  # the families share no typed base
    """Let the language model attend by the function of this name in the body."""
    config = backbone.config.get_text_config()
    chosen = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = chosen


_NAMED_BITS = ("8bit", "4bit")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlacement:
    """Where a model's weights go, and in how many bits."""

    device: torch.device | None = None
    """Of all weights, where no map says otherwise; None: they stay where they are read, on the CPU."""
    device_map: Any = None
    """As transformers has it, such as "auto"; it needs accelerate."""
    quantization: Any = None
    """transformers' config, or "8bit" or "4bit" for the language model's linear layers by bitsandbytes."""

    @property
    def dtype(self) -> torch.dtype:
        """The precision of weights that are not quantized, unless somebody says so."""
        on_cpu = self.device is None or self.device.type == "cpu"
        return torch.float32 if on_cpu and self.quantization is None else torch.bfloat16

    def options(self, family: ModuleType, dtype: torch.dtype) -> dict[str, Any]:
        """Arguments of transformers' `from_pretrained`; none for a model that is moved as it is. ConfigError where a
        package for it is missing, or for an unknown name."""
        if self.device_map is None and self.quantization is None:
            return {}
        if isinstance(self.quantization, str) and self.quantization not in _NAMED_BITS:
            expected = f"{', '.join(_NAMED_BITS)} or transformers' BitsAndBytesConfig"
            raise ConfigError(f"quantization: found {self.quantization!r}; expected {expected}")
        packages = ("accelerate",) if self.quantization is None else ("accelerate", "bitsandbytes")
        if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
            install = how_to_install("quantize")
            raise ConfigError(f"quantization and device_map: {' and '.join(missing)} not installed; {install}")
        options = {"device_map": {"": self.device} if self.device_map is None else self.device_map}
        if isinstance(self.quantization, str):
            return {**options, "quantization_config": _bitsandbytes(self.quantization, family=family, dtype=dtype)}
        return options if self.quantization is None else {**options, "quantization_config": self.quantization}

    def put(self, model: Any) -> Any:  # noqa: ANN401  # a DescoreModel, which imports this module
        """The model with all its weights in place. ConfigError for one of which a part had to be left elsewhere."""
        if self.device_map is None and self.quantization is None:
            return model.to(self.device)
        places = {str(place) for place in (getattr(model.backbone, "hf_device_map", None) or {}).values()}
        if "disk" in places or ("cpu" in places and len(places) > 1):
            raise ConfigError("device_map: the model does not fit the GPUs, a part of it is on the CPU; quantize it")
        first = model.backbone.get_input_embeddings().weight.device
        model.query.data = model.query.data.to(first)
        model.head.to(first)
        if self.quantization is not None:
            _warn_of_experts(model.backbone)
        return model


def _bitsandbytes(name: str, *, family: ModuleType, dtype: torch.dtype) -> Any:  # noqa: ANN401
    from transformers import BitsAndBytesConfig

    parts = (prefix.removesuffix(".") for part in ("vision_tower", "merger") for prefix in family.PARTS[part])
    of_4bit = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype} if name == "4bit" else {}
    return BitsAndBytesConfig(**{f"load_in_{name}": True}, **of_4bit, llm_int8_skip_modules=[*parts, "lm_head"])


def _warn_of_experts(backbone: Any) -> None:  # noqa: ANN401
    """Say so where most weights keep their 16 bits: somebody counts on a quarter of the memory."""
    whole = [
        weight for weight in expert_weights(backbone).values() if weight.is_floating_point() and weight.itemsize > 1
    ]
    if whole:
        share = sum(weight.nbytes for weight in whole) / sum(weight.nbytes for weight in backbone.parameters())
        dtype = str(whole[0].dtype).removeprefix("torch.")
        message = f"quantization: experts are no linear layers and stay in {dtype}, {share:.0%} of the model's bytes"
        warnings.warn(message, DescoreWarning, stacklevel=3)


def bits_of(backbone: Any) -> int | None:  # noqa: ANN401  # the families' classes share no typed base
    """The bits that bitsandbytes holds a backbone's linear layers in; None for one that is not quantized."""
    kinds = (("is_loaded_in_4bit", 4), ("is_loaded_in_8bit", 8))
    return next((bits for name, bits in kinds if getattr(backbone, name, False)), None)


def expert_weights(backbone: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """By name, the matrices of a mixture's experts, those of a layer in one (E, ., .); none in a dense model. They are
    no linear layers: no adapter stands beside them, and bitsandbytes leaves them as they are."""
    named = (
        (f"{path}.{name}", weight)
        for path, module in backbone.get_decoder().named_modules()
        if not isinstance(module, torch.nn.Conv1d)
        for name, weight in module.named_parameters(recurse=False)
    )
    return {name: weight for name, weight in named if weight.ndim == 3}


def _import_what_scoring_needs() -> None:
    specs = {name: _find_spec(name) for name in _UNUSED if name not in sys.modules}
    modules = {name: DeferredModule(spec, functions=_UNUSED[name]) for name, spec in specs.items() if spec}
    with _without_collection(), deferred(modules), without_compiler():
        import_torchvision()
        import torchvision.transforms.v2.functional
        import transformers.generation.utils
        import transformers.modeling_utils
        import transformers.models.auto.processing_auto
        import transformers.video_processing_utils  # noqa: F401
    _defer_submodules(torchvision)


def _defer_submodules(package: ModuleType) -> None:
    """Import the submodules that were left out when they are asked for as attributes (PEP 562)."""
    left_out = [name for name, value in vars(package).items() if isinstance(value, DeferredModule)]
    for name in left_out:
        delattr(package, name)

    def import_submodule(name: str) -> ModuleType:
        if name in left_out:
            return import_module(f"{package.__name__}.{name}")
        raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")

    if left_out:
        package.__getattr__ = import_submodule  # type: ignore[method-assign]


def import_torchvision() -> None:
    """Import torchvision once, passing over the descriptions of operators that this torch does not have."""
    if "torchvision" in sys.modules:
        return
    with patch.object(torch.library, "register_fake", _lenient(torch.library.register_fake)):
        import torchvision  # noqa: F401


def _lenient(strict: _Function) -> _Function:
    def register_fake(op: Any, func: Any = None, /, **options: Any) -> Any:  # noqa: ANN401  # torch's own signature
        register = strict(op, **options)

        def apply(described: _Function) -> _Function:
            try:
                return register(described)  # type: ignore[no-any-return]
            except RuntimeError:
                if str(op).startswith("torchvision::"):
                    return described
                raise

        return apply if func is None else apply(func)

    return register_fake


_import_what_scoring_needs()
