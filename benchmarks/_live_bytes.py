"""How many bytes live at once while a piece of work runs on tensors that have sizes and no data.

Knows torch's operators and storages; knows nothing of models. What a kernel needs inside itself is not seen."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operators make, until nothing holds them any more."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """`known`: what was there before, and does not count."""
        super().__init__()
        self.live = self.peak = 0
        self._known = list(known)
        self._seen = {_address(tensor) for tensor in self._known}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # an operator
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _address(tensor) not in self._seen:
                self._count(tensor)
        return made

    def _count(self, tensor: Tensor) -> None:
        address, size = _address(tensor), tensor.untyped_storage().nbytes()
        self._seen.add(address)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(tensor.untyped_storage(), self._gone, address, size)

    def _gone(self, address: int, size: int) -> None:
        self._seen.discard(address)
        self.live -= size


def layer_bytes(layer: nn.Module, hidden: tuple[int, int, int], *, head: int, dtype: torch.dtype) -> int:
    """What a decoder layer makes beside its weights, their gradients and its input's, at the peak of one forward and
    backward in mixed precision.

    hidden: the shape of its input. head: numbers in a head. dtype: of the hidden states."""
    with FakeTensorMode():
        weights = {name: _like(weight) for name, weight in layer.named_parameters()}
        given, gradient = (torch.empty(hidden, dtype=dtype) for _ in range(2))
        given.requires_grad_().grad = torch.empty_like(given)
        turns = tuple(torch.empty(*hidden[:2], head, dtype=dtype) for _ in range(2))
        learned = [weight.grad for weight in weights.values() if weight.grad is not None]
        with LiveBytes([*weights.values(), *learned, given, given.grad, gradient, *turns]) as bytes_:
            run = _in_mixed_precision(layer, weights, position_embeddings=turns, attention_mask=None)
            run(given).backward(gradient)
    return bytes_.peak


def _like(weight: Tensor) -> Tensor:
    """Of the same size, with a gradient to add to if it learns."""
    made = torch.empty(weight.shape, dtype=weight.dtype, requires_grad=weight.requires_grad)
    made.grad = torch.empty_like(made) if made.requires_grad else None
    return made


def _in_mixed_precision(
    layer: nn.Module,
    weights: dict[str, Tensor],
    **beside: Any,  # noqa: ANN401
) -> Callable[[Tensor], Tensor]:
    def run(given: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found: Tensor = torch.func.functional_call(layer, weights, (given,), beside)
        return found

    return run


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
