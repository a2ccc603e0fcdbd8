"""Work that runs beside the looks: each errand as a task of its own, and never twice at a time; and work that may hang
outside, in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Errands:
    """Tasks by what they are for. All methods run on the event loop's thread."""

    def __init__(self) -> None:
        self._running: dict[object, asyncio.Task[None]] = {}

    def start(self, key: object, work: Coroutine[Any, Any, None]) -> None:
        """Begin `work`, unless the same errand is under way."""
        if key in self._running:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))


async def run_beside(work: Callable[[], T]) -> T:
    """What `work` returns or raises, from a thread of its own: whoever hangs out there takes no thread from the store,
    and does not keep this process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast(T, result))

    def run() -> None:
        result: T | None = None
        raised: Exception | None = None
        try:
            result = work()
        except Exception as error:  # whatever it is belongs to whoever waits
            raised = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, raised)

    threading.Thread(target=run, name="errand", daemon=True).start()
    return await done
