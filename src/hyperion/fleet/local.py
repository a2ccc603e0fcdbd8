"""The client of the supervisor: start, stop and list children. Called by the control loop."""

import asyncio
from pathlib import Path

from hyperion.fleet.messages import (
    HEADER_BYTES,
    Answer,
    Children,
    ChildSpec,
    List,
    Refused,
    Request,
    Start,
    Stop,
    body_bytes,
    decode_answer,
    encode,
)
from hyperion.schema.errors import InternalError


class LocalFleet:
    """Replicas as processes of the supervisor at `path`. Each call uses a connection of its own, so that a waiting
    `watch` delays no `start`. All raise OSError where the supervisor cannot be reached."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def start(self, child: ChildSpec) -> None:
        """Start this child unless one of its name is there. Raises `InternalError` where that is refused."""
        answer = await self._ask(Start(child))
        if isinstance(answer, Refused):
            raise InternalError(answer.error)

    async def stop(self, name: str, grace_s: float) -> None:
        """SIGTERM, SIGKILL after `grace_s`; returns at once. No such child is fine."""
        await self._ask(Stop(name, grace_s))

    async def watch(self, since: int = -1, wait_s: float = 0.0) -> Children:
        """All children, once something changed since that revision or `wait_s` have passed."""
        answer = await self._ask(List(since, wait_s), wait_s)
        if not isinstance(answer, Children):
            raise InternalError(f"the supervisor answered a list with {type(answer).__name__}")
        return answer

    async def _ask(self, request: Request, wait_s: float = 0.0) -> Answer:
        async with asyncio.timeout(wait_s + 10.0):
            reader, writer = await asyncio.open_unix_connection(str(self._path))
            try:
                writer.write(encode(request))
                header = await reader.readexactly(HEADER_BYTES)
                return decode_answer(await reader.readexactly(body_bytes(header)))
            except asyncio.IncompleteReadError as error:
                raise ConnectionResetError("the supervisor closed the connection") from error
            finally:
                writer.close()
