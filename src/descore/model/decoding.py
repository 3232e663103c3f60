"""What makes a step of writing fast: adapters that are merged for as long as chains are written, and on CUDA one graph
a step.

    with fast_decoding(model) as graphs:          # None: the plain loop
        ChainWriter(model, prompts, ..., graphs=graphs).write()

A graph replays a step's kernels without a call for each. It reads and writes the addresses that it was captured with,
so keys, values and the step's inputs stand in storage that stays where it is, and a shape is captured once and kept.
What cannot be captured is written by the plain loop, and `decoding_path` says why.

Shapes: R rows, B prompts, P columns of a prompt, C of a row's own room, V vocabulary."""

import subprocess
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from descore.model.generation import ChainWriter, SharedPrefixCache, added_to_scores
from descore.model.modeling import DescoreModel

PROMPT_ROOM = 256
"""Columns of a prompt come in multiples of this, so that prompts of like lengths share a graph."""
MOST_GRAPHS = 64
"""Shapes that are kept; beyond it the one that was captured first is forgotten."""
WARM_UP = 3
"""Runs before a capture: libraries choose their kernels, and compilers compile, in the first ones."""
CAPTURE_FAULTS = (RuntimeError, NotImplementedError, ImportError, OSError, AttributeError, subprocess.SubprocessError)
"""What capturing and compiling raise: torch and its compiler, a missing Triton, a C compiler that is missing or fails,
and a module of an unknown form."""

Replay = Callable[[], object]
Capture = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]
"""Captures a step over static tensors: how to replay it, and the tensor that each replay writes its result to."""


@contextmanager
def fast_decoding(model: DescoreModel) -> Iterator["StepGraphs | None"]:
    """Merge adapters in the body, and yield the model's graphs; None where the plain loop writes."""
    with merged_adapters(model.backbone), _graphs_of(model).claimed(model) as graphs:
        yield graphs


def decoding_path(model: DescoreModel) -> str:
    """One line: which path writes the chains of this model, and why."""
    return _graphs_of(model).describe(model)


@contextmanager
def merged_adapters(backbone: nn.Module) -> Iterator[None]:
    """Let a plain linear layer, whose weight has the adapter's product added, stand in for each layer with adapters.

    The layers themselves are only set aside, so their weights are the same to the bit afterwards, whatever happens in
    the body, and another thread's forward reads either, with the same result. It takes the memory of the adapted
    weights once more: in the body, or on CUDA, where graphs know the addresses, as long as the model lives. What is no
    plain sum stays as it is: quantized or sharded weights, variants such as DoRA, adapters that are switched off,
    dropout in training. A second use inside the body has nothing left to do."""
    layers = [(name, layer) for name, layer in backbone.named_modules() if _is_mergeable(layer)]
    try:
        for name, layer in layers:
            backbone.set_submodule(name, _merged(layer))
        yield
    finally:
        for name, layer in layers:
            backbone.set_submodule(name, layer)


def _is_mergeable(layer: Any) -> bool:  # noqa: ANN401  # PEFT's layers are not typed
    if "peft" not in sys.modules or not type(layer).__module__.startswith("peft."):
        return False
    from peft.tuners.lora import Linear

    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear:
        return False
    weight, active = layer.base_layer.weight, [name for name in layer.active_adapters if name in layer.lora_A]
    whole = weight.shape == (layer.out_features, layer.in_features) and type(weight.data) is Tensor
    plain = not any(name in layer.lora_variant or layer.lora_bias[name] for name in active)
    # What learns beside rounded weights is not rounded into them: chains are drawn from what the update reads.
    learns = any(layer.lora_A[name].weight.requires_grad for name in active)
    exact = weight.dtype.itemsize >= torch.float32.itemsize or not learns
    return (
        whole
        and plain
        and exact
        and not (layer.disable_adapters or layer.merged or layer.training or layer.fan_in_fan_out)
    )


_STAND_INS: WeakKeyDictionary[nn.Module, nn.Linear] = WeakKeyDictionary()
"""By layer with adapters, on CUDA: its merged layer."""


@torch.no_grad()
def _merged(layer: Any) -> nn.Linear:  # noqa: ANN401
    """A linear layer whose weight is summed in float32, and rounded once."""
    base = layer.base_layer
    total = base.weight.float()
    for name in layer.active_adapters:
        if name in layer.lora_A:
            total = total + layer.get_delta_weight(name)
    kept = _STAND_INS.get(layer)
    if kept is not None and (kept.weight.dtype, kept.weight.device) == (base.weight.dtype, base.weight.device):
        kept.weight.copy_(total)
        return kept
    linear = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    linear.weight = nn.Parameter(total.to(base.weight.dtype), requires_grad=False)
    linear.bias = base.bias
    if base.weight.is_cuda:
        _STAND_INS[layer] = linear
    return linear


@dataclass(slots=True)
class _CapturedStep:
    """A graph with the tensors that it reads and writes."""

    replay: Replay
    inputs: tuple[Tensor, ...]
    logits_RV: Tensor

    def __call__(self, *inputs: Tensor) -> Tensor:
        for static, value in zip(self.inputs, inputs, strict=True):
            static.copy_(value)
        self.replay()
        return self.logits_RV


@dataclass(slots=True, eq=False)
class StepGraphs:
    """The graphs of one model, by shape, and the storage that they read keys and values from.

    The storage is as large as its largest use so far, and kept with the graphs as long as the model lives. Where it
    grows or a weight has moved, the graphs are forgotten, since they know the old addresses."""

    capture: Capture | None = None
    """None: that of CUDA."""
    compiler: Callable[[Callable[..., Any]], Callable[..., Any]] | None = torch.compile
    """Compiles norms, MLPs and rotary embedding; None where that has failed."""
    fault: str | None = None
    """Why capturing was given up."""
    uncompiled: str | None = None
    """Why nothing is compiled."""
    steps: dict[Hashable, _CapturedStep] = field(default_factory=dict)
    storage: dict[Hashable, Tensor] = field(default_factory=dict)
    addresses: tuple[int, ...] = ()
    pool: Any = None
    """The memory of all graphs' intermediate results: only one runs at a time."""
    lock: Any = field(default_factory=Lock)

    @contextmanager
    def claimed(self, model: DescoreModel) -> Iterator["StepGraphs | None"]:
        """These graphs for the body; None where the plain loop must write, also while another thread has them."""
        if self.fault or self._obstacle(model) or not self.lock.acquire(blocking=False):
            yield None
            return
        try:
            addresses = tuple(tensor.data_ptr() for tensor in chain(model.parameters(), model.buffers()))
            if addresses != self.addresses:
                self.steps.clear()
                self.addresses = addresses
            yield self
        finally:
            self.lock.release()

    def describe(self, model: DescoreModel) -> str:
        """The path in one line."""
        if reason := self._obstacle(model) or self.fault:
            return f"plain loop: {reason}"
        shapes = f"{len(self.steps)} {'shape' if len(self.steps) == 1 else 'shapes'} captured"
        return f"one CUDA graph a step, {shapes}" + (f"; nothing compiled: {self.uncompiled}" * bool(self.uncompiled))

    def _obstacle(self, model: DescoreModel) -> str | None:
        """What forbids to capture this model's steps, before it is tried."""
        backbone, layers = model.backbone, model.backbone.get_decoder().layers
        devices = {weight.device for weight in backbone.parameters()}
        if self.capture is None and {device.type for device in devices} != {"cuda"}:
            return f"the model is on {', '.join(sorted({device.type for device in devices}))}, graphs need CUDA"
        if len(devices) > 1:
            return f"its weights are on {len(devices)} devices"
        if model.family.ROW_STATES is not None:
            return "its linear attention has states, which are not in a graph's storage"
        if hasattr(backbone.config.get_text_config(), "num_experts"):
            return "its experts are chosen by the data, which a graph cannot follow"
        if any(hasattr(m, "lora_A") and not _is_mergeable(m) for m in layers.modules()):
            return "it has adapters that cannot be merged"
        hooked = [m for m in layers.modules() if m._forward_hooks or m._forward_pre_hooks or "_hf_hook" in vars(m)]
        if hooked:
            return f"{type(hooked[0]).__name__} has a hook, which a graph would not call"
        return None

    def place(self, name: Hashable, value: Tensor) -> Tensor:
        """The same numbers in the storage of this name."""
        flat = self.storage.get(name)
        if flat is None or flat.numel() < value.numel() or (flat.dtype, flat.device) != (value.dtype, value.device):
            self.steps.clear()
            flat = self.storage[name] = torch.empty(value.numel(), dtype=value.dtype, device=value.device)
        view = flat[: value.numel()].view(value.shape)
        return value if view.data_ptr() == value.data_ptr() else view.copy_(value)

    def cache(self, prefill: DynamicCache, mask_BP: Tensor, **options: Any) -> "StaticPrefixCache":  # noqa: ANN401
        """A cache in this storage."""
        return StaticPrefixCache(self, prefill, mask_BP, **options)

    def reader(self, writer: ChainWriter) -> Callable[..., Tensor]:
        """What reads the writer's next step, as `writer.read` does: the graph of its shape, which is captured where
        there is none yet. Its logits are overwritten by the next step."""
        layer, kind = writer.cache.layers[0], writer.model.device.type
        autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
        key = (layer.prompt_keys.shape, layer.keys.shape, layer.keys.dtype, autocast)
        if key in self.steps:
            return self.steps[key]
        return writer.read if self.fault else partial(self._captured, key, writer)

    def _captured(self, key: Hashable, writer: ChainWriter, *inputs: Tensor) -> Tensor:
        """Capture a step, without the compiler if that fails, and read it; by the plain loop if it cannot be."""
        static, kind = tuple(value.clone() for value in inputs), inputs[0].device.type
        # What autocast has cast and kept is freed behind it, and a graph would go on reading it.
        cast = partial(torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), False)
        try:
            with cast(), compiled_parts(writer.model.backbone.get_decoder(), self.compiler):
                replay, logits_RV = self._capture(partial(writer.read, *static))
        except CAPTURE_FAULTS as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if self.compiler is not None:
                self.compiler, self.uncompiled = None, reason
                return self._captured(key, writer, *inputs)
            self.fault = f"a step could not be captured ({reason})"
            self.steps.clear()
            return writer.read(*inputs)
        if len(self.steps) == MOST_GRAPHS:
            del self.steps[next(iter(self.steps))]
        self.steps[key] = _CapturedStep(replay, static, logits_RV)
        return self.steps[key](*inputs)

    def _capture(self, read: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
        if self.capture is not None:
            return self.capture(read)
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        return capture_on_cuda(read, pool=self.pool)


class StaticPrefixCache(SharedPrefixCache):
    """A `SharedPrefixCache` in storage that stays where it is. Prompts are padded to multiples of PROMPT_ROOM, and the
    room of own columns doubles where it ends, so that there are few shapes."""

    def __init__(self, graphs: StepGraphs, prefill: DynamicCache, mask_BP: Tensor, **options: Any) -> None:  # noqa: ANN401
        self.graphs = graphs
        padding = -mask_BP.shape[1] % PROMPT_ROOM
        for layer in prefill.layers:
            layer.keys, layer.values = (nn.functional.pad(x, (0, 0, padding, 0)) for x in (layer.keys, layer.values))
        mask_BP = nn.functional.pad(mask_BP, (padding, 0))
        super().__init__(prefill, mask_BP, **options)
        prefill.layers.clear()
        self.prompt_bias_B11P = graphs.place("bias", added_to_scores(mask_BP[:, None, None] > 0))
        self._settle()

    def _settle(self) -> None:
        """Put all keys and values in their storage."""
        for number, layer in enumerate(self.layers):
            for name in ("prompt_keys", "prompt_values", "keys", "values"):
                setattr(layer, name, self.graphs.place((number, name), getattr(layer, name)))

    def write_at(self, column: int, *, count: int = 1, moves_R: Tensor | None = None) -> None:
        """Let the next forward write its `count` columns at this own column of each row."""
        while self.room < column + count:
            for number, layer in enumerate(self.layers):
                for name in ("keys", "values"):
                    wider = nn.functional.pad(getattr(layer, name), (0, 0, 0, self.room))
                    setattr(layer, name, self.graphs.place((number, name), wider))
            self.room *= 2
        super().write_at(column, count=count, moves_R=moves_R)

    def keep(self, prompts: Tensor, rows: Tensor) -> None:
        """Keep these prompts, and these rows of theirs, and forget the others."""
        super().keep(prompts, rows)
        if self.prompt_bias_B11P is not None:
            self.prompt_bias_B11P = self.graphs.place("bias", self.prompt_bias_B11P)
        self._settle()


_ROTARY = ("apply_rotary_pos_emb", "apply_multimodal_rotary_pos_emb")
"""What transformers' modules call it; the second is that of Qwen2-VL in older releases."""


@contextmanager
def compiled_parts(
    language_model: nn.Module, compiler: Callable[[Callable[..., Any]], Callable[..., Any]] | None
) -> Iterator[None]:
    """Let norms, MLPs and rotary embedding run compiled in the body, each kind by one function for all layers."""
    kinds = ("RMSNorm", "MLP")
    parts = [part for part in language_model.modules() if compiler and type(part).__name__.endswith(kinds)]
    types: set[Any] = {type(part) for part in parts}
    functions = {kind: compiler(kind.forward) for kind in types} if compiler else {}
    source: Any = sys.modules[type(language_model).__module__]
    rotary = {name: getattr(source, name) for name in _ROTARY if hasattr(source, name)}
    try:
        for part in parts:
            part.forward = partial(functions[type(part)], part)
        if compiler:
            for name, function in rotary.items():
                setattr(source, name, compiler(function))
        yield
    finally:
        for name, function in rotary.items():
            setattr(source, name, function)
        for part in parts:
            vars(part).pop("forward", None)


def capture_on_cuda(read: Callable[[], Tensor], *, pool: Any) -> tuple[Replay, Tensor]:  # noqa: ANN401
    """Capture as `torch.cuda.graph` asks: runs to warm up on a side stream, which then is the capture's as well; calls
    of other threads, such as a loader's, do not end it."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            read()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        logits_RV = read()
    return graph.replay, logits_RV


_GRAPHS: WeakKeyDictionary[nn.Module, StepGraphs] = WeakKeyDictionary()
"""By backbone."""


def _graphs_of(model: DescoreModel) -> StepGraphs:
    return _GRAPHS.setdefault(model.backbone, StepGraphs())
