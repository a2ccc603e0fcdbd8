"""Run the management API on uvicorn, in the control process's event loop, on the socket that the supervisor bound."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from hyperion.api.app import make_app
from hyperion.api.records import Management
from hyperion.api.token import ensure_token
from hyperion.schema.config import ControlConfig

TICK_S = 1.0
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class EmbeddedServer(uvicorn.Server):
    """A server that leaves signals to the process it lives in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def main_loop(self) -> None:
        """Keep the date true: uvicorn's own loop wakes an idle process ten times as often."""
        while not await self.on_tick(0):  # noqa: ASYNC110  the date changes by itself
            await asyncio.sleep(TICK_S)


async def serve(management: Management, config: ControlConfig) -> None:
    """Serve until cancelled."""
    names = (*_LOCAL_NAMES, config.admin_host, socket.gethostname(), *config.admin_names)
    app = make_app(management, ensure_token(Path(config.home)), names)
    server = EmbeddedServer(
        uvicorn.Config(
            app,
            host=config.admin_host,
            port=config.admin_port,
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            limit_concurrency=256,
            timeout_graceful_shutdown=2,
        )
    )
    sockets = None if config.admin_fd is None else [socket.socket(fileno=config.admin_fd)]
    try:
        await server.serve(sockets)
    except asyncio.CancelledError:
        server.should_exit = True
        raise
