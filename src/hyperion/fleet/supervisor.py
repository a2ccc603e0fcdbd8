"""The supervisor: owns every child, restarts those that die, and takes everything down in order.

It is the process of `hyperion serve`; `cli` binds the sockets and spawns the first children before this module (and
with it asyncio) is imported. It knows nothing of models: a child is a name, a program and a wave. Control asks for
runners over a Unix socket (`fleet.messages`).
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Mapping, Sequence

from hyperion.fleet.cgroup import Parents
from hyperion.fleet.messages import (
    HEADER_BYTES,
    Answer,
    Child,
    Children,
    ChildSpec,
    List,
    Ok,
    Refused,
    Request,
    Start,
    Stop,
    body_bytes,
    decode_request,
    encode,
)
from hyperion.fleet.output import LogWriter, format_line
from hyperion.fleet.spawn import Process
from hyperion.fleet.supervised import Supervised, Surroundings
from hyperion.schema.errors import HyperionError

_MAX_WAIT_S = 60.0
_MAX_CHILDREN = 4096


class Supervisor:
    """The table of children. `graces_s` is each wave's time to drain, the last for all further waves. `on_change` is
    called with all children after each change of any of them. `parents` is where control groups can be made."""

    def __init__(
        self,
        environ: Mapping[str, str],
        writer: LogWriter,
        log_format: str,
        graces_s: Sequence[float],
        parents: Parents | None = None,
    ) -> None:
        self.on_change: Callable[[tuple[Child, ...]], None] = lambda _children: None
        self._writer = writer
        self._log_format = log_format
        self._graces_s = graces_s
        self._table: dict[str, Supervised] = {}
        self._revision = 0
        self._changed = asyncio.Event()
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        around = (environ, log_format, writer.write, self.log, self._note_change, self._ending.is_set, parents)
        self._around = Surroundings(*around)

    def log(self, process: str, message: str) -> None:
        """One line of our own about a child."""
        self._writer.write(format_line(self._log_format, "supervisor", f"{process}: {message}"))

    async def run(self, listener: socket.socket, first: Sequence[tuple[ChildSpec, Process]]) -> None:
        """Supervise until SIGTERM or SIGINT, then drain: all is gone on return. A second signal kills at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.end)
        for spec, process in first:
            self._add(spec).start(process)
        server = await asyncio.start_unix_server(self._serve, sock=listener)
        try:
            await self._ending.wait()
            await self._drain()
        finally:
            for child in self._table.values():
                child.kill()
            server.close()

    def end(self) -> None:
        """Begin to drain; called again, kill whatever is left."""
        if self._ending.is_set():
            self._hurry.set()
        self._ending.set()

    def children(self) -> tuple[Child, ...]:
        """All children as they are now, in the order they were started."""
        return tuple(child.seen for child in self._table.values())

    async def _drain(self) -> None:
        while self._table:
            wave = min(child.spec.wave for child in self._table.values())
            grace_s = self._graces_s[min(wave, len(self._graces_s) - 1)]
            members = [child for child in self._table.values() if child.spec.wave == wave]
            for child in members:
                child.stop(0.0 if self._hurry.is_set() else grace_s)
            gone = asyncio.ensure_future(asyncio.wait([asyncio.ensure_future(child.gone.wait()) for child in members]))
            hurry = asyncio.ensure_future(self._hurry.wait())
            await asyncio.wait((gone, hurry), return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not gone.done():
                for child in self._table.values():
                    child.kill()
                await gone

    def _add(self, spec: ChildSpec) -> Supervised:
        child = self._table[spec.name] = Supervised(spec, self._around)
        return child

    def _note_change(self, name: str) -> None:
        child = self._table.get(name)
        if child is not None and child.gone.is_set():
            del self._table[name]
        self._revision += 1
        self._changed.set()
        self._changed = asyncio.Event()
        self.on_change(self.children())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                header = await reader.readexactly(HEADER_BYTES)
                body = await reader.readexactly(body_bytes(header))
                writer.write(encode(await self._answer(decode_request(body))))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client left
        except asyncio.CancelledError:
            return  # all ends; asyncio of Python 3.11 would print the trace of a cancelled connection
        except HyperionError as error:
            self.log("supervisor.sock", error.message)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: Request) -> Answer:
        if isinstance(request, List):
            return await self._list(request)
        if isinstance(request, Stop):
            child = self._table.get(request.name)
            if child is not None:
                child.stop(request.grace_s)
            return Ok()
        return self._start(request)

    def _start(self, request: Start) -> Answer:
        spec = request.child
        if self._ending.is_set():
            return Refused("the supervisor is draining: it starts nothing")
        if spec.pass_fds or not spec.argv:
            return Refused(f"child {spec.name}: expected a program and no file descriptors")
        if len(self._table) >= _MAX_CHILDREN:
            return Refused(f"child {spec.name}: {_MAX_CHILDREN} children are running, which is the limit")
        if spec.name not in self._table:
            self._add(spec).start()
        return Ok()

    async def _list(self, request: List) -> Children:
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(min(request.wait_s, _MAX_WAIT_S)):
                while self._revision <= request.since:
                    await self._changed.wait()
        return Children(self._revision, self.children())
