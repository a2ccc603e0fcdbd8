"""Attempts on other processes: their memory, their descriptors, their lives."""

import ctypes
import fcntl
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from .files import Around, Stopped, first_bytes

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> str:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return f"{what} returned {result}"


def signal_to(pid: int, number: int) -> str:
    os.kill(pid, number)
    return f"sent {number} to {pid}"


def signal_thread(around: Around) -> str:
    return checked(libc.syscall(234, around["gateway"], around["gateway"], signal.SIGCONT), "tgkill")


def signal_by_pidfd(around: Around) -> str:
    signal.pidfd_send_signal(os.pidfd_open(around["gateway"]), signal.SIGCONT)
    return "sent"


def signal_by_owner(around: Around) -> str:
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, around["gateway"])
    if fcntl.fcntl(reading, fcntl.F_GETOWN) != around["gateway"]:
        raise Stopped("nobody owns it")
    os.close(writing)
    return "the gateway owns a pipe of the model"


def trace(around: Around) -> str:
    attached = checked(libc.ptrace(16, around["neighbour_pid"], None, None), "ptrace")
    libc.ptrace(17, around["neighbour_pid"], None, None)
    return attached


def read_memory(around: Around) -> str:
    class Vector(ctypes.Structure):
        _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))

    text = ctypes.create_string_buffer(8)
    here, there = Vector(ctypes.addressof(text), 8), Vector(0x400000, 8)
    read = libc.process_vm_readv(around["gateway"], ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if read < 0 and ctypes.get_errno() == 14:
        return "allowed, at an address where nothing lies"
    return checked(read, "process_vm_readv")


def steal_ring(around: Around) -> str:
    folder = f"/proc/{around['gateway']}/fd"
    rings = [name for name in os.listdir(folder) if "hyperion-ring" in os.readlink(f"{folder}/{name}")]
    return first_bytes(f"{folder}/{rings[0]}")


def steal_descriptor(around: Around) -> str:
    pidfd = os.pidfd_open(around["gateway"])
    return checked(libc.syscall(438, pidfd, around["ring"], 0), "pidfd_getfd")


def limit_others(around: Around) -> str:
    before = resource.prlimit(around["gateway"], resource.RLIMIT_CPU)
    resource.prlimit(around["gateway"], resource.RLIMIT_CPU, before)
    return "set a limit of the gateway"


def slow_others(around: Around) -> str:
    os.setpriority(os.PRIO_PROCESS, around["gateway"], 19)
    return "the gateway has the lowest priority"


def pin_others(around: Around) -> str:
    before = os.sched_getaffinity(around["gateway"])
    os.sched_setaffinity(around["gateway"], {min(before)})
    after = os.sched_getaffinity(around["gateway"])
    if len(before) > 1 and before == after:
        raise Stopped("the call did nothing")
    return f"the gateway runs on {after}"


def find_secret(around: Around) -> str:
    texts = [str(dict(os.environ)), Path("/proc/self/environ").read_text()]
    if not any(around["password"] in text for text in texts):
        raise Stopped("no secrets in the environment")
    return "the password of the platform"


ATTEMPTS: dict[str, Callable[[Around], str]] = {
    "kill a neighbour": lambda around: signal_to(around["neighbour_pid"], signal.SIGKILL),
    "signal the supervisor": lambda around: signal_to(around["supervisor"], signal.SIGCONT),
    "signal everybody": lambda around: signal_to(-1, signal.SIGCONT),
    "signal a thread": signal_thread,
    "signal by pidfd": signal_by_pidfd,
    "signal by owning a pipe": signal_by_owner,
    "trace a neighbour": trace,
    "read memory of the gateway": read_memory,
    "read /proc/PID/mem": lambda around: first_bytes(f"/proc/{around['gateway']}/mem"),
    "read /proc/PID/environ": lambda around: first_bytes(f"/proc/{around['supervisor']}/environ"),
    "read /proc/PID/maps": lambda around: first_bytes(f"/proc/{around['neighbour_pid']}/maps"),
    "list processes": lambda around: str(os.listdir("/proc"))[:80],
    "steal another tenant's ring": steal_ring,
    "steal a descriptor": steal_descriptor,
    "limit others": limit_others,
    "slow others": slow_others,
    "pin others": pin_others,
    "secrets in the environment": find_secret,
}
