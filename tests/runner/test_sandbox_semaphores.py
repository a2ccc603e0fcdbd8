"""Semaphores within one process: what `multiprocessing` and its users expect of those of the C library."""

import _multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hyperion.runner.sandbox.semaphores import LocalSemaphore

RECURSIVE, SEMAPHORE = 0, 1
MAKERS: list[Callable[..., Any]] = [LocalSemaphore, _multiprocessing.SemLock]


@pytest.fixture(params=MAKERS, ids=["ours", "C"])
def make(request: pytest.FixtureRequest) -> Callable[[int, int, int], Any]:
    """Ours and the C library's, which is the reference."""
    number = iter(range(100))
    return lambda kind, value, most: request.param(
        kind, value, most, f"/hyperion-{threading.get_native_id()}-{next(number)}", True
    )


def in_thread(function: Callable[[], Any]) -> Any:
    """What another thread gets, or the type of what is raised there."""
    results: list[Any] = []

    def call() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return results[0]


def test_a_semaphore_gives_as_many_as_it_has(make: Any) -> None:
    one = make(SEMAPHORE, 2, 3)
    assert [one.acquire(False) for _ in range(3)] == [True, True, False]
    assert one._is_zero()
    assert one.acquire(True, 0.01) is False
    assert one.acquire(True, -1) is False
    for _ in range(3):
        one.release()
    assert one._get_value() == 3
    with pytest.raises(ValueError, match="too many times"):
        one.release()


def test_a_recursive_lock_is_its_owners(make: Any) -> None:
    one = make(RECURSIVE, 1, 1)
    with one:
        assert one.acquire() is True
        assert (one._count(), one._is_mine()) == (2, True)
        assert in_thread(lambda: one.acquire(False)) is False
        assert in_thread(one.release) is AssertionError
        one.release()
        assert in_thread(lambda: one.acquire(False)) is False
    assert in_thread(lambda: one.acquire(False)) is True
    assert not one._is_mine()


def test_who_waits_goes_on_when_it_is_given_back(make: Any) -> None:
    one = make(SEMAPHORE, 0, 1)
    waiting = threading.Thread(target=one.acquire)
    waiting.start()
    one.release()
    waiting.join(30)
    assert not waiting.is_alive()
    assert one._is_zero()
