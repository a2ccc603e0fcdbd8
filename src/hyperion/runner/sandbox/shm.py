"""A `/dev/shm` of the runner's own, where this process may mount one.

Called by `enter` for a model that asks for processes: their semaphores and shared arrays lie in there, and so do
those of other programs.
"""

from hyperion.runner.sandbox.calls import numbers_of
from hyperion.runner.sandbox.kernel import buffer_of, call

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the C library knows no other
_NEW_MOUNTS, _NO_SUID, _NO_DEVICES, _RECURSIVE, _SLAVE = 0x00020000, 2, 4, 1 << 14, 1 << 19


def make_private(machine: str, size_bytes: int) -> bool:
    """Mount an empty memory file system of at most `size_bytes` there, in a mount namespace of this process. Mounts
    that others make or remove later happen here, too. Returns False where that is not allowed; then nothing changed
    but the namespace."""
    try:
        (unshare,), (mount,) = numbers_of(("unshare",), machine), numbers_of(("mount",), machine)
        call(unshare, _NEW_MOUNTS)
        call(mount, None, buffer_of(b"/\0"), None, _RECURSIVE | _SLAVE, None)
        options = f"size={size_bytes},mode=1777\0".encode()
        kind, place = buffer_of(b"tmpfs\0"), buffer_of(f"{SHARED_MEMORY}\0".encode())
        call(mount, kind, place, kind, _NO_SUID | _NO_DEVICES, buffer_of(options))
    except (OSError, ValueError):
        return False
    return True
