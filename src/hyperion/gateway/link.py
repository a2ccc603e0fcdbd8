"""The gateway's side of its link to control: polls for snapshots, asks for loads. Serving never waits for it.

Made by `gateway/process`. When control is away, the last good snapshot (kept on disk) goes on, and the poll is tried
again.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hyperion.schema import errors
from hyperion.schema.errors import HyperionError, InternalError, NotReady
from hyperion.schema.snapshot import Snapshot
from hyperion.telemetry.logs import EventLog
from hyperion.wire.link import Decoder, Done, Load, Message, Poll, Publish, UnknownKey, Unload, encode

RETRY_S: Final = (0.02, 0.05, 0.1, 0.25, 1.0)
PROMPT_S: Final = 0.1  # a reload takes some milliseconds where nothing is wrong
CHANGE_TIMEOUT_S: Final = 600.0
CONTROL_RESTART_S: Final = 10.0
TELL_AGAIN_S: Final = 1.0  # an unknown key of an issuer is told this often at most
_READ_BYTES: Final = 1 << 18
ERRORS: Final = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HyperionError)
}


class ControlLink:
    """`apply(snapshot)` follows a new snapshot; `draining()` names replicas that are still held open though the
    snapshot does not list them, `rejected()` what could not be followed and why."""

    def __init__(
        self,
        socket_path: Path,
        snapshot_path: Path,
        worker: int,
        apply: Callable[[Snapshot], Awaitable[None]],
        draining: Callable[[], tuple[str, ...]],
        log: EventLog,
        rejected: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._socket_path = socket_path
        self._snapshot_path = snapshot_path
        self._worker = worker
        self._apply = apply
        self._draining = draining
        self._log = log
        self._rejected = rejected
        self._have = 0
        self._seen = 0
        self._following: set[asyncio.Future[None]] = set()
        self._unkept: Snapshot | None = None
        self._told: dict[str, asyncio.Task[None]] = {}  # by issuer, while control is told or need not be told again
        self._changed = asyncio.Event()  # there is something to tell control
        self._followed = asyncio.Event()

    async def restore(self) -> None:
        """Starts with the last good snapshot, if there is one."""
        try:
            snapshot = msgspec.json.decode(self._snapshot_path.read_bytes(), type=Snapshot)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            self._log.write("warning", "last snapshot not readable", error=str(error))
            return
        await self._apply(snapshot)
        self._have = self._seen = snapshot.version

    async def follow(self) -> None:
        """Polls for ever."""
        attempt = 0
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
                attempt = 0
                await self._poll_until_lost(reader, writer)
            except (OSError, asyncio.IncompleteReadError, HyperionError):
                # Control is away: nothing to do but to try again; requests are served meanwhile.
                attempt += 1
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])

    async def _poll_until_lost(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading = asyncio.ensure_future(reader.read(_READ_BYTES))
        try:
            decoder = Decoder()
            unanswered = 0
            while True:
                if not unanswered or self._changed.is_set():
                    self._changed.clear()
                    draining, rejected = self._draining(), self._rejected()
                    writer.write(encode(Poll(self._worker, self._have, draining, self._seen, rejected)))
                    unanswered += 1
                    self._keep_news()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait((reading, changed), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if not reading.done():
                    continue
                data = reading.result()
                if not data:
                    raise ConnectionResetError("control closed the link")
                reading = asyncio.ensure_future(reader.read(_READ_BYTES))
                for answer in decoder.feed(data):
                    unanswered -= 1
                    if isinstance(answer, Publish) and answer.snapshot is not None:
                        await self._take(answer.snapshot)
        finally:
            reading.cancel()
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Message) -> Message:
        writer.write(encode(message))
        await writer.drain()
        decoder = Decoder()
        while True:
            data = await reader.read(1 << 16)
            if not data:
                raise ConnectionResetError("control closed the link")
            answers = decoder.feed(data)
            if answers:
                return answers[0]

    async def _take(self, snapshot: Snapshot) -> None:
        """Follows the snapshot; returns when that is done, or takes longer than a moment: then it goes on, while the
        next snapshot is asked for."""
        if snapshot.version == self._seen and self._following:
            await asyncio.sleep(PROMPT_S)  # control does not look at what was seen
            return
        self._seen = snapshot.version
        if self._worker == 0:
            self._unkept = snapshot
        following = asyncio.ensure_future(self._apply(snapshot))
        self._following.add(following)
        following.add_done_callback(lambda done: self._followed_to(snapshot.version, done))
        await asyncio.wait((following,), timeout=PROMPT_S)
        if following.done() and self._have != snapshot.version:
            await asyncio.sleep(RETRY_S[-1])  # it could not be followed, and will be sent again

    def _followed_to(self, version: int, done: "asyncio.Future[None]") -> None:
        self._following.discard(done)
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._log.write("error", "snapshot not followed", version=version, error=repr(error))
            return
        if version != self._seen and version < self._have:
            return
        self._have = version
        self._changed.set()
        self._followed.set()
        self._followed = asyncio.Event()

    def _keep_news(self) -> None:
        """Keeps the newest snapshot, after control was told that it is there."""
        snapshot, self._unkept = self._unkept, None
        if snapshot is not None:
            self._keep(snapshot)

    def _keep(self, snapshot: Snapshot) -> None:
        """On disk, whole or not at all, for this user alone. A full disk costs the copy, not the service."""
        temporary = self._snapshot_path.with_suffix(".new")
        try:
            with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(msgspec.json.encode(snapshot))
            os.replace(temporary, self._snapshot_path)
        except OSError as error:
            self._log.write("warning", "snapshot not kept", error=str(error))

    def tell_drained(self) -> None:
        """Tells control now that replicas of an old version are held no more: they take memory until they are
        stopped."""
        self._changed.set()

    def tell_unknown_key(self, issuer: str) -> None:
        """Tells control that a token of this issuer names a key that is not in the snapshot; never waits."""
        if issuer not in self._told:
            self._told[issuer] = task = asyncio.ensure_future(self._tell_unknown_key(issuer))
            task.add_done_callback(lambda _: self._told.pop(issuer, None))

    async def _tell_unknown_key(self, issuer: str) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
            with contextlib.closing(writer):
                async with asyncio.timeout(CONTROL_RESTART_S):
                    await self._ask(reader, writer, UnknownKey(issuer))
        except (OSError, TimeoutError, HyperionError) as error:  # the next such token tells it again
            self._log.write("warning", "control not told of an unknown key", issuer=issuer, error=str(error))
        await asyncio.sleep(TELL_AGAIN_S)

    async def _connect_patiently(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to control, which may be restarting just now. Raises NotReady when it stays away."""
        ends_s = time.monotonic() + CONTROL_RESTART_S
        while True:
            try:
                return await asyncio.open_unix_connection(str(self._socket_path))
            except OSError:
                if time.monotonic() > ends_s:
                    message = "the control process is away; try again in a moment"
                    raise NotReady(message, retry_after_s=1.0) from None
            await asyncio.sleep(RETRY_S[-2])

    async def change_model(self, model: str, parameters: Mapping[str, Any] | None) -> None:
        """Asks control to load (again), or with None to unload, a model; returns when this gateway has followed.

        Raises the error that control names, or NotReady when it is away.
        """
        reader, writer = await self._connect_patiently()
        with contextlib.closing(writer):
            request = Unload(model) if parameters is None else Load(model, dict(parameters))
            try:
                async with asyncio.timeout(CHANGE_TIMEOUT_S):
                    answer = await self._ask(reader, writer, request)
            except (OSError, TimeoutError):
                raise NotReady("the control process went away; look at the index before you try again") from None
        if not isinstance(answer, Done):
            raise InternalError("control gave no answer to the request")
        if answer.error:
            raise ERRORS.get(answer.code, InternalError)(answer.error)
        # Control may have been restarted and not yet know that this gateway is there to be waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONTROL_RESTART_S):
                while self._have < answer.version:
                    await self._followed.wait()
