"""What a server asks of the C library's heap."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from descore.serving.heap import ARENAS, give_back_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library of Linux")

COUNT_ARENAS = """
import ctypes, sys, threading
from descore.serving.heap import bound_arenas

if sys.argv[1] == "bounded":
    bound_arenas()
together, kept = threading.Barrier(6), []

def hold():
    together.wait()
    kept.append([bytearray(50_000) for _ in range(20)])
    together.wait()

threads = [threading.Thread(target=hold) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
"""


@pytest.fixture
def arenas(tmp_path):
    def count(how):
        report = tmp_path / "heap.xml"
        subprocess.run([sys.executable, "-c", COUNT_ARENAS, how, str(report)], check=True)
        return report.read_text().count("<heap nr=")

    return count


def test_a_server_s_threads_share_few_arenas(arenas):
    assert arenas("bounded") == ARENAS
    assert arenas("free") > ARENAS


def test_free_memory_is_given_back():
    """Blocks too small to be mapped by themselves; one in a hundred stays, so that the heap cannot end before it."""
    blocks = [bytearray(50_000) for _ in range(2_000)]
    kept = blocks[::100]
    before = resident()
    del blocks
    give_back_memory()
    assert resident() < before - 50_000_000
    assert len(kept) == 20


def resident():
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
