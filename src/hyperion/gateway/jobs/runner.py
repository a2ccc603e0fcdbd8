"""Where jobs run: fetches them from control, runs each as the request that it is, and reports what came of it.

Made by `gateway/process`. As many run at a time as the platform has room for: fewer where it refuses for load, so that
those who wait for an answer go first. A gateway that dies holds its jobs for the rest of their lease and no longer.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from hyperion.gateway.front.caller import UNKNOWN_PEER
from hyperion.gateway.front.guard import Visit
from hyperion.gateway.http.exchange import Dated, Exchange
from hyperion.gateway.jobs.desk import RETRY_S, Desk
from hyperion.gateway.jobs.once import Once
from hyperion.gateway.jobs.recorder import Recorder
from hyperion.policy.idempotency import make_lasting
from hyperion.policy.jobs import adapt, classify
from hyperion.policy.redact import Redaction, redact_text
from hyperion.schema.errors import HyperionError, MalformedRequest
from hyperion.schema.job import MAX_PAYLOAD_BYTES, ClaimedJob, Finish, Held, StoredAnswer
from hyperion.telemetry.logs import EventLog
from hyperion.wire.link import Claim, Decoder, Work, encode

START_WINDOW: Final = 8.0
REPORT_S: Final = 3600.0  # how long a finished job is tried to be written down: its lease is kept as long
MAX_REASON: Final = 300
_READ_BYTES: Final = 1 << 18
TOO_LARGE: Final = StoredAnswer(
    507, (("content-type", "application/json"),), b'{"error":"the answer was too large to be kept"}'
)

Serve = Callable[[Exchange], None]
VisitOf = Callable[[ClaimedJob], Visit | None]


class JobRunner:
    """`serve` runs an exchange and never raises; `visit_of` lets a job in as its tenant; `redaction_of` says what of an
    endpoint's values is not kept; `clock_ns` is monotonic."""

    def __init__(
        self,
        socket_path: Path,
        desk: Desk,
        once: Once,
        serve: Serve,
        visit_of: VisitOf,
        redaction_of: Callable[[str], Redaction],
        edge: Dated,
        clock_ns: Callable[[], int],
        log: EventLog,
    ) -> None:
        self._socket_path = socket_path
        self._desk = desk
        self._once = once
        self._serve = serve
        self._visit_of = visit_of
        self._redaction_of = redaction_of
        self._edge = edge
        self._clock_ns = clock_ns
        self._log = log
        self._window = START_WINDOW
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._running: dict[Held, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Fetches and runs jobs, for ever."""
        attempt = 0
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
                attempt = 0
                try:
                    await self._fetch(reader, writer)
                finally:
                    writer.close()
            except (OSError, HyperionError):
                # Control is away: what runs goes on, and is reported once control is back.
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1

    async def drain(self) -> None:
        """Returns when no job runs any more. Nothing fetches new ones: `run` was cancelled."""
        await self._idle.wait()

    async def _fetch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder()
        while True:
            most = int(self._window) - len(self._running)
            if most < 1:
                self._room.clear()
                await self._room.wait()
                continue
            writer.write(encode(Claim(most)))
            for job in await _read(reader, decoder):
                self._start(job)

    def _start(self, job: ClaimedJob) -> None:
        held = Held(job.id, job.fence)
        self._idle.clear()
        task = asyncio.get_running_loop().create_task(self._attempt(job, held))
        self._running[held] = task
        self._once.hold(held, task.cancel)
        task.add_done_callback(lambda _: self._ended(held))

    def _ended(self, held: Held) -> None:
        self._once.release(held)
        self._running.pop(held, None)
        self._room.set()
        if not self._running:
            self._idle.set()

    async def _attempt(self, job: ClaimedJob, held: Held) -> None:
        """One attempt at a job, to its report. It is cancelled when the job is not ours any more."""
        visit = self._visit_of(job)
        answer, says_when = await self._run(job, visit)
        counted = visit is not None and visit.started
        told_s = _told_s(answer) if says_when else 0.0
        answer = make_lasting(answer)
        kind = classify(answer.status, says_when)
        reason = ""
        if kind != "done":  # it quotes what was asked, and is read by more people than the one who asked
            said = answer.body.decode("utf-8", "replace")
            reason = self._redaction_of(job.endpoint).refusal(str(answer.status), f"{answer.status}: {said}")
            reason = reason[:MAX_REASON]
            answer = replace(answer, body=redact_text(said).encode())
        if len(answer.body) > MAX_PAYLOAD_BYTES:
            kind, reason, answer = "failed", f"its answer is over the limit of {MAX_PAYLOAD_BYTES} bytes", TOO_LARGE
        self._window = adapt(self._window, kind, told_s)
        finish = Finish(held, kind, reason, None if kind == "busy" else answer, counted, told_s)
        try:
            await self._desk.ask(finish, REPORT_S)
        except HyperionError as error:
            self._log.write("error", "job not reported", job=job.id, error=error.message)

    async def _run(self, job: ClaimedJob, visit: Visit | None) -> tuple[StoredAnswer, bool]:
        """The answer, and whether it is a refusal that says when to come back."""
        answered: asyncio.Future[StoredAnswer] = asyncio.get_running_loop().create_future()

        def done(answer: StoredAnswer) -> None:
            if not answered.done():
                answered.set_result(answer)

        headers = {name.encode("latin-1"): value.encode("latin-1") for name, value in job.request.headers}
        headers.setdefault(b"x-request-id", job.id.encode())
        headers[b"x-hyperion-priority"] = b"%d" % job.priority
        headers[b"x-request-timeout-ms"] = b"%d" % max(1, min(86_400_000, int(job.timeout_s * 1000)))
        exchange = Exchange(
            Recorder(self._edge, UNKNOWN_PEER, done),
            job.request.method.encode("latin-1"),
            job.request.path.encode("latin-1"),
            headers,
            self._clock_ns(),
            headers[b"x-request-id"].decode("latin-1"),
            job.request.body,
        )
        exchange.visit = visit
        try:
            self._serve(exchange)
            return await answered, exchange.says_when
        finally:
            if exchange.pending is not None:
                exchange.pending.cancel()  # does nothing, unless the job was taken from us


def _told_s(answer: StoredAnswer) -> float:
    """In how many seconds it says to come back."""
    told = dict(answer.headers).get("retry-after", "")
    return float(told) if told.isdigit() else 0.0


async def _read(reader: asyncio.StreamReader, decoder: Decoder) -> tuple[ClaimedJob, ...]:
    while data := await reader.read(_READ_BYTES):
        for message in decoder.feed(data):
            if not isinstance(message, Work):
                raise MalformedRequest("control did not answer a claim")
            return message.jobs
    raise ConnectionResetError("control closed the link")
