"""The backbone, the query, the head, and generation.

Importing this package imports torchvision leniently, before transformers does it strictly."""

import sys
from collections.abc import Callable
from typing import Any

import torch


def import_torchvision() -> None:
    """Import torchvision once, passing over the descriptions of operators that are not there."""
    if "torchvision" in sys.modules:
        return
    strict = torch.library.register_fake
    torch.library.register_fake = _lenient(strict)
    try:
        import torchvision  # noqa: F401
    finally:
        torch.library.register_fake = strict


def _lenient(strict: Callable[..., Any]) -> Callable[..., Any]:
    def register_fake(op: Any, func: Any = None, /, **options: Any) -> Any:  # noqa: ANN401  # torch's own signature
        register = strict(op, **options)

        def apply(described: Callable[..., Any]) -> Callable[..., Any]:
            try:
                return register(described)  # type: ignore[no-any-return]
            except RuntimeError:
                if str(op).startswith("torchvision::"):
                    return described
                raise

        return apply if func is None else apply(func)

    return register_fake


import_torchvision()
