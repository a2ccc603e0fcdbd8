"""What the HTTP connections of one worker share: the clock, memory, and who is connected. Made by `gateway/process`."""

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import cast

from hyperion.gateway.http.exchange import Exchange
from hyperion.gateway.http.known import KnownHead
from hyperion.gateway.http.large_body import BodyMemory
from hyperion.gateway.http.protocol import HttpConnection
from hyperion.gateway.http.refusals import Refusals
from hyperion.gateway.unread import choose_unread
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import HyperionError


class HttpEdge:
    """What the connections of one worker share. `serve(exchange)` answers a request that has arrived whole;
    `refused(exchange, error)` records one that never did; `refusals` are answers that stand for requests like one that
    was refused."""

    def __init__(
        self,
        config: GatewayConfig,
        serve: Callable[[Exchange], None],
        new_request_id: Callable[[], str],
        refused: Callable[[Exchange, HyperionError], None],
        refusals: Refusals,
    ) -> None:
        self.config = config
        self.serve = serve
        self.new_request_id = new_request_id
        self.refused = refused
        self.refusals = refusals
        self.connections: set[HttpConnection] = set()
        self.newest_head: KnownHead | None = None
        self.draining = False
        self.empty = asyncio.Event()
        self.buffered_bytes = 0
        self.body_memory = BodyMemory()
        self.date = b""
        self.now_s = 0.0
        self.tick(time.monotonic())

    def make_connection(self) -> asyncio.Protocol:
        """For the acceptor."""
        return cast(asyncio.Protocol, HttpConnection(self))

    def tick(self, now_s: float) -> None:
        """Once a second: the clock that is good enough for timeouts, the date header, connections that take too
        long."""
        self.now_s = now_s
        self.date = formatdate(usegmt=True).encode()
        self.refusals.forget_old()
        for connection in tuple(self.connections):
            connection.look_at_time(now_s)
        for connection in choose_unread(self.connections):
            connection.abort("all together do not read their answers, and it has the most")

    def look_if_empty(self) -> None:
        """Sets `empty` once it drains and the last connection has gone."""
        if self.draining and not self.connections:
            self.empty.set()

    def drain(self) -> None:
        """No more requests: idle connections close now, the others after their answers."""
        self.draining = True
        self.look_if_empty()
        for connection in tuple(self.connections):
            connection.drain()
