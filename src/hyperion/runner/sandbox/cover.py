"""What the sandbox does not stop, given what holds here: the one list that `hyperion doctor` shows, and that the
escape attempts of the tests are held against. Pure.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from hyperion.runner.sandbox.landlock import SCOPE_ABI, TCP_ABI, TRUNCATE_ABI

GAPS: Final = {
    "metadata": "names, sizes and times of files elsewhere can be seen, not what is in them",
    "times": "times of the platform's own files can be changed",
    "deleted-files": "space of files that were deleted but are still open is not counted against scratch_mb",
    "cpu": "computing time is shared by priority, not limited",
    "files": "files elsewhere can be read, and written where the platform may write",
    "truncate": "files elsewhere can be emptied",
    "modes": "modes of the platform's own files can be changed",
    "tcp": "TCP connections can be made",
    "sockets": "UDP, netlink and Unix sockets can be used, the supervisor's among them",
    "abstract-sockets": "abstract Unix sockets of others can be reached",
    "signals": "other processes of this user can be signalled",
    "processes": "processes can be started",
    "others": "memory and descriptors of this user's processes can be read",
    "kernel": "calls that few programs need (keys, io_uring, eBPF, priorities and limits of others) can be made",
    "limits": "core dumps, open files and the size of a file are not limited",
    "tasks": "threads are not counted for each runner",
    "shared-memory": "shared memory does not count against memory_mb",
}
_ALWAYS: Final = ("metadata", "times", "deleted-files", "cpu")


class Held(Struct, frozen=True):
    """Which layers hold, and the version of Landlock (0: none)."""

    files: bool
    calls: bool
    limits: bool
    groups: bool
    abi: int


def gaps_of(held: Held) -> Mapping[str, str]:
    """What is not covered: a name for programs, and a sentence for people.

    >>> sorted(gaps_of(Held(files=True, calls=True, limits=True, groups=True, abi=7)))
    ['cpu', 'deleted-files', 'metadata', 'times']
    """
    abi = held.abi if held.files else 0
    open_now = {
        "files": not abi,
        "truncate": abi < TRUNCATE_ABI,
        "modes": not held.calls,
        "tcp": not held.calls and abi < TCP_ABI,
        "sockets": not held.calls,
        "abstract-sockets": not held.calls and abi < SCOPE_ABI,
        "signals": not held.calls and abi < SCOPE_ABI,
        "processes": not held.calls,
        "others": not abi,
        "kernel": not held.calls,
        "limits": not held.limits,
        "tasks": not held.groups,
        "shared-memory": not held.groups,
    }
    return {name: text for name, text in GAPS.items() if name in _ALWAYS or open_now[name]}
