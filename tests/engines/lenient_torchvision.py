"""Let torchvision's wheel, which is built for CUDA, be imported beside a torch that is not: the descriptions of
operators that this torch lacks are passed over, as `descore.model` does. Here for every process: vLLM starts some.

`make vllm` copies this file into `.venv-vllm`, with a .pth file that imports it at start-up."""

import sys
from importlib.machinery import ModuleSpec
from typing import Any


class _BeforeTorchvision:
    """A finder of nothing, which replaces `torch.library.register_fake` when torchvision is imported first."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        import torch

        torch.library.register_fake = _lenient(torch.library.register_fake)
        return None


def _lenient(strict: Any) -> Any:
    def register_fake(op: Any, func: Any = None, /, **options: Any) -> Any:
        register = strict(op, **options)

        def apply(described: Any) -> Any:
            try:
                return register(described)
            except RuntimeError:
                if str(op).startswith("torchvision::"):
                    return described
                raise

        return apply if func is None else apply(func)

    return register_fake


sys.meta_path.insert(0, _BeforeTorchvision())
