"""What a runner gives up before it reads a model: privileges, core dumps, endless files. Called by `enter`."""

import os
import resource
import struct
from pathlib import Path

from hyperion.runner.sandbox.calls import AARCH64, X86_64
from hyperion.runner.sandbox.kernel import buffer_of, call, control

OPEN_FILES = 4096
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_AMBIENT_CLEAR = 4
_CAPABILITY_VERSION = 0x20080522
_READ_ALL = 2  # CAP_DAC_READ_SEARCH
_CAPSET, _CAPGET = {X86_64: 126, AARCH64: 91}, {X86_64: 125, AARCH64: 90}
_KILL_FIRST = 500  # of 1000: when the machine's memory ends, a runner goes before the platform


def drop_privileges(machine: str, keep_reading: bool) -> None:
    """No new privileges, no capabilities, not to be looked into by other processes. Raises OSError.

    `keep_reading` keeps the one by which root reads files of other users, where it is there: models may belong to
    anyone, and Landlock says which.
    """
    control(_PR_SET_NO_NEW_PRIVS, 1)
    control(_PR_SET_DUMPABLE, 0)
    control(_PR_CAP_AMBIENT, _AMBIENT_CLEAR)
    if machine not in _CAPSET:
        raise OSError(f"capabilities of {machine} are not known here")
    head = buffer_of(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    held = buffer_of(bytes(24))
    call(_CAPGET[machine], head, held)
    effective, permitted, _inheritable = struct.unpack("=III", held.raw[:12])
    _drop_bounding()
    kept = effective & permitted & (1 << _READ_ALL) if keep_reading else 0
    call(_CAPSET[machine], head, buffer_of(struct.pack("=IIIIII", kept, kept, 0, 0, 0, 0)))


def _drop_bounding() -> None:
    for capability in range(64):
        try:
            control(_PR_CAPBSET_DROP, capability)
        except OSError:
            return  # behind the last one, or not allowed, which no_new_privs makes harmless


def set_limits(scratch_bytes: int) -> None:
    """Bounds that the kernel keeps for each process: no core dumps, files of at most `scratch_bytes`, `OPEN_FILES`
    descriptors, and three quarters of the machine's threads at most. Memory is limited by `runner/memory`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lower(resource.RLIMIT_FSIZE, scratch_bytes)
    lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    lower(resource.RLIMIT_NPROC, _most_threads())
    lower(resource.RLIMIT_MSGQUEUE, 0)
    Path("/proc/self/oom_score_adj").write_text(str(_KILL_FIRST))


def lower(limit: int, wanted: int) -> None:
    """Set both limits to `wanted`, or to what they are where that is less."""
    _, hard = resource.getrlimit(limit)
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(limit, (value, value))


def _most_threads() -> int:
    """Does not bind root, whose threads only a control group counts."""
    kernel = Path("/proc/sys/kernel")
    return min(int((kernel / name).read_text()) for name in ("threads-max", "pid_max")) * 3 // 4


def close_inherited() -> None:
    """Close every descriptor that came from the parent unasked. Ours are not inheritable, so they are told apart."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2:
            try:
                inherited = os.get_inheritable(descriptor)
            except OSError:
                continue  # the one by which the directory was listed
            if inherited:
                os.close(descriptor)
