"""Connect to a Ray cluster, or start one on this machine, and say how many actors it has room for.

In: an address, and counts as a user gives them. Out: a connection for the length of a block; a `Placement`."""

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from descore.errors import ConfigError, how_to_install

SPARE_CPUS = 2
"""For tasks that read the work list and write results, and for the actor that leaves out what is done."""
_DECODERS_PER_MODEL = 8
_LOCAL = "local"
_PATIENCE = 10.0
"""Seconds that the head may take to answer."""
_QUOTED = 200
"""Characters of an error of Ray's that a message quotes."""
_DEVICES = ("cpu", "cuda", None)
_ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt)): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """Where a run is, and how much of it."""

    address: str | None = None
    """Of the cluster's head, HOST:PORT; "auto" for the cluster that this node is in; "local" for this machine alone.
    None: "auto" if there is one, else "local"."""
    actors: int | None = None
    """That hold a model. None: one for each GPU; without GPUs, for half of the cores."""
    decoders: int | None = None
    """Actors that decode. None: for the cores that are left, at most 8 for each model."""
    max_errored_blocks: int = 0
    """Blocks of rows that may be lost to unexpected errors before the run stops; -1: any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How many actors of each kind there are, and what one that holds a model needs."""

    actors: int
    decoders: int
    on_gpu: bool

    @property
    def needs(self) -> dict[str, float]:
        """Of an actor that holds a model."""
        return {"num_gpus": 1} if self.on_gpu else {"num_cpus": 1}


def check_ray(address: str | None) -> None:
    """ConfigError if Ray is not installed, or nothing listens at the address HOST:PORT: Ray itself would wait for
    minutes."""
    missing = [name for name in ("ray", "pyarrow", "pandas") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--engine ray needs {', '.join(missing)}; {how_to_install('ray')}")
    if address in (None, "auto", _LOCAL):
        return
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError(f"--address {address}: expected HOST:PORT of the cluster's head, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ConfigError(
            f"--address {address}: nothing answers there ({error.strerror or error}); start the head with "
            f"ray start --head --port {port}, and give this command on a node of the cluster"
        ) from None


@contextmanager
def connected(options: RayOptions) -> Iterator[Any]:
    """The module `ray`, connected; the connection ends with the block, and a cluster that it started.

    Ray and its workers write messages; they go to standard error. ConfigError if no cluster answers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray: Any = import_module("ray")
    import_module("ray.data")
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the other one writes a file in the session's folder
            handler.setLevel(logging.CRITICAL)
    with redirect_stdout(sys.stderr):
        with _silent_core():
            _connect(ray, options)
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _silent_core() -> Iterator[None]:
    """Leave out what Ray's C++ core writes to standard error when it starts; what fails raises an error."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _connect(ray: Any, options: RayOptions) -> None:  # noqa: ANN401  # a module that need not be there
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if options.address != _LOCAL:
        try:
            ray.init(address=options.address or "auto", **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if options.address is not None or not isinstance(error, ConnectionError):
                reason = " ".join(str(error).split())[:_QUOTED]
                raise ConfigError(f"--address {options.address or 'auto'}: {reason}; see ray status") from error
        else:
            return
    cores = os.cpu_count() or 1
    wanted = (options.actors or 1) + (options.decoders or 1)
    # The spare ones are idle nearly always.
    ray.init(address=_LOCAL, num_cpus=max(cores, wanted) + SPARE_CPUS, include_dashboard=False, **quiet)


def place_actors(resources: Mapping[str, float], options: RayOptions, *, device: str | None) -> Placement:
    """How many actors there are, for a cluster with these `CPU` and `GPU`. ConfigError if they have no room."""
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device not in _DEVICES:
        raise ConfigError(f"--device {device}: on a cluster each actor has a GPU of its own; expected cuda or cpu")
    if device == "cuda" and not gpus:
        raise ConfigError(
            "--device cuda: the cluster has no GPU; start its nodes with --num-gpus, or take --device cpu"
        )
    on_gpu = bool(gpus) and device != "cpu"
    actors = options.actors or (gpus if on_gpu else max(1, (cpus - SPARE_CPUS) // 2))
    if on_gpu and actors > gpus:
        raise ConfigError(f"--actors {actors}: the cluster has {gpus} GPUs, and each actor takes one")
    left = cpus - SPARE_CPUS - (0 if on_gpu else actors)
    decoders = options.decoders or max(1, min(left, _DECODERS_PER_MODEL * actors))
    if decoders > left:
        holders = "" if on_gpu else f"{actors} for the actors that hold a model, "
        raise ConfigError(
            f"the cluster has {cpus} CPUs; expected {holders}{decoders} for decoding and {SPARE_CPUS} for reading and "
            "writing: lower --actors or --workers, or start nodes with more --num-cpus"
        )
    return Placement(actors=actors, decoders=decoders, on_gpu=on_gpu)


def first_error(error: BaseException) -> str:
    """The error that stopped a task, in one line: the first that its traceback names."""
    named = _ERROR_LINE.search(str(error))
    if named is None:
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    kind, reason = named.groups()
    return reason if kind.endswith(("ConfigError", "CheckpointError")) else f"{kind}: {reason}"
