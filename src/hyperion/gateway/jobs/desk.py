"""The gateway's window to what control remembers: jobs and idempotency keys. The gateway itself opens no store.

Made by `gateway/process`. One connection, made when it is needed and kept; what was asked while a message was under way
travels together in the next one, so that control writes it in one transaction. Everything may be asked again: where
control or its database is away for a while, those who ask wait, within their time.
"""

import asyncio
from collections import deque
from pathlib import Path
from typing import Final

from hyperion.gateway.link import ERRORS
from hyperion.schema.errors import (
    DeadlineExceeded,
    HyperionError,
    InternalError,
    MalformedRequest,
    NotReady,
    Overloaded,
)
from hyperion.schema.job import Answer, Complete, Failed, Finish, Request, Submit
from hyperion.wire.link import Ask, Decoder, Told, encode

RETRY_S: Final = (0.02, 0.05, 0.1, 0.25, 0.5)
MAX_TOGETHER: Final = 256
MAX_TOGETHER_BYTES: Final = 24 << 20  # of payloads in one message, but for one that is larger alone
MAX_WAITING_BYTES: Final = 512 << 20
MAX_WAITING: Final = 50_000
AGAIN: Final = frozenset(("storage_failed", "not_ready", "overloaded", "internal"))
_READ_BYTES: Final = 1 << 18


class Wish:
    """One request, and who waits for its answer. `size_bytes` is that of its payload."""

    __slots__ = ("answer", "request", "size_bytes")

    def __init__(self, request: Request, answer: "asyncio.Future[Answer]") -> None:
        self.request: Final = request
        self.answer: Final = answer
        self.size_bytes: Final = _payload_bytes(request)


class Desk:
    """All methods run on the event loop's thread."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._wishes: deque[Wish] = deque()
        self._waiting_bytes = 0
        self._wanted = asyncio.Event()
        self._away = False

    async def ask(self, request: Request, timeout_s: float) -> Answer:
        """The answer, however often it takes to get it. Raises what control refuses for good, NotReady where control is
        away for as long, DeadlineExceeded where it takes longer, Overloaded where too many wait already."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        attempt = 0
        while True:
            answer = await self._ask_once(request, ends_s)
            if not isinstance(answer, Failed):
                return answer
            pause_s = RETRY_S[min(attempt, len(RETRY_S) - 1)]
            if answer.code not in AGAIN or loop.time() + pause_s >= ends_s:
                raise ERRORS.get(answer.code, InternalError)(answer.message)
            attempt += 1
            await asyncio.sleep(pause_s)

    async def run(self) -> None:
        """Carries wishes to control, for ever."""
        attempt = 0
        while True:
            await self._wanted.wait()
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
                attempt = 0
                self._away = False
                try:
                    await self._carry(reader, writer)
                finally:
                    writer.close()
            except (OSError, HyperionError):
                self._away = True
                # Control is away: those who wait go on waiting, each as long as it may.
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1

    async def _ask_once(self, request: Request, ends_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        wish = Wish(request, loop.create_future())
        if len(self._wishes) >= MAX_WAITING or self._waiting_bytes + wish.size_bytes > MAX_WAITING_BYTES:
            raise Overloaded("too many requests wait for the store; come back later", retry_after_s=1.0)
        self._wishes.append(wish)
        self._waiting_bytes += wish.size_bytes
        self._wanted.set()
        try:
            async with asyncio.timeout_at(ends_s):
                return await wish.answer
        except TimeoutError:
            if not self._away:
                raise DeadlineExceeded("the deadline passed before the store had answered") from None
            message = "what jobs and idempotency keys are kept in cannot be reached now; try again"
            raise NotReady(message, retry_after_s=1.0) from None

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder()
        while True:
            await self._wanted.wait()
            wishes = self._take()
            if not wishes:
                continue
            try:
                writer.write(encode(Ask(tuple([wish.request for wish in wishes]))))
                await writer.drain()
                answers = await _read(reader, decoder)
                if len(answers) != len(wishes):
                    raise MalformedRequest(f"{len(answers)} answers to {len(wishes)} requests")
            except BaseException:
                self._wishes.extendleft(reversed(wishes))
                self._waiting_bytes += sum([wish.size_bytes for wish in wishes])
                self._wanted.set()
                raise
            for wish, answer in zip(wishes, answers, strict=True):
                if not wish.answer.done():
                    wish.answer.set_result(answer)

    def _take(self) -> list[Wish]:
        """What goes into the next message, without what nobody waits for any more."""
        taken: list[Wish] = []
        total_bytes = 0
        while self._wishes and len(taken) < MAX_TOGETHER:
            wish = self._wishes[0]
            if taken and total_bytes + wish.size_bytes > MAX_TOGETHER_BYTES:
                break
            self._wishes.popleft()
            self._waiting_bytes -= wish.size_bytes
            if not wish.answer.done():
                taken.append(wish)
                total_bytes += wish.size_bytes
        if not self._wishes:
            self._wanted.clear()
        return taken


async def _read(reader: asyncio.StreamReader, decoder: Decoder) -> tuple[Answer, ...]:
    while data := await reader.read(_READ_BYTES):
        for message in decoder.feed(data):
            if not isinstance(message, Told):
                raise MalformedRequest("control did not answer what it was asked")
            return message.answers
    raise ConnectionResetError("control closed the link")


def _payload_bytes(request: Request) -> int:
    if isinstance(request, Submit):
        return len(request.job.request.body)
    if isinstance(request, Complete):
        return len(request.answer.body)
    if isinstance(request, Finish) and request.answer is not None:
        return len(request.answer.body)
    return 0
