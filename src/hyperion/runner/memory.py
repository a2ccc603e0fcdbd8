"""How much memory this process holds, and a limit on it.

Called by `runner/process` and, after a batch, by `runner/loop`. Linux: elsewhere resident memory is the peak.
"""

import os
import resource
import sys

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Private memory that is mapped but need not be resident: thread stacks, malloc arenas, the libraries' own data.
HEADROOM_BYTES = 256 << 20


def resident_bytes() -> int:
    """The resident set size of this process in bytes (a few microseconds)."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10
    try:
        return int(os.read(descriptor, 128).split()[1]) * _PAGE_BYTES
    finally:
        os.close(descriptor)


def limit_memory(memory_bytes: int) -> None:
    """Makes allocations fail (MemoryError in Python) that would take this process far over `memory_bytes`.

    RLIMIT_DATA counts private writable mappings, resident or not, so it stands `HEADROOM_BYTES` above: it stops a
    single huge allocation or a fast leak at once; the loop, which looks at resident memory after each batch, stops a
    slow one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = memory_bytes + HEADROOM_BYTES
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, soft))  # also for the model's own code
