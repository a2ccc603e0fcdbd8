"""Read a small text file that somebody else wrote: bounded, regular, UTF-8; and say plainly why not.

Called by every reader of this room. Never reads from a device, a pipe or a socket, nor more than it was allowed.
"""

import difflib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from hyperion.schema.errors import ModelRefused

MIB = 1 << 20


def open_regular(path: Path) -> int:
    """Opens `path` for reading and returns its descriptor; ModelRefused when it is no regular file or unreadable.

    O_NONBLOCK keeps a named pipe from hanging the caller; the kind is checked on the open descriptor, not before.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ModelRefused(f"{path.name}: cannot be read: {(error.strerror or 'error').lower()}") from error
    except ValueError as error:
        raise ModelRefused("a file name has a NUL character in it") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelRefused(f"{path.name}: expected a regular file, got a directory, device, pipe or socket")
    return descriptor


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """The whole file; ModelRefused when it is larger than `limit_bytes`."""
    with open(open_regular(path), "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ModelRefused(f"{path.name}: larger than the {limit_bytes // 1024} KiB that such a file may have")
    return data


def read_head(path: Path, size_bytes: int) -> bytes:
    """The first `size_bytes` bytes of a file, or fewer when it is shorter."""
    with open(open_regular(path), "rb") as file:
        return file.read(size_bytes)


def read_text(path: Path, limit_bytes: int) -> str:
    """The whole file as UTF-8 text, without a byte order mark."""
    try:
        return read_bytes(path, limit_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelRefused(f"{path.name}: not UTF-8 text (byte {error.start})") from error


def list_entries(directory: Path) -> tuple[Path, ...]:
    """What lies in a directory, sorted by name, without hidden entries."""
    try:
        names = sorted(entry for entry in os.listdir(directory) if not entry.startswith("."))
    except OSError as error:
        raise ModelRefused(f"{directory.name}: cannot be listed: {(error.strerror or 'error').lower()}") from error
    return tuple(directory / entry for entry in names)


def resolve_inside(root: Path, relative: str, field: str) -> Path:
    """The existing file or directory `relative` under `root`; ModelRefused when it leaves `root` or is not there.

    `field` says who asked for it, for the message: `model-settings.json: parameters.uri`.
    """
    if "\0" in relative:
        raise ModelRefused(f"{field}: has a NUL character in it")
    home = Path(os.path.realpath(root))
    target = Path(os.path.realpath(home / relative))
    if target != home and home not in target.parents:
        raise ModelRefused(
            f"{field}: {relative!r} lies outside of the model's directory; put the file beside the description"
        )
    if not target.exists():
        raise ModelRefused(f"{field}: {relative!r} does not exist in {root.name or 'the directory'}")
    return target


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, tuple(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
