"""A private directory for the sockets of a run, and the end of those that killed runs left. Called by `cli`.

Whoever uses one holds its lock, which the kernel takes back from the dead.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hyperion.fleet.scratch import remove_tree

PREFIX: Final = "hyperion-batch-"


@contextlib.contextmanager
def open_run_dir(parent: Path | None = None) -> Iterator[Path]:
    """A directory that is gone after the block. `parent` is where temporary files are by default: the path of a socket
    has to be short."""
    base = parent or Path(tempfile.gettempdir())
    _remove_left_over(base)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        remove_tree(path)
        os.close(lock)


def _remove_left_over(base: Path) -> None:
    for path in base.glob(f"{PREFIX}*"):
        # Of another user, made this moment, or removed by somebody else who found it: not ours to remove.
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.getuid() and any(path.iterdir()):
                    remove_tree(path)
            finally:
                os.close(lock)
