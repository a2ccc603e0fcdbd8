"""Keeps one replica connected: tries, passes the ring, waits for the end, tries again. A task of `gateway/pool`
each."""

import asyncio
import socket
from typing import Final, cast

from hyperion.gateway.dispatch import ReplicaLink
from hyperion.gateway.replica import Link, Outcomes
from hyperion.gateway.ring import Ring
from hyperion.schema.snapshot import Replica
from hyperion.wire.frame import GREETING

RECONNECT_S: Final = (0.01, 0.02, 0.05, 0.1, 0.25)


async def keep_connected(replica: Replica, slot_bytes: int, outcomes: Outcomes, links: dict[str, Link]) -> None:
    """Holds a link to the replica in `links` whenever there is something to connect to, until cancelled."""
    attempt = 0
    while True:
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if await _connect(replica, slot_bytes, outcomes, links, lost):
            attempt = 0
            await lost
        await asyncio.sleep(RECONNECT_S[min(attempt, len(RECONNECT_S) - 1)])
        attempt += 1


async def _connect(
    replica: Replica, slot_bytes: int, outcomes: Outcomes, links: dict[str, Link], lost: asyncio.Future[None]
) -> bool:
    """Whether the replica could be reached. Neither call blocks: a Unix socket connects at once or not at all."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.connect(replica.socket)
    except OSError:
        connection.close()
        return False  # it is not up yet, or no more: the caller tries again
    ring = Ring(slot_bytes)
    try:
        socket.send_fds(connection, [GREETING], [ring.fd])
    except OSError:
        connection.close()
        ring.close()
        return False
    link = ReplicaLink(replica.name, ring, outcomes, lost)
    outcomes.mind(link)
    links[replica.name] = link
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: cast(asyncio.Protocol, link), sock=connection)
    except BaseException:  # the pool was closed in between
        links.pop(replica.name, None)
        connection.close()
        ring.close()
        raise
    return True
