"""Hand the snapshot to the gateways, by long poll, and take their reports, loads and unloads: the server of
`control.sock`."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from hyperion.control.jobs.board import JobBoard
from hyperion.control.state import replace_file
from hyperion.schema.errors import HyperionError
from hyperion.schema.release import GatewayReport
from hyperion.schema.snapshot import Snapshot
from hyperion.schema.usage import OthersUsage
from hyperion.wire import link

_READ_BYTES = 256 << 10
Command = Callable[[link.Load | link.Unload | link.UnknownKey], Awaitable[link.Done]]


class GatewayView(msgspec.Struct):
    """What the gateway at the other end of one connection said last."""

    worker: int
    have: int
    draining: tuple[str, ...] = ()
    rejected: dict[str, str] = {}


class Publisher:
    """Holds the current snapshot, keeps it on disk, and knows which version each connected gateway runs.

    The snapshot is kept twice: at `paths[0]` for control's next life, and at `paths[1:]` for gateways that start while
    control is away (they write there, too, so that is no place to read our own version from). `changed` is called
    whenever a gateway connects, leaves or acknowledges, and `on_report` with what gateways counted. What
    `usage` makes of a report is its answer.
    """

    def __init__(
        self,
        paths: tuple[Path, ...],
        changed: Callable[[], None],
        on_report: Callable[[GatewayReport], None],
        poll_s: float = 10.0,
        usage: Callable[[GatewayReport], tuple[OthersUsage, ...]] = lambda _: (),
    ) -> None:
        self.snapshot = read_snapshot(paths[0])
        self.spread_s = 0.0  # from publishing the last snapshot that all gateways run until they all did
        self._published_s = 0.0
        self._paths = paths
        self._changed = changed
        self._on_report = on_report
        self._poll_s = poll_s
        self._usage = usage
        self._views: dict[asyncio.StreamWriter, GatewayView] = {}
        self._news = asyncio.Event()

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the current snapshot: on disk first, then to whoever waits."""
        self._published_s = time.monotonic()
        data = msgspec.json.encode(snapshot)
        for path in self._paths:
            replace_file(path, data)
        self.snapshot = snapshot
        self._news.set()
        self._news = asyncio.Event()

    def acknowledged(self) -> int:
        """The version that every connected gateway has reached; the current one where none is connected."""
        return min((view.have for view in self._views.values()), default=self.snapshot.version)

    def pending_s(self) -> float:
        """How long gateways have been behind the current snapshot; 0 where none is."""
        behind = self.acknowledged() < self.snapshot.version
        return time.monotonic() - self._published_s if behind and self._published_s else 0.0

    def workers(self) -> dict[int, int]:
        """Connected gateway workers, and the version that each runs."""
        return {view.worker: view.have for view in self._views.values()}

    def draining(self) -> set[str]:
        """Replicas that no snapshot lists any more, but that some gateway still holds open."""
        return {name for view in self._views.values() for name in view.draining}

    def rejected(self) -> dict[str, str]:
        """The endpoints whose part of the snapshot some gateway could not follow, and why."""
        return {name: why for view in self._views.values() for name, why in view.rejected.items()}

    async def serve(self, listener: socket.socket, command: Command, board: JobBoard) -> asyncio.Server:
        """Accept gateways on a bound Unix socket until the returned server is closed. `board` takes what they ask of
        jobs and idempotent calls."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._converse(reader, writer, command, board)
            except (HyperionError, ConnectionError):
                return  # the gateway is gone or speaks nonsense; it connects anew
            except asyncio.CancelledError:
                return  # control ends; asyncio of Python 3.11 would print the trace of a cancelled connection
            finally:
                if self._views.pop(writer, None) is not None:
                    self._changed()
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        return await asyncio.start_unix_server(accept, sock=listener)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: Command, board: JobBoard
    ) -> None:
        decoder = link.Decoder()
        reading = asyncio.ensure_future(reader.read(_READ_BYTES))
        try:
            while data := await reading:
                reading = asyncio.ensure_future(reader.read(_READ_BYTES))
                for message in decoder.feed(data):
                    if isinstance(message, link.Poll):
                        answer: link.Message = await self._poll(message, writer, reading)
                    elif isinstance(message, link.Load | link.Unload | link.UnknownKey):
                        answer = await command(message)
                    elif isinstance(message, link.Report):
                        self._on_report(message.report)
                        answer = link.Done(version=self.snapshot.version, usage=self._usage(message.report))
                    elif isinstance(message, link.Ask):
                        answer = await board.answer(message)
                    elif isinstance(message, link.Claim):
                        answer = await board.claim(message, reading)
                    else:
                        return
                    writer.write(link.encode(answer))
                    await writer.drain()
        finally:
            reading.cancel()

    async def _poll(
        self, poll: link.Poll, writer: asyncio.StreamWriter, reading: "asyncio.Future[bytes]"
    ) -> link.Publish:
        self._views[writer] = GatewayView(poll.worker, poll.have, poll.draining, poll.rejected)
        if self._published_s and self.acknowledged() >= self.snapshot.version:
            self.spread_s, self._published_s = time.monotonic() - self._published_s, 0.0
        self._changed()
        if poll.have > self.snapshot.version:
            # It holds a snapshot of a home that is gone: ours must be newer than that.
            self.publish(msgspec.structs.replace(self.snapshot, version=poll.have + 1))
        if max(poll.have, poll.seen) >= self.snapshot.version:
            # `reading` ends early where the gateway dies, so that nobody waits for a dead one's acknowledgement.
            news = asyncio.ensure_future(self._news.wait())
            await asyncio.wait((news, reading), timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
        if max(poll.have, poll.seen) >= self.snapshot.version:
            return link.Publish(None)
        return link.Publish(self.snapshot)


def read_snapshot(path: Path) -> Snapshot:
    """Return the last snapshot that was published, or an empty one of version 0."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return Snapshot(0)
