"""What each HTTP route does with a request that has arrived whole. Called by `gateway/http`, once per request.

Inference routes decode the body, hand the call to the pipeline and return; the exchange is the reply. Decoding comes
after the look at the queue, so that an overloaded model costs little, and before batching, so that one bad request
fails alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import orjson

from hyperion import __version__
from hyperion.gateway.front.caller import ANONYMOUS
from hyperion.gateway.http.exchange import JSON, Exchange
from hyperion.gateway.http.inflate import inflate
from hyperion.gateway.http.jobs import KEY, PATIENCE_S, PREFER, HttpJobs
from hyperion.gateway.http.refusals import PRIORITY, PROTOCOL, TIMEOUT, Refusals
from hyperion.gateway.http.repeats import Repeats
from hyperion.gateway.http.targets import Target, parse_path
from hyperion.gateway.pipeline import Pipeline
from hyperion.gateway.pool import VersionPool
from hyperion.schema.call import InferenceCall
from hyperion.schema.errors import (
    HyperionError,
    InternalError,
    MalformedRequest,
    MethodNotAllowed,
    NotReady,
    Overloaded,
    TooLarge,
    UnknownModel,
    UnknownRoute,
)
from hyperion.telemetry.logs import EventLog
from hyperion.wire.generate import decode_generate, encode_generate
from hyperion.wire.invocations import decode_invocations
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.json import decode_infer
from hyperion.wire.oip.metadata import (
    decode_index_request,
    decode_repository_parameters,
    encode_index,
    encode_model_metadata,
    encode_server_metadata,
)
from hyperion.wire.sse import encode_event
from hyperion.wire.v1 import decode_predict, encode_predict

MAX_TARGETS: Final = 4096
MAX_REMEMBERED_BYTES: Final = 256  # of a path; longer ones are parsed each time
MAX_TIMEOUT_MS: Final = 86_400_000
POSTS: Final = frozenset(
    ("infer", "predict", "generate", "generate_stream", "invocations", "index", "load", "unload")
)  # fmt: skip
REPOSITORY: Final = {"index": "", "load": "deploy", "unload": "deploy"}  # POSTs that are no inference, and their scopes

Scrape = Callable[[], Awaitable[bytes]]
Handler = Callable[[Exchange, Target], None]


class HttpRoutes:
    """`scrape` gives the metrics of all workers as Prometheus text."""

    def __init__(self, pipeline: Pipeline, limits: WireLimits, scrape: Scrape, log: EventLog) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._scrape = scrape
        self._log = log
        self._repeats = Repeats(pipeline)
        self.refusals = Refusals(pipeline.refused_again)
        self.jobs: HttpJobs | None = None  # where nothing is remembered
        self._targets: dict[bytes, Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Handler] = {
            "infer": self._infer,
            "predict": self._predict,
            "generate": self._generate,
            "generate_stream": self._generate_stream,
            "invocations": self._invocations,
            "root": self._root,
            "server": self._for("", self._server),
            "job": self._for("", self._job),
            "job_result": self._for("", self._job),
            "live": self._live,
            "ready": self._ready,
            "models": self._for("", self._models),
            "v1_models": self._for("", self._models),
            "model": self._model,
            "model_ready": self._model_ready,
            "v1_model": self._v1_model,
            "ping": self._ping,
            "index": self._for(REPOSITORY["index"], self._index),
            "load": self._for(REPOSITORY["load"], self._load),
            "unload": self._for(REPOSITORY["unload"], self._load),
            "metrics": self._for("read", self._metrics),
        }

    def serve(self, exchange: Exchange) -> None:
        """Answers the exchange, now or later. Never raises: an error is the answer."""
        try:
            target = self._targets.get(exchange.path)
            if target is None:
                target = self._remember(exchange.path)
            method = exchange.method
            if target.route in POSTS:
                if method != b"POST":
                    raise _not_allowed(method, "POST")
            elif method != b"GET" and method != b"HEAD" and (target.route != "job" or method != b"DELETE"):
                raise _not_allowed(method, "GET, HEAD, DELETE" if target.route == "job" else "GET, HEAD")
            exchange.model = target.model
            encoding = exchange.headers.get(b"content-encoding")
            if encoding is not None and target.route in POSTS:
                self._let_in(exchange, target)  # before it costs anything to unpack
                limits = self._limits
                most = limits.max_body_bytes
                if not _takes_views(exchange, target):  # more text would be refused once it is there
                    most = min(most, limits.max_text_bytes)
                exchange.body = inflate(exchange.body, encoding, most)
            elif type(exchange.body) is not bytes and not _takes_views(exchange, target):
                exchange.body = bytes(exchange.body)  # what reads JSON wants it so; binary tensors stay where they are
            if len(exchange.body) > self._limits.max_text_bytes:
                self._check_text(exchange, target)
            handle = self._handlers[target.route]
            headers = exchange.headers
            if (KEY in headers or PREFER in headers) and self.jobs is not None and self.jobs.wants(exchange, target):
                self._later(exchange, self.jobs.serve(exchange, target, handle, _patience_s(exchange)))
            else:
                handle(exchange, target)
        except HyperionError as error:
            self.refuse(exchange, error)
        except Exception as error:  # a bug of ours must cost this request only
            self._log.write("error", "request failed", request_id=exchange.request_id, error=repr(error))
            self.refuse(exchange, InternalError(f"an internal error; quote request id {exchange.request_id}"))

    def _for(self, scope: str, handler: Handler) -> Handler:
        """The handler, for those who have shown who they are and have the scope, where that is required at all."""

        def guarded(exchange: Exchange, target: Target) -> None:
            self._pipeline.check_right(scope, exchange.headers, exchange.connection.peer)
            handler(exchange, target)

        return guarded

    def _let_in(self, exchange: Exchange, target: Target) -> None:
        """Refuses a POST of somebody who may not ask for anything there."""
        scope = REPOSITORY.get(target.route)
        if scope is not None:
            self._pipeline.check_right(scope, exchange.headers, exchange.connection.peer)
        else:
            exchange.model = target.model or self._only_model()
            self._enter(exchange, exchange.model, target.version)

    def _check_text(self, exchange: Exchange, target: Target) -> None:
        """Raises TooLarge where more text would have to be parsed than the other connections can wait for."""
        size, most = len(exchange.body), self._limits.max_text_bytes
        if _takes_views(exchange, target):
            size = _number(
                exchange.headers[b"inference-header-content-length"], "inference-header-content-length", size
            )
        if size > most:
            raise TooLarge(
                f"{size} bytes of JSON or CSV are over the limit of {most}; send large tensors with the binary "
                "extension (Inference-Header-Content-Length) or over gRPC"
            )

    def refuse(self, exchange: Exchange, error: HyperionError) -> None:
        """Records and answers a request that never became a call."""
        self.record_refusal(exchange, error)
        exchange.fail(error)

    def record_refusal(self, exchange: Exchange, error: HyperionError) -> None:
        """For `gateway/http`, which answers itself what did not arrive whole."""
        caller = ANONYMOUS if exchange.visit is None else exchange.visit.caller
        self._pipeline.refused(PROTOCOL, exchange.model, exchange.request_id, exchange.received_ns, error, caller)

    def _remember(self, path: bytes) -> Target:
        target = parse_path(path)
        if len(path) > MAX_REMEMBERED_BYTES:
            return target
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        self._targets[path] = target
        return target

    # --- inference ---

    def _infer(self, exchange: Exchange, target: Target) -> None:
        pool = self._enter(exchange, target.model, target.version)
        length = exchange.headers.get(b"inference-header-content-length")
        if exchange.visit is not None and exchange.visit.guard.cache is not None:
            _timeout_ns(exchange)  # what is wrong with the headers is wrong with a repeated request, too
            _priority(exchange)
            if self._repeats.answer(exchange, pool, length or b""):
                return
        self._check_queue(exchange, pool)
        body = exchange.body
        call, exchange.format = decode_infer(
            target.model,
            target.version,
            exchange.body,
            None if length is None else _number(length, "inference-header-content-length", len(exchange.body)),
            self._limits,
            pool.nulls,
        )
        self._submit(exchange, pool, call)
        self._repeats.learn(exchange, pool, length or b"", body)

    def _predict(self, exchange: Exchange, target: Target) -> None:
        pool = self._find(exchange, target.model, target.version)
        exchange.encode = encode_predict
        call = decode_predict(target.model, "", exchange.body, pool.served.signature, self._limits, pool.nulls)
        self._submit(exchange, pool, call)

    def _generate(self, exchange: Exchange, target: Target) -> None:
        pool = self._find(exchange, target.model, target.version)
        exchange.encode = encode_generate
        call = decode_generate(
            target.model, target.version, exchange.body, pool.served.signature, self._limits, pool.nulls
        )
        self._submit(exchange, pool, call)

    def _generate_stream(self, exchange: Exchange, target: Target) -> None:
        pool = self._find(exchange, target.model, target.version)
        exchange.chunked = exchange.connection.http_11
        # A model that does not stream answers with a stream of one.
        exchange.encode_event = lambda answer: encode_event(encode_generate(answer)) if answer.outputs else b""
        call = decode_generate(
            target.model, target.version, exchange.body, pool.served.signature, self._limits, pool.nulls
        )
        self._submit(exchange, pool, call, stream=pool.served.signature.streams)

    def _invocations(self, exchange: Exchange, _target: Target) -> None:
        model = self._only_model()
        exchange.model = model
        pool = self._find(exchange, model, "")
        exchange.encode = encode_predict
        media = exchange.headers.get(b"content-type", b"").decode("latin-1")
        signature = pool.served.signature
        call = decode_invocations(model, "", exchange.body, media, signature, self._limits, pool.nulls)
        self._submit(exchange, pool, call)

    def _find(self, exchange: Exchange, model: str, version: str) -> VersionPool:
        """The pool that will answer. Before the body costs anything, refuses who may not ask and what would be answered
        too late."""
        pool = self._enter(exchange, model, version)
        self._check_queue(exchange, pool)
        return pool

    def _enter(self, exchange: Exchange, model: str, version: str) -> VersionPool:
        """The pool that will answer. Refuses who may not ask."""
        pool = self._pipeline.find(model, version, exchange.headers, exchange.connection.peer)
        if pool.guard is not None and exchange.visit is None:
            exchange.visit = pool.guard.enter(exchange.headers, exchange.connection.peer)
        return pool

    def _check_queue(self, exchange: Exchange, pool: VersionPool) -> None:
        """Refuses what would be answered too late, and by nobody else."""
        if pool.wait_matters and not (pool.guard is not None and pool.guard.has_fallback):
            try:
                priority = _priority(exchange) or 0
                timeout_ns = _timeout_ns(exchange)
                self._pipeline.check_queue(pool, timeout_ns, exchange.received_ns, priority, exchange.visit)
            except Overloaded as error:
                # With an access log each request has a line of its own, with a split not all go to this pool.
                if not self._pipeline.access_log and pool.watch is None and pool.guard is None:
                    self.refusals.remember(exchange.path, exchange.headers, pool, pool.model, error)
                raise

    def _only_model(self) -> str:
        models = self._pipeline.models()
        if not models and not self._pipeline.are_models_ready():
            raise NotReady("no model is served yet; ask again shortly", retry_after_s=1.0)
        if len(models) != 1:
            raise UnknownModel(
                f"/invocations needs one model, {len(models)} are served; use /v2/models/NAME/infer"
            )  # fmt: skip
        return models[0]

    def _submit(self, exchange: Exchange, pool: VersionPool, call: InferenceCall, stream: bool = False) -> None:
        exchange.pending = self._pipeline.submit(
            call,
            exchange,
            pool=pool,
            visit=exchange.visit,
            protocol=PROTOCOL,
            request_id=exchange.request_id,
            received_ns=exchange.received_ns,
            stream=stream,
            timeout_ns=_timeout_ns(exchange),
            priority=_priority(exchange),
        )

    # --- health and metadata ---

    def _server(self, exchange: Exchange, _target: Target) -> None:
        exchange.respond(200, JSON, encode_server_metadata("hyperion", __version__))

    def _root(self, exchange: Exchange, _target: Target) -> None:
        # What KServe's V1 client takes for a sign of life.
        exchange.respond(200, JSON, b'{"status":"alive"}')

    def _live(self, exchange: Exchange, _target: Target) -> None:
        exchange.respond(200, JSON, b'{"live":true}')

    def _ready(self, exchange: Exchange, _target: Target) -> None:
        ready = self._pipeline.is_ready()
        exchange.respond(200 if ready else 503, JSON, b'{"ready":%b}' % (b"true" if ready else b"false"))

    def _ping(self, exchange: Exchange, _target: Target) -> None:
        exchange.respond(200 if self._pipeline.is_ready() else 503, JSON, b"{}")

    def _models(self, exchange: Exchange, _target: Target) -> None:
        exchange.respond(
            200,
            JSON,
            orjson.dumps({"models": self._pipeline.listing.models(exchange.headers, exchange.connection.peer)}),
        )

    def _model(self, exchange: Exchange, target: Target) -> None:
        served, versions = self._pipeline.show(target.model, target.version, exchange.headers, exchange.connection.peer)
        body = encode_model_metadata(target.model, versions, served.platform, served.signature)
        exchange.respond(200, JSON, body)

    def _model_ready(self, exchange: Exchange, target: Target) -> None:
        ready = self._pipeline.is_model_ready(target.model, target.version)
        body = {"name": target.model, "ready": ready}
        exchange.respond(200 if ready else 503, JSON, orjson.dumps(body))

    def _v1_model(self, exchange: Exchange, target: Target) -> None:
        ready = self._pipeline.is_model_ready(target.model, "")
        exchange.respond(200 if ready else 503, JSON, orjson.dumps({"name": target.model, "ready": ready}))

    # --- the repository extension and metrics: the answers take a while ---

    def _index(self, exchange: Exchange, _target: Target) -> None:
        only_ready = decode_index_request(exchange.body, self._limits)
        rows = self._pipeline.listing.index(exchange.headers, exchange.connection.peer)
        states = [row for row in rows if not only_ready or row.state == "READY"]
        exchange.respond(200, JSON, encode_index(states))

    def _load(self, exchange: Exchange, target: Target) -> None:
        parameters = decode_repository_parameters(exchange.body, self._limits)
        if target.route == "load":
            self._later(exchange, self._change(exchange, self._pipeline.load(target.model, parameters)))
        else:
            self._later(exchange, self._change(exchange, self._pipeline.unload(target.model)))

    async def _change(self, exchange: Exchange, change: Awaitable[None]) -> None:
        await change
        exchange.respond(200, JSON, b"{}")

    def _job(self, exchange: Exchange, target: Target) -> None:
        if self.jobs is None:
            raise UnknownRoute("jobs are not kept here")
        self._later(exchange, self.jobs.look(exchange, target, _patience_s(exchange)))

    def _metrics(self, exchange: Exchange, _target: Target) -> None:
        self._later(exchange, self._send_metrics(exchange))

    async def _send_metrics(self, exchange: Exchange) -> None:
        exchange.respond(200, b"text/plain; version=0.0.4; charset=utf-8", await self._scrape())

    def _later(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work`, which ends by answering the exchange; its errors are the answer."""

        async def guarded() -> None:
            try:
                await work
            except HyperionError as error:
                self.refuse(exchange, error)
            except Exception as error:  # a bug of ours must cost this request only
                self._log.write("error", "request failed", request_id=exchange.request_id, error=repr(error))
                self.refuse(exchange, InternalError(f"an internal error; quote request id {exchange.request_id}"))

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _patience_s(exchange: Exchange) -> float:
    """How long the caller waits for what has to be looked up or written down first."""
    return _timeout_ns(exchange) * 1e-9 or PATIENCE_S


def _timeout_ns(exchange: Exchange) -> int:
    """What the caller allows by header; 0 for nothing said. Raises MalformedRequest."""
    given = exchange.headers.get(TIMEOUT)
    return 0 if given is None else _number(given, "x-request-timeout-ms", MAX_TIMEOUT_MS, 1) * 1_000_000


def _priority(exchange: Exchange) -> int | None:
    """What the caller asks for by header; None for nothing said. Raises MalformedRequest."""
    given = exchange.headers.get(PRIORITY)
    return None if given is None else _number(given, "x-hyperion-priority", 9)


def _number(value: bytes, name: str, largest: int, smallest: int = 0) -> int:
    """A header's value as a number. Raises MalformedRequest."""
    if not value.isdigit() or len(value) > 12 or not smallest <= int(value) <= largest:
        raise MalformedRequest(
            f'header "{name}": expected a number from {smallest} to {largest}, got "{_text(value)[:40]}"'
        )
    return int(value)


def _not_allowed(method: bytes, allowed: str) -> MethodNotAllowed:
    """The refusal, with the field that RFC 9110 (15.5.6) asks of it."""
    use = allowed.partition(",")[0]
    return MethodNotAllowed(f"{_text(method)} is not allowed here; use {use}", fields=((b"allow", allowed.encode()),))


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _takes_views(exchange: Exchange, target: Target) -> bool:
    return target.route == "infer" and b"inference-header-content-length" in exchange.headers
