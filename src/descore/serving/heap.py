"""The heap of the C library of Linux (glibc): few arenas, and what is free given back. Other systems need nothing."""

import ctypes
import sys
from contextlib import suppress

ARENAS = 2
_ARENA_MAX = -8
"""M_ARENA_MAX of malloc.h."""


def bound_arenas() -> None:
    """Let all threads share ARENAS arenas. By default each thread has one of its own, and batches of many shapes leave
    holes of tens of megabytes in each. To be called before the threads begin; those of a library may have begun."""
    with suppress(AttributeError):  # another C library
        if sys.platform == "linux":
            ctypes.CDLL(None).mallopt(_ARENA_MAX, ARENAS)


def give_back_memory() -> None:
    """Give pages that are free back to the system."""
    with suppress(AttributeError):
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
