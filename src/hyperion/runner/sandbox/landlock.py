"""Landlock: which files this process, and whatever it starts, can open at all; and no TCP, no signals to others.

Called by `enter`, before any thread is started: it holds for the calling thread and its descendants. Nobody takes it
off again. The numbers are those of linux/landlock.h; system call numbers are the same on every architecture.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

from hyperion.runner.sandbox.kernel import buffer_of, call

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TREE = 0x1FF0 & ~(1 << 6 | 1 << 11)  # remove and make whatever is no device
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_RIGHTS: Final = {
    "read": _READ,
    "run": _READ | _EXECUTE,
    "use": _READ | _WRITE_FILE,
    "device": _READ | _WRITE_FILE | _IOCTL_DEV,
    "own": _READ | _WRITE_FILE | _TREE | _REFER | _TRUNCATE,
}
_TCP = 1 << 0 | 1 << 1  # bind and connect
_SCOPES = 1 << 0 | 1 << 1  # abstract Unix sockets and signals
# Version of the interface by which each right can be handled, the highest first.
_FILE_RIGHTS = ((5, (1 << 16) - 1), (3, (1 << 15) - 1), (2, (1 << 14) - 1), (1, (1 << 13) - 1))
TCP_ABI, SCOPE_ABI, TRUNCATE_ABI, DEVICE_ABI = 4, 6, 3, 5


class Grant(Struct, frozen=True):
    """What may be done below a path, or with the file itself. `kind` is read, run (read and execute), use (read and
    write what is there), device (use, and control it) or own (everything but devices)."""

    path: Path
    kind: str = "read"


def landlock_abi() -> int:
    """Version of the kernel's interface; 0 where there is none, or where it is turned off."""
    try:
        return call(_CREATE, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(grants: Iterable[Grant], abi: int, network: bool) -> None:
    """Leave this process what is granted, and nothing else of the file system; without `network` no TCP; no signals to,
    and no abstract Unix sockets of, processes outside. What does not exist grants nothing.

    Needs no_new_privs. Raises OSError.
    """
    handled = next(rights for least, rights in _FILE_RIGHTS if abi >= least)
    tcp = 0 if network or abi < TCP_ABI else _TCP
    scoped = 0 if abi < SCOPE_ABI else _SCOPES
    size = 24 if abi >= SCOPE_ABI else 16 if abi >= TCP_ABI else 8
    ruleset = call(_CREATE, buffer_of(struct.pack("=QQQ", handled, tcp, scoped)[:size]), size, 0)
    try:
        for grant in grants:
            _add(ruleset, grant, handled)
        call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _add(ruleset: int, grant: Grant, handled: int) -> None:
    try:
        descriptor = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, or not reachable: nothing to be granted
    try:
        rights = _RIGHTS[grant.kind] & handled
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            rights &= _ON_FILES
        call(_ADD, ruleset, _PATH_BENEATH, buffer_of(struct.pack("=Qi", rights, descriptor)), 0)
    finally:
        os.close(descriptor)
