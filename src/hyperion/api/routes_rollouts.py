"""`/api/v1/rollouts`: how releases go on, commands to them, and a stream of what changes."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from hyperion.api.callers import Deployer, Reader
from hyperion.api.records import Management, desk_of
from hyperion.api.records_endpoints import (
    ENDED,
    CommandRequest,
    CommandView,
    RolloutView,
    Verb,
    view_rollout,
)
from hyperion.schema.errors import GateRefused, HyperionError

ANSWER_S: Final = 30.0  # a command that the loop has not answered by then is answered without its outcome
LOOK_S: Final = 0.25  # how often a watched rollout is looked at
BEAT_S: Final = 10.0  # a comment this often keeps proxies from closing a quiet stream
RECENT_S: Final = 1.0
REFUSED: Final = "refused:"
Name = Annotated[str, Path(description="name of the endpoint", max_length=128)]
Before = Annotated[
    str,
    Query(description="id of a rollout that is over: go on until a later one ends (see deploy)", max_length=128),
]


def add_rollout_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    async def look(endpoint: str) -> RolloutView:
        row = await run_in_threadpool(desk_of(management).get_rollout, endpoint)
        if row.state is not None and 0.0 <= time.time() - row.state.ended_at < RECENT_S:
            # The decision is in the store a moment before the gateways have it; who reads of the end may ask them next.
            await management.follow(endpoint)
        return view_rollout(row, desk_of(management).counts(endpoint))

    @router.get("/rollouts/{endpoint}")
    async def get_rollout(endpoint: Name, _caller: Reader) -> RolloutView:
        """How far the endpoint's release is, with the evidence per metric."""
        return await look(endpoint)

    @router.get(
        "/rollouts/{endpoint}/watch",
        response_class=StreamingResponse,
        responses={200: {"description": "server-sent events: `status` with a RolloutView each, `end` with the last"}},
    )
    async def watch_rollout(endpoint: Name, _caller: Reader, after: Before = "") -> StreamingResponse:
        """A status at once and after each change, until the rollout ends."""
        first = await look(endpoint)  # before the stream begins, so that an unknown endpoint is a plain 404

        async def stream() -> AsyncIterator[str]:
            view, said, beat = first, "", time.monotonic()
            while True:
                text = view.model_dump_json(by_alias=True)
                over = view.state in ENDED and (not after or view.rollout_id not in ("", after))
                if over:
                    yield f"event: end\ndata: {text}\n\n"
                    return
                if text != said:
                    yield f"event: status\ndata: {text}\n\n"
                    said, beat = text, time.monotonic()
                elif time.monotonic() - beat > BEAT_S:
                    yield ": still here\n\n"
                    beat = time.monotonic()
                await asyncio.sleep(LOOK_S)
                try:
                    view = await look(endpoint)
                except HyperionError as error:
                    yield f"event: error\ndata: {error.message}\n\n"
                    return

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    @router.post("/rollouts/{endpoint}/{verb}")
    async def command_rollout(
        endpoint: Name, verb: Verb, caller: Deployer, body: CommandRequest | None = None
    ) -> CommandView:
        """Give the rollout a command; answers when it is obeyed and every gateway knows, or says why not (409)."""
        reason = body.reason if body is not None else ""
        desk = desk_of(management)
        number = await run_in_threadpool(lambda: desk.command(endpoint, verb, actor=caller.name, reason=reason))
        outcome = await _wait_for_outcome(management, number)
        if outcome is not None and outcome.startswith(REFUSED):
            raise GateRefused(f"{verb} {endpoint}: {outcome.removeprefix(REFUSED).strip()}")
        await management.follow(endpoint)
        return CommandView(endpoint=endpoint, verb=verb, outcome=outcome, rollout=await look(endpoint))


async def _wait_for_outcome(management: Management, number: int) -> str | None:
    """The loop answers within milliseconds; where it is busy or gone, asking less and less often costs it nothing."""
    pause_s, deadline = 0.005, time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        outcome = await run_in_threadpool(desk_of(management).outcome_of, number)
        if outcome is not None:
            return outcome
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.2)
    return None
