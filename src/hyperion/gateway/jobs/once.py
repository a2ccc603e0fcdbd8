"""Idempotent calls at the edge: a call that carries an idempotency key runs once, and everybody is told the same.

Called by `gateway/http/jobs` and `gateway/grpc/once`. The order is what counts: the key is taken in the store before
the call runs, and the answer is kept there before the caller is told it. So nothing runs again once it was
acknowledged, whichever process dies when.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from hyperion.gateway.jobs.desk import Desk
from hyperion.policy.idempotency import LEASE_S, is_final, make_lasting
from hyperion.policy.jobs import RENEW_S
from hyperion.schema.errors import Conflict, HyperionError, InternalError, KeyReused
from hyperion.schema.job import (
    MAX_PAYLOAD_BYTES,
    Abandon,
    Begin,
    Begun,
    Complete,
    Held,
    HeldKey,
    Kept,
    KeyScope,
    Lost,
    Renew,
    StoredAnswer,
)
from hyperion.telemetry.logs import EventLog

LONGEST_S: Final = 86_400.0
TOO_LARGE: Final = b'{"error":"this call was answered, but its answer was too large to be kept for a second time"}'

Execute = Callable[[str], Awaitable[StoredAnswer]]


class Once:
    """The idempotent calls, and the jobs, that this gateway runs, whose leases it keeps."""

    def __init__(self, desk: Desk, log: EventLog) -> None:
        self._desk = desk
        self._log = log
        self._keys: dict[str, HeldKey] = {}
        self._jobs: dict[Held, Callable[[], object]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, scope: KeyScope, fingerprint: str, timeout_s: float, execute: Execute
    ) -> tuple[StoredAnswer, bool]:
        """The answer to a call, and whether it was given before. `execute` runs it; it is given a name that is the
        same for all attempts at this call, and raises what is no final outcome.

        Raises Conflict while another attempt runs, KeyReused for another payload, and NotReady where the store cannot
        be reached within `timeout_s`.
        """
        token = secrets.token_hex(16)
        begun = await self._desk.ask(Begin(scope, fingerprint, token), timeout_s)
        if not isinstance(begun, Begun):
            raise InternalError("control gave no answer to the request")
        if begun.decision == "mismatch":
            raise KeyReused(
                "this idempotency-key was used for another request to this endpoint; take a new key for a new request"
            )
        if begun.decision == "in-progress":
            raise Conflict("a request with this idempotency-key is still running; ask again", retry_after_s=1.0)
        if begun.decision == "replay" and begun.answer is not None:
            return begun.answer, True
        self._keys[token] = HeldKey(scope, token)
        try:
            answer = await execute(begun.origin)
        except BaseException:
            self._let_go(scope, token)
            raise
        if not is_final(answer.status):
            self._let_go(scope, token)
            return answer, False
        return await self._keep(scope, token, answer, timeout_s), False

    def hold(self, job: Held, lost: Callable[[], object]) -> None:
        """Keeps the job's lease; `lost` is called when somebody else has taken it."""
        self._jobs[job] = lost

    def release(self, job: Held) -> None:
        """The job's lease need not be kept any more."""
        self._jobs.pop(job, None)

    async def keep_leases(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(RENEW_S)
            if not self._keys and not self._jobs:
                continue
            try:
                told = await self._desk.ask(Renew(tuple(self._keys.values()), tuple(self._jobs)), LEASE_S)
            except HyperionError as error:
                self._log.write("warning", "leases not kept", error=error.message)
                continue
            for job in told.jobs if isinstance(told, Lost) else ():
                lost = self._jobs.pop(job, None)
                if lost is not None:
                    lost()

    async def _keep(self, scope: KeyScope, token: str, answer: StoredAnswer, timeout_s: float) -> StoredAnswer:
        kept = make_lasting(answer)
        if len(answer.body) + len(answer.trailers) > MAX_PAYLOAD_BYTES:
            kept = StoredAnswer(409, (("content-type", "application/json"),), TOO_LARGE)
        keeping = asyncio.ensure_future(self._desk.ask(Complete(scope, token, kept), LONGEST_S))
        keeping.add_done_callback(lambda _: self._keys.pop(token, None))
        try:
            # Should this caller not wait for it, the next one will find the answer: it is tried on.
            async with asyncio.timeout(timeout_s):
                written = await asyncio.shield(keeping)
        except TimeoutError:
            message = "the request ran, but its outcome is not in the store yet; ask again with the same key"
            raise Conflict(message, retry_after_s=1.0) from None
        if not isinstance(written, Kept) or not written.held:
            raise Conflict("another attempt with this idempotency-key has taken over; ask again", retry_after_s=1.0)
        return answer

    def _let_go(self, scope: KeyScope, token: str) -> None:
        """Lets the next attempt run, as soon as the store knows."""

        async def abandon() -> None:
            with contextlib.suppress(HyperionError):  # its lease ends in any case
                await self._desk.ask(Abandon(scope, token), LEASE_S)

        self._keys.pop(token, None)
        task = asyncio.get_running_loop().create_task(abandon())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
