"""An open-loop load of checked requests in the background: sent when they are due, whatever became of the others.

Each outcome is kept with its time and the version that answered, so that a test can say who was harmed, and when the
last request reached a version.
"""

import asyncio
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Self


class Outcome(NamedTuple):
    """One request: when it was due (monotonic s), its latency from then, the HTTP status (0: none), the version."""

    due_s: float
    latency_s: float
    status: int
    version: str


class OpenLoad:
    """`rate` requests per second to one endpoint over `connections` kept connections, until stopped."""

    def __init__(self, port: int, endpoint: str, rows: Any, rate: float, connections: int = 64) -> None:
        self.outcomes: list[Outcome] = []
        self._port, self._rate, self._connections = port, rate, connections
        self._requests = [self._request(endpoint, row) for row in rows]
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def after(self, count: int = 50, timeout_s: float = 60.0) -> list[Outcome]:
        """Outcomes of requests that were due after this call, so that they were sent after it; once there are so
        many."""
        asked_s, seen = time.monotonic(), len(self.outcomes)
        while len(found := [one for one in self.outcomes[seen:] if one.due_s > asked_s]) < count:
            assert time.monotonic() - asked_s < timeout_s, f"{len(found)} of {count} answers in {timeout_s} s"
            time.sleep(0.01)
        return found

    def statuses(self) -> Counter[int]:
        """How many requests ended how."""
        return Counter(outcome.status for outcome in self.outcomes)

    def _request(self, endpoint: str, row: Any) -> bytes:
        tensor = {"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": [float(f"{v:.4g}") for v in row]}
        body = json.dumps({"inputs": [tensor]}).encode()
        head = f"POST /v2/models/{endpoint}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def _run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        number = 0
        while not self._stopping.is_set():
            due = started + number / self._rate
            now = time.monotonic()
            if now < due:
                await asyncio.sleep(due - now)
            task = asyncio.ensure_future(self._ask(due, self._requests[number % len(self._requests)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()

    async def _ask(self, due: float, request: bytes) -> None:
        status, version = 0, ""
        try:
            connection = self._idle.popleft() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = connection
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(_field(head, b"content-length") or b"0"))
            status, version = int(head[9:12]), _field(head, b"x-hyperion-model-version").decode()
            self._idle.append(connection)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            status = 0
        self.outcomes.append(Outcome(due, time.monotonic() - due, status, version))


def _field(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\r\n" + name + b": ")
    if start < 0:
        return b""
    start += len(name) + 4
    return head[start : head.index(b"\r\n", start)]


def harm(outcomes: Sequence[Outcome], bad: str, slow_s: float) -> tuple[int, int]:
    """How many requests failed, and how many of those that version `bad` answered took longer than `slow_s`."""
    failed = sum(outcome.status != 200 for outcome in outcomes)
    return failed, sum(outcome.version == bad and outcome.latency_s > slow_s for outcome in outcomes)
