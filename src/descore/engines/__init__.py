"""Engines that are not ours: vLLM in this process, and servers that have an exported checkpoint.

In: clips, prompts, and how chains are sampled. Out: chains with their rewards, as `Scorer` wants them. Our own engine
is in `descore.scorer`; scoring by it imports none of this."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from descore.errors import ConfigError, VideoError
from descore.model.chat import Chat
from descore.model.checkpoint import CheckpointSettings
from descore.types import Clip, EngineOutput, Paradigm


class Engine(Protocol):
    """What a Scorer asks of whatever writes chains and reads rewards."""

    name: str
    """"native", "vllm", or the address of a server."""
    batch_size: int
    """Clips that it is given at a time, unless a Scorer says otherwise."""
    settings: CheckpointSettings
    chat: Chat
    max_model_len: int
    """Tokens that it reads in all: clip, prompt and chain."""

    @property
    def device(self) -> torch.device:
        """Where clips that are tensors are put: where the model is, or the CPU."""

    @property
    def dtype(self) -> torch.dtype:
        """The weights' precision."""

    def complete(
        self,
        clips: Sequence[Clip],
        prompts: Sequence[str],
        *,
        think: bool,
        limit: int,
        samples: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[EngineOutput | VideoError]:
        """`samples` completions for each clip and its prompt, or why it has none; `think` False: one, with an empty
        chain.

        limit: tokens that a chain may have before its end of turn is forced. temperature 0 is greedy. The same seed
        gives the same chains, alone or in a batch. What holds for all clips, such as a limit that nothing could fit
        beside, raises ConfigError."""

    def digest(self) -> str:
        """A digest of settings, rubric and weights."""


def open_engine(
    engine: str,
    source: str | Path,
    *,
    paradigm: Paradigm | None,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
) -> Engine:
    """The engine of a name, "vllm" or an address, with a checkpoint. ConfigError for another name."""
    if device is not None and (engine == "vllm" or is_address(engine)):
        raise ConfigError(f"device is {str(device)!r}, and engine {engine} has its own; leave it out")
    if is_address(engine):
        if dtype is not None:
            raise ConfigError(f"dtype is {dtype}, and the server at {engine} has its own; leave it out")
        from descore.engines.server import open_remote

        return open_remote(engine, source, paradigm=paradigm)
    if engine == "vllm":
        from descore.engines.vllm import open_vllm

        return open_vllm(source, paradigm=paradigm, dtype=dtype)
    raise ConfigError(f"engine is {engine!r}; expected native, vllm, or a server's address like http://HOST:8000/v1")


def is_address(engine: str) -> bool:
    """Whether an engine is a server's address."""
    return engine.startswith(("http://", "https://"))
