"""The temporary folder of a server: gone when it ends, and at the next start where it was killed.

In: nothing. Out: a folder that holds a lock as long as its process lives; the system lets go of the lock of a process
that is killed, and folders without one are removed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from descore.errors import DescoreError
from descore.io import lock_file

_PREFIX = "descore-serve-"
_LOCK = "lock"


@contextmanager
def server_folder() -> Iterator[Path]:
    """A new folder, of this user alone; those of servers that were killed are removed first."""
    parent = Path(tempfile.gettempdir())
    _remove_orphans(parent)
    # Under its name the folder is never without its lock, so that another server that starts leaves it alone.
    new = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=parent))
    with lock_file(new / _LOCK, name=new):
        folder = new.rename(parent / new.name.removeprefix("new-"))
        try:
            (folder / "files").mkdir()
            yield folder / "files"
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(DescoreError, OSError):  # a server of it lives, or it is another user's
            if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not (folder / _LOCK).is_file():
                continue
            with lock_file(folder / _LOCK, name=folder):
                shutil.rmtree(folder, ignore_errors=True)
