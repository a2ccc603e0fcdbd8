"""Semaphores of `multiprocessing` for a process that can have no others: in the sandbox those of the C library, which
lie in `/dev/shm` where other people's memory lies, are out of reach.

Called by `enter`. Pools of threads (`multiprocessing.pool.ThreadPool`, joblib's threads, and so scikit-learn's
forests) are built on them, although they need nothing that another process could see.
"""

import importlib
import threading

_RECURSIVE = 0


class LocalSemaphore:
    """What `_multiprocessing.SemLock` does, among the threads of this process. `kind` is 0 for a lock that its owner
    may take again, 1 for a semaphore; `value` is what can be taken before anybody waits."""

    SEM_VALUE_MAX = (1 << 31) - 1

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:  # noqa: ARG002
        self.kind = kind
        self.maxvalue = maxvalue
        self.name = None  # nothing that another process could open, or that has to be removed
        self.handle = 0
        self._value = value
        self._taken = 0
        self._owner = 0
        self._changed = threading.Condition()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it, waiting for at most `timeout` seconds (None: for ever). Returns if it was taken."""
        with self._changed:
            if self.kind == _RECURSIVE and self._is_mine():
                self._taken += 1
                return True
            wait_s = (None if timeout is None else max(0.0, timeout)) if block else 0.0
            if not self._changed.wait_for(lambda: self._value > 0, wait_s):
                return False
            self._value -= 1
            self._taken += 1
            self._owner = threading.get_ident()
            return True

    def release(self) -> None:
        """Give it back. Raises AssertionError for a lock of another thread, ValueError for one too many."""
        with self._changed:
            if self.kind == _RECURSIVE:
                if not self._is_mine():
                    raise AssertionError("attempt to release recursive lock not owned by thread")
                if self._taken > 1:
                    self._taken -= 1
                    return
            elif self._value >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            self._taken -= 1
            self._value += 1
            self._changed.notify()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._taken

    def _is_mine(self) -> bool:
        return self._taken > 0 and self._owner == threading.get_ident()

    def _get_value(self) -> int:
        return self._value

    def _is_zero(self) -> bool:
        return self._value == 0

    def _after_fork(self) -> None:
        """There are no forks."""


def keep_semaphores_here() -> None:
    """From now on `multiprocessing` makes semaphores of this process. Called before it is imported."""
    vars(importlib.import_module("_multiprocessing"))["SemLock"] = LocalSemaphore
