"""A steady load of checked requests in the background of a test: every answer is compared with what it must be."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct


class Tally(Struct):
    """What came of the requests so far: statuses (0: the connection failed), wrong answers, and the first failure's
    text."""

    statuses: Counter[int]
    wrong: int = 0
    first_failure: str = ""

    @property
    def answered(self) -> int:
        return self.statuses[200]

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200) + self.wrong


class Load:
    """`connections` clients that ask `model` for the sum of a row, one request after the other, until stopped."""

    def __init__(self, port: int, model: str, connections: int, pause_s: float = 0.0) -> None:
        self.tally = Tally(Counter())
        self._port = port
        self._model = model
        self._connections = connections
        self._pause_s = pause_s
        self._stopping = threading.Event()

    def run(self) -> None:
        asyncio.run(self._run())

    def stop(self) -> None:
        self._stopping.set()

    def wait_for(self, answered: int, timeout_s: float = 60.0) -> None:
        """Return once that many requests were answered since the start."""
        deadline = time.monotonic() + timeout_s
        while self.tally.answered < answered:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.tally.answered} of {answered} answers in {timeout_s} s: {self.tally}")
            time.sleep(0.01)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._connections)))

    async def _client(self, number: int) -> None:
        turn = 0
        while not self._stopping.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            try:
                while not self._stopping.is_set():
                    turn += 1
                    await self._ask(reader, writer, float(number * 1_000 + turn % 1_000))
                    if self._pause_s:
                        await asyncio.sleep(self._pause_s)
            except (OSError, asyncio.IncompleteReadError) as error:
                self._count(0, repr(error))
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, value: float) -> None:
        row = [value, 1.0, 2.0, 3.0]
        body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}]}).encode()
        writer.write(
            b"POST /v2/models/%b/infer HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n%b"
            % (self._model.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        text = await reader.readexactly(length)
        status = int(head[9:12])
        if status != 200:
            self._count(status, text.decode(errors="replace"))
        elif json.loads(text)["outputs"][0]["data"] != [value + 6.0]:
            self.tally.wrong += 1
            self._count(200, text.decode(errors="replace"))
        else:
            self._count(200, "")

    def _count(self, status: int, failure: str) -> None:
        self.tally.statuses[status] += 1
        if failure and not self.tally.first_failure:
            self.tally.first_failure = f"{status}: {failure[:300]}"


@contextmanager
def load(port: int, model: str, connections: int = 8, pause_s: float = 0.0) -> Iterator[Load]:
    """A running load; stopped and waited for at the end."""
    running = Load(port, model, connections, pause_s)
    thread = threading.Thread(target=running.run, name="load")
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join()
