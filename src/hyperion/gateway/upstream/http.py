"""V2 inference over HTTP/1.1 with another server: connections that are kept, one request at a time on each.

Made by `gateway/upstream/site`. Tensors go as binary data where the server says that it takes them, as JSON where not.
"""

import asyncio
import time
from typing import Final, cast

from hyperion.gateway.upstream.link import Ask, Done
from hyperion.gateway.upstream.site import Site
from hyperion.gateway.upstream.status import MARK, SERVED_BY, error_of_status, read_stand_in
from hyperion.policy.retry import is_worth_it
from hyperion.schema.call import Buffer
from hyperion.schema.errors import HyperionError, UpstreamFailed
from hyperion.wire.http1_client import AnswerError, AnswerReader, encode_request_head, is_clean
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.upstream import decode_answer, encode_infer, is_binary_server, says_ready

CONNECT_S: Final = 3.0
# Balancers and firewalls forget connections that are idle for some minutes, and some do so without a word to either
# side: the next request on one would wait for its deadline.
MAX_IDLE_NS: Final = 45_000_000_000
# A kept connection that ends so soon after a request was sent was idle for too long; later, the server had the request.
IDLE_END_NS: Final = 500_000_000
MAX_LOOK_BYTES: Final = 1 << 20
NO_SUCH_ROUTE: Final = frozenset((404, 405, 501))


class HttpService:
    """One upstream over HTTP."""

    def __init__(self, site: Site, limits: WireLimits) -> None:
        version = f"/versions/{site.version}" if site.version else ""
        self.site = site
        self.limits = limits
        self.model_path = f"{site.path}/v2/models/{site.model}{version}"
        self.binary = False
        self._knows = False  # whether it takes binary data

    def make_carrier(self) -> "HttpCarrier":
        return HttpCarrier(self)

    async def look(self) -> str:
        if not self._knows:
            reader = await self._get(f"{self.site.path}/v2")
            self.binary = reader.status == 200 and is_binary_server(reader.body, self.limits)
            self._knows = True
        reader = await self._get(f"{self.model_path}/ready")
        if reader.status in NO_SUCH_ROUTE:
            reader = await self._get(f"{self.site.path}/v2/health/ready")
        if reader.status != 200:
            self._knows = False  # another one may come up in its place
            return f"says that it is not ready (status {reader.status})"
        return "" if says_ready(reader.body, self.limits) else "says that its model is not ready"

    async def _get(self, path: str) -> AnswerReader:
        """One request on a connection of its own. Raises OSError, UpstreamFailed."""
        site = self.site
        reader = AnswerReader(MAX_LOOK_BYTES)
        stream, writer = await asyncio.open_connection(
            site.host, site.port, ssl=site.tls, server_hostname=site.host if site.tls else None
        )
        try:
            headers = {b"accept": b"application/json", b"connection": b"close", **site.headers}
            writer.write(encode_request_head(b"GET", path.encode(), site.authority.encode(), headers, None))
            while not reader.complete:
                data = await stream.read(1 << 16)
                if not data:
                    raise UpstreamFailed("closes the connection before it has answered")
                reader.feed(data)
            return reader
        except AnswerError as error:
            raise UpstreamFailed(f"cannot be understood: {error}") from None
        finally:
            writer.close()

    async def close(self) -> None:
        """Nothing is shared by the carriers."""


class Line(asyncio.Protocol):
    """One connection of a carrier, which hears nothing more of it once it has another one, or none."""

    def __init__(self, carrier: "HttpCarrier", max_body_bytes: int) -> None:
        self.reader = AnswerReader(max_body_bytes)
        self.used = False  # whether it has brought an answer before
        self._idle_ns = 0  # since when it waits for a request
        self._carrier = carrier
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the interface but not the class
        self._carrier.line_made(self)

    def data_received(self, data: bytes) -> None:
        self._carrier.line_heard(self, data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._carrier.line_lost(self)

    @property
    def usable(self) -> bool:
        """Whether it may carry another request."""
        open_still = self._transport is not None and not self._transport.is_closing()
        return open_still and time.monotonic_ns() - self._idle_ns < MAX_IDLE_NS

    def rest(self) -> None:
        """It has brought an answer, and waits for the next request."""
        self.reader.next()
        self.used = True
        self._idle_ns = time.monotonic_ns()

    def write(self, message: list[Buffer]) -> None:
        assert self._transport is not None
        self._transport.writelines(message)

    def drop(self) -> None:
        """Ends the connection without a word."""
        if self._transport is not None:
            self._transport.abort()


class HttpCarrier:
    """One connection, made when it is needed and kept as long as the server keeps it."""

    def __init__(self, service: HttpService) -> None:
        self._service = service
        self._line: Line | None = None
        self._opening: asyncio.Task[None] | None = None
        self._message: list[Buffer] = []
        self._done: Done | None = None
        self._repeatable = False
        self._sent_ns = 0

    # --- Carrier ---

    def infer(self, ask: Ask, done: Done) -> None:
        service = self._service
        body, json_length = encode_infer(ask.inputs, ask.outputs, ask.parameters, ask.request_id, service.binary)
        headers = {
            b"content-type": b"application/json" if json_length is None else b"application/octet-stream",
            b"accept": b"application/json, application/octet-stream",
            b"x-request-timeout-ms": b"%d" % max(1, ask.timeout_ns // 1_000_000),
        }
        if ask.request_id and is_clean(b"x-request-id", ask.request_id.encode()):
            headers[b"x-request-id"] = ask.request_id.encode()
        if json_length is not None:
            headers[b"inference-header-content-length"] = b"%d" % json_length
        headers.update(ask.trace)
        headers.update(service.site.headers)
        size = sum([memoryview(part).nbytes for part in body])
        target = f"{service.model_path}/infer".encode()
        head = encode_request_head(b"POST", target, service.site.authority.encode(), headers, size)
        self._message = [head, *body]
        self._done = done
        self._repeatable = is_worth_it(UpstreamFailed.code, set(ask.parameters))
        self._sent_ns = time.monotonic_ns()
        if self._line is not None and self._line.usable:
            self._line.write(self._message)
        else:
            self._open()

    def abort(self) -> None:
        self._done = None
        self._message = []
        self._drop()

    def close(self) -> None:
        self.abort()

    # --- the connection ---

    def _open(self) -> None:
        self._drop()
        self._opening = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        site = self._service.site
        line = Line(self, self._service.limits.max_body_bytes)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: line, site.host, site.port, ssl=site.tls, server_hostname=site.host if site.tls else None
                )
        except TimeoutError:
            self._end(UpstreamFailed(f"the upstream did not take the connection within {CONNECT_S:.0f} s"))
        except (OSError, ValueError) as error:  # a name that no resolver takes is the latter
            reason = getattr(error, "strerror", "") or error.__class__.__name__
            self._end(UpstreamFailed(f"the upstream cannot be reached ({reason})"))

    def _drop(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        line, self._line = self._line, None
        if line is not None:
            line.drop()

    def line_made(self, line: Line) -> None:
        """The connection is there."""
        if self._done is None or self._line is not None:
            line.drop()
            return
        self._opening = None
        self._line = line
        line.write(self._message)

    def line_heard(self, line: Line, data: bytes) -> None:
        """Bytes have come."""
        if line is not self._line:
            return
        try:
            line.reader.feed(data)
        except AnswerError as error:
            self._drop()
            self._end(UpstreamFailed(f"the upstream's answer cannot be used: {error}"))
            return
        if self._done is None:  # it speaks without having been asked
            self._drop()
        elif line.reader.complete:
            self._take(line)

    def line_lost(self, line: Line) -> None:
        """The connection has ended."""
        if line is not self._line:
            return
        self._line = None
        if self._done is None:
            return
        at_once = time.monotonic_ns() - self._sent_ns < IDLE_END_NS
        if line.used and not line.reader.started and at_once and self._repeatable:
            self._open()  # it closed a kept connection while our request was on its way: nothing was computed
        elif line.reader.started:
            self._end(UpstreamFailed("the upstream closed the connection in the middle of its answer"))
        else:
            self._end(UpstreamFailed("the upstream closed the connection before it answered"))

    def _take(self, line: Line) -> None:
        """The whole answer is there."""
        reader, limits = line.reader, self._service.limits
        status, headers, body = reader.status, reader.headers, reader.body
        if reader.keep_alive:
            line.rest()
        else:
            self._drop()
        if status != 200:
            self._end(error_of_status(status, headers, body, limits))
            return
        try:
            outputs = decode_answer(body, headers.get(b"inference-header-content-length"), limits)
        except HyperionError as error:
            self._end(UpstreamFailed(f"the upstream's answer cannot be used: {error.message}"))
            return
        done, self._done = self._done, None
        self._message = []
        if done is not None:
            done(outputs, None, read_stand_in(headers.get(MARK, b""), headers.get(SERVED_BY, b"")))

    def _end(self, error: HyperionError) -> None:
        done, self._done = self._done, None
        self._message = []
        self._opening = None
        if done is not None:
            done((), error, "")
