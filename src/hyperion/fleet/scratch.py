"""The private directory of a child that runs other people's code: made before it starts, looked at while it runs,
removed when it is gone. Called by the supervisor.

What lies in it was made by a stranger: however deep, however many, whatever its modes.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

MOST_ENTRIES: Final = 20_000
_BLOCK_BYTES: Final = 512


def make_scratch(path: Path) -> None:
    """Make an empty directory that only this user can use, in place of whatever was there. Raises OSError."""
    if path.is_symlink() or path.exists():
        remove_tree(path)
    path.mkdir(mode=0o700)


def set_aside(path: Path, number: int) -> Path:
    """Give the directory another name at once, so that a successor's can be made; returns where it is now."""
    aside = path.with_name(f"{path.name}.gone-{os.getpid()}-{number}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
    return aside


def is_over(path: Path, limit_bytes: int) -> bool:
    """If the files below `path` take more than `limit_bytes` of the disk, or are more than `MOST_ENTRIES`: looks at no
    more than those. What cannot be looked at, or goes meanwhile, counts as nothing; what is beside it counts."""
    total, seen = 0, 0
    pending = [str(path)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                seen += 1
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                total += status.st_blocks * _BLOCK_BYTES
                if total > limit_bytes or seen > MOST_ENTRIES:
                    return True
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
    return False


def remove_tree(path: Path) -> None:
    """Remove `path` and all below it without following a link. Nobody may be writing there any more.

    Works from one directory by moving each subdirectory up into it, so that no depth is too deep for a path or a
    stack. Raises OSError.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(top, 0o700)
        while names := os.listdir(top):
            for name in names:
                _remove_entry(top, name)
    finally:
        os.close(top)
    path.rmdir()


def _remove_entry(top: int, name: str) -> None:
    """Remove a file, or empty a directory by one level and remove it."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=top)
        return
    os.chmod(name, 0o700, dir_fd=top)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for child in os.listdir(inner):
            if stat.S_ISDIR(os.stat(child, dir_fd=inner, follow_symlinks=False).st_mode):
                os.chmod(child, 0o700, dir_fd=inner)  # a directory without write permission cannot be moved
                # By a name that nobody could foresee and take.
                os.rename(child, os.urandom(12).hex(), src_dir_fd=inner, dst_dir_fd=top)
            else:
                os.unlink(child, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)
