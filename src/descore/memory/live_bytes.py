"""Count the bytes of tensors that are alive at once while some work runs, also on tensors that have sizes and no data.

Memory that a kernel allocates inside itself is not counted."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operators make until they are freed: `live` now, `peak` at most."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """known: tensors that existed before and do not count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self._known = list(known)
        self._counted = {_address(tensor) for tensor in self._known}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # an operator
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _address(tensor) not in self._counted:
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        address, size = _address(tensor), tensor.untyped_storage().nbytes()
        self._counted.add(address)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(tensor.untyped_storage(), self._gone, address, size)

    def _gone(self, address: int, size: int) -> None:
        self._counted.discard(address)
        self.live -= size


def layer_bytes(layer: nn.Module, hidden: tuple[int, int, int], *, rotary: tuple[int, ...], dtype: torch.dtype) -> int:
    """Peak of one forward and backward of a decoder layer in mixed precision, without its weights, their gradients, its
    input and the input's gradient.

    hidden: the shape of its input. rotary: that of cosines and sines of positions. dtype: of the hidden states."""
    with FakeTensorMode():
        weights = {name: _like(weight) for name, weight in layer.named_parameters()}
        input_BTD, gradient, of_input = (torch.empty(hidden, dtype=dtype) for _ in range(3))
        input_BTD.requires_grad_().grad = of_input
        angles = tuple(torch.empty(rotary, dtype=dtype) for _ in range(2))
        learned = [weight.grad for weight in weights.values() if weight.grad is not None]
        with LiveBytes([*weights.values(), *learned, input_BTD, of_input, gradient, *angles]) as counter:
            run = _in_mixed_precision(layer, weights, position_embeddings=angles, attention_mask=None)
            run(input_BTD).backward(gradient)  # type: ignore[no-untyped-call]
    return int(counter.peak)


def forward_bytes(
    layer: nn.Module, hidden: tuple[int, int, int], *, rotary: tuple[int, ...], dtype: torch.dtype
) -> int:
    """Peak of one forward of a decoder layer without a gradient, without its weights and its input."""
    with FakeTensorMode(), torch.no_grad():
        weights = {name: torch.empty(weight.shape, dtype=dtype) for name, weight in layer.named_parameters()}
        input_BTD, angles = torch.empty(hidden, dtype=dtype), tuple(torch.empty(rotary, dtype=dtype) for _ in range(2))
        with LiveBytes([*weights.values(), input_BTD, *angles]) as counter:
            beside = {"position_embeddings": angles, "attention_mask": None}
            torch.func.functional_call(layer, weights, (input_BTD,), beside)
    return int(counter.peak)


def _like(weight: Tensor) -> Tensor:
    """An empty tensor of the same size, with a gradient if it learns."""
    copy = torch.empty(weight.shape, dtype=weight.dtype, requires_grad=weight.requires_grad)
    copy.grad = torch.empty_like(copy) if copy.requires_grad else None
    return copy


def _in_mixed_precision(
    layer: nn.Module,
    weights: dict[str, Tensor],
    **beside: Any,  # noqa: ANN401
) -> Callable[[Tensor], Tensor]:
    def run(input_BTD: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output: Tensor = torch.func.functional_call(layer, weights, (input_BTD,), beside)
        return output

    return run


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
