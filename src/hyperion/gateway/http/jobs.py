"""Requests over HTTP that are more than a question and an answer: with an idempotency key, or to be answered later.

`gateway/http/routes` hands over inference requests that carry `idempotency-key` or `prefer: respond-async`, and those
for `/v2/jobs`. The request itself runs as it always does, on an exchange whose answer is taken down.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import orjson

from hyperion.gateway.front.caller import Caller, Peer
from hyperion.gateway.front.guard import Visit
from hyperion.gateway.http.exchange import JSON, Exchange
from hyperion.gateway.http.known import clean_id
from hyperion.gateway.http.targets import Target
from hyperion.gateway.jobs.desk import Desk
from hyperion.gateway.jobs.once import Once
from hyperion.gateway.jobs.recorder import Recorder, write_answer
from hyperion.gateway.pipeline import Pipeline
from hyperion.policy.idempotency import read_key
from hyperion.schema.errors import Conflict, InternalError, MalformedRequest, NotFound, TooLarge, Unsupported
from hyperion.schema.job import (
    MAX_PAYLOAD_BYTES,
    OVER,
    Cancel,
    Fields,
    JobView,
    KeyScope,
    Look,
    Seen,
    StoredAnswer,
    StoredRequest,
    Submission,
    Submit,
)
from hyperion.schema.protect import Jobs

KEY: Final = b"idempotency-key"
PREFER: Final = b"prefer"
CALLBACK: Final = b"x-hyperion-callback"
ROUTES: Final = frozenset(("infer", "predict", "generate", "invocations"))
REQUEST_ID: Final = b"x-request-id"
KEPT_HEADERS: Final = (
    *(b"content-type", b"inference-header-content-length", REQUEST_ID),
    *(b"traceparent", b"tracestate", b"x-hyperion-priority"),
)
MAX_URL: Final = 2048
PATIENCE_S: Final = 30.0  # where the request says nothing
PRIORITY: Final = 9
REPLAYED: Final = (("idempotency-replayed", "true"),)

Handle = Callable[[Exchange, Target], None]
Identify = Callable[[Mapping[bytes, bytes], Peer], Caller]


class HttpJobs:
    """`identify` says who asks, `jobs_of(endpoint)` how its jobs are worked off."""

    def __init__(
        self, pipeline: Pipeline, desk: Desk, once: Once, identify: Identify, jobs_of: Callable[[str], Jobs]
    ) -> None:
        self._pipeline = pipeline
        self._desk = desk
        self._once = once
        self._identify = identify
        self._jobs_of = jobs_of

    @staticmethod
    def wants(exchange: Exchange, target: Target) -> bool:
        """Whether this inference is to be answered later, or carries a key. Raises Unsupported for a stream."""
        keyed = KEY in exchange.headers
        later = prefers_async(exchange.headers.get(PREFER, b""))
        if (keyed or later) and target.route not in ROUTES:
            if keyed and target.route == "generate_stream":
                raise Unsupported("a stream cannot be kept under an idempotency-key; use generate")
            return False
        return keyed or later

    async def serve(self, exchange: Exchange, target: Target, handle: Handle, timeout_s: float) -> None:
        """Answers the exchange, now or with where the answer will be. `handle` is what runs the request."""
        headers, peer = exchange.headers, exchange.connection.peer
        model = target.model or self._only_model()
        exchange.model = model
        pool = self._pipeline.find(model, target.version, headers, peer)
        visit = exchange.visit
        if visit is None and pool.guard is not None:
            visit = pool.guard.enter(headers, peer)
        tenant = self._identify(headers, peer).tenant
        later = prefers_async(headers.get(PREFER, b""))

        async def execute(origin: str) -> StoredAnswer:
            if later:
                return await self._submit(exchange, model, tenant, origin, timeout_s)
            return await self._run(exchange, target, visit, handle)

        key = headers.get(KEY)
        if key is None:
            answer, replayed = await execute(secrets.token_hex(16)), False
        else:
            scope = KeyScope(tenant, model, read_key(key))
            answer, replayed = await self._once.run(scope, _fingerprint(exchange), timeout_s, execute)
        limits = _limits_of(visit) if replayed or later else ()  # otherwise the answer says them already
        extra = REPLAYED + limits if replayed else limits
        exchange.connection.finish(exchange, write_answer(answer, exchange, exchange.connection.edge.date, extra))

    async def look(self, exchange: Exchange, target: Target, timeout_s: float) -> None:
        """`/v2/jobs/ID` and `/v2/jobs/ID/result`: how far the job is, its answer, or (DELETE) its end. To anybody but
        its owner it is not there."""
        tenant = self._identify(exchange.headers, exchange.connection.peer).tenant
        job_id = target.model
        whole = target.route == "job_result"
        delete = exchange.method == b"DELETE"
        seen = await self._desk.ask(Cancel(tenant, job_id) if delete else Look(tenant, job_id, whole), timeout_s)
        if not isinstance(seen, Seen):
            raise InternalError("control gave no answer to the request")
        if seen.job is None:
            raise NotFound(f'there is no job "{job_id[:64]}", or not any more')
        if whole:
            self._give(exchange, seen.job, seen.answer)
        else:
            exchange.respond(200, JSON, orjson.dumps(describe(seen.job)))

    def _give(self, exchange: Exchange, job: JobView, answer: StoredAnswer | None) -> None:
        if answer is None:
            if job.state in OVER:
                raise Conflict(f"the job is {job.state} and has no answer: {job.reason or 'none was kept'}")
            raise Conflict(f"the job is {job.state}; ask again", retry_after_s=1.0)
        extra = (("x-hyperion-job", job.id),)
        exchange.connection.finish(exchange, write_answer(answer, exchange, exchange.connection.edge.date, extra))

    async def _run(self, exchange: Exchange, target: Target, visit: Visit | None, handle: Handle) -> StoredAnswer:
        """The answer of a request that goes on though its caller leaves: he may come back with the same key."""
        answered: asyncio.Future[StoredAnswer] = asyncio.get_running_loop().create_future()
        connection = exchange.connection
        inner = Exchange(
            Recorder(connection.edge, connection.peer, answered.set_result),
            exchange.method,
            exchange.path,
            exchange.headers,
            exchange.received_ns,
            exchange.request_id,
            exchange.body,
        )
        inner.visit = visit
        handle(inner, target)
        return await answered

    async def _submit(
        self, exchange: Exchange, endpoint: str, tenant: str, origin: str, timeout_s: float
    ) -> StoredAnswer:
        headers = exchange.headers
        if len(exchange.body) > MAX_PAYLOAD_BYTES:
            raise TooLarge(f"a job's body of {len(exchange.body)} bytes is over the limit of {MAX_PAYLOAD_BYTES}")
        kept = [(name.decode(), headers[name].decode("latin-1")) for name in KEPT_HEADERS if name in headers]
        if clean_id(headers.get(REQUEST_ID, b"")) == "":
            kept = [one for one in kept if one[0] != REQUEST_ID.decode()]  # it would be the id of the prediction
        request = StoredRequest("POST", exchange.path.decode("latin-1"), tuple(kept), bytes(exchange.body))
        jobs = self._jobs_of(endpoint)
        submission = Submission(
            origin,
            tenant,
            endpoint,
            request,
            _priority(headers),
            jobs.attempts,
            jobs.backoff_s,
            jobs.ttl_s,
            jobs.timeout_s,
            _callback(headers),
        )
        await self._desk.ask(Submit(submission), timeout_s)
        location = f"/v2/jobs/{origin}"
        body = orjson.dumps({"id": origin, "state": "queued", "location": location})
        fields = (
            ("x-request-id", exchange.request_id),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("location", location),
            ("preference-applied", "respond-async"),
        )
        return StoredAnswer(202, fields, body)

    def _only_model(self) -> str:
        models = self._pipeline.models()
        return models[0] if len(models) == 1 else ""  # the pipeline says what is wrong with that


def _limits_of(visit: Visit | None) -> Fields:
    """What the caller may still ask for, said anew where an answer is told again."""
    given = () if visit is None else visit.limits()
    return tuple([(name.decode(), value.decode()) for name, value in given])


def prefers_async(given: bytes) -> bool:
    """Whether a `prefer` header (RFC 7240) asks for an answer later.

    >>> prefers_async(b"wait=10, respond-async"), prefers_async(b"return=minimal"), prefers_async(b"")
    (True, False, False)
    """
    return b"respond-async" in [part.partition(b";")[0].strip().lower() for part in given.split(b",")]


def describe(job: JobView) -> dict[str, object]:
    """A job as its owner sees it. Times are seconds since 1970, null for not yet."""
    location = f"/v2/jobs/{job.id}"
    view: dict[str, object] = {
        "id": job.id,
        "endpoint": job.endpoint,
        "state": job.state,
        "attempts": job.attempts,
        "created_at": job.created_at,
        "started_at": job.started_at or None,
        "finished_at": job.finished_at or None,
        "expires_at": job.expires_at,
        "location": location,
        "result": {"status": job.status, "location": f"{location}/result"} if job.status else None,
        "reason": job.reason,
    }
    if job.callback:
        view["callback"] = {
            "state": job.delivery or "waiting",
            "attempts": job.delivery_attempts,
            "reason": job.delivery_reason,
        }
    return view


def _fingerprint(exchange: Exchange) -> str:
    """The digest of what makes this request what it is."""
    headers = exchange.headers
    digest = hashlib.sha256()
    for part in (exchange.path, *[headers.get(name, b"") for name in KEPT_HEADERS[:2]], headers.get(PREFER, b"")):
        digest.update(b"%d:%b" % (len(part), part))
    digest.update(exchange.body)
    return digest.hexdigest()


def _priority(headers: dict[bytes, bytes]) -> int:
    given = headers.get(b"x-hyperion-priority")
    if given is None:
        return PRIORITY
    if len(given) != 1 or not given.isdigit():
        raise MalformedRequest('header "x-hyperion-priority": expected a number from 0 to 9')
    return int(given)


def _callback(headers: dict[bytes, bytes]) -> str:
    """The URL that is to hear of the end. Where it may lie is looked at when it is called."""
    given = headers.get(CALLBACK, b"").decode("latin-1").strip()
    if not given:
        return ""
    try:
        url = urlsplit(given)
        fits = url.scheme in ("https", "http") and bool(url.hostname) and url.port != 0
    except ValueError:
        fits = False
    if (
        not fits
        or len(given) > MAX_URL
        or not (given.isascii() and given.isprintable())
        or " " in given
        or "@" in url.netloc
    ):
        raise MalformedRequest(
            f'header "x-hyperion-callback": expected an https:// URL without a password of at most {MAX_URL} characters'
        )
    return given
