"""ModelInfer with `idempotency-key` in its metadata: runs once, and everybody is told the same.

Called by `gateway/grpc/calls`; keys, leases and stored answers are `gateway/jobs/once`'s. A call goes on though its
caller has left, as that caller may come back with the same key.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from hyperion.gateway.front.caller import Peer
from hyperion.gateway.grpc.server import PROTOCOL, GrpcServer
from hyperion.gateway.grpc.status import answer_trailers
from hyperion.gateway.grpc.unary import UnaryCall
from hyperion.gateway.http.jobs import KEY, PATIENCE_S
from hyperion.gateway.http.status import STATUS
from hyperion.gateway.jobs.once import Once
from hyperion.gateway.link import ERRORS
from hyperion.gateway.pipeline import Pipeline
from hyperion.policy.idempotency import is_final, keeps, read_key
from hyperion.schema.call import Buffer, InferenceAnswer, InferenceCall
from hyperion.schema.errors import Conflict, Fields, HyperionError
from hyperion.schema.job import KeyScope, StoredAnswer
from hyperion.wire.grpc.framing import field
from hyperion.wire.oip.grpc import AnswerFormat

TenantOf = Callable[[Mapping[bytes, bytes], Peer], str]
REPLAYED: Final = (b"idempotency-replayed", b"true")


class KeptReply:
    """The reply of a call whose answer is taken down instead of sent."""

    together = None

    def __init__(self, server: GrpcServer, form: AnswerFormat, request_id: str, headers: Mapping[bytes, bytes]) -> None:
        self.headers = headers
        self.answered: asyncio.Future[StoredAnswer] = asyncio.get_running_loop().create_future()
        self._server = server
        self._form = form
        self._request_id = request_id
        self._fields = b""
        self.of_its_time = b""  # what is told now and not again

    def send(self, message: bytes) -> None:
        raise AssertionError(f"{len(message)} bytes for a call that is answered alone")

    def add_fields(self, fields: Fields) -> None:
        for name, value in fields:
            if keeps(name.decode("latin-1")):
                self._fields += field(name, value)
            else:
                self.of_its_time += field(name, value)

    def answer(self, answer: InferenceAnswer) -> None:
        body = self._server.codec.encode(answer, self._form)
        trailers = answer_trailers(answer, self._request_id, answer.queue_ns) + self._fields
        self.answered.set_result(StoredAnswer(0, (), body, trailers))

    def fail(self, error: HyperionError) -> None:
        """A final failure is an outcome as good as another; what a retry may mend is none."""
        status = STATUS[error.code]
        if is_final(status):
            told = (("code", error.code), ("message", error.message))
            self.answered.set_result(StoredAnswer(status, told, b""))
        else:
            self.answered.set_exception(error)


class GrpcOnce:
    """The calls with a key. `tenant_of` says whose a call is."""

    def __init__(self, pipeline: Pipeline, server: GrpcServer, once: Once, tenant_of: TenantOf) -> None:
        self._pipeline = pipeline
        self._server = server
        self._once = once
        self._tenant_of = tenant_of
        self._tasks: set[asyncio.Task[None]] = set()

    def infer(self, call: UnaryCall, message: Buffer) -> None:
        """Serves the call, whose message is there whole."""
        task = asyncio.get_running_loop().create_task(self._serve(call, bytes(message)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: UnaryCall, message: bytes) -> None:
        reply: KeptReply | None = None
        headers, peer = call.head.headers, call.connection.peer
        timeout_ns = call.head.timeout_ns

        async def execute(_origin: str) -> StoredAnswer:
            nonlocal reply
            # Once more: the first may have closed while the store was asked.
            pool = self._pipeline.find(inference.model, inference.version, headers, peer)
            reply = KeptReply(self._server, form, call.request_id, headers)
            self._pipeline.submit(
                inference,
                reply,
                protocol=PROTOCOL,
                request_id=call.request_id,
                received_ns=call.received_ns,
                timeout_ns=timeout_ns,
                priority=call.head.priority,
                pool=pool,
                visit=visit,
            )
            return await reply.answered

        try:
            inference, form = self._server.codec.decode(message)
            pool = self._pipeline.find(inference.model, inference.version, headers, peer)
            visit = None if pool.guard is None else pool.guard.enter(headers, peer)
            scope = KeyScope(self._tenant_of(headers, peer), inference.model, read_key(headers[KEY]))
            timeout_s = timeout_ns * 1e-9 or PATIENCE_S
            answer, replayed = await self._once.run(scope, _fingerprint(inference, message), timeout_s, execute)
        except Exception as error:
            refusal = self._server.as_refusal(error, call.request_id)
            if call.over:
                return
            if reply is None:
                call.refuse(refusal)
            else:
                call.fail(refusal)  # the pipeline knows of it
            return
        if not call.over:
            given = b"" if visit is None else b"".join([field(name, value) for name, value in visit.limits()])
            _give(call, answer, replayed, given if reply is None else reply.of_its_time)


def _give(call: UnaryCall, answer: StoredAnswer, replayed: bool, limits: bytes) -> None:
    """Tells the caller. `limits` are the fields that say what it may still ask for."""
    if answer.status:
        told = dict(answer.headers)
        kind = ERRORS.get(told.get("code", ""), Conflict)
        call.fail(
            kind(
                told.get("message", "its answer was too large to be kept for a second time"),
                fields=(REPLAYED,) if replayed else (),
            )
        )
    else:
        call.finish(answer.body, answer.trailers + limits + (field(*REPLAYED) if replayed else b""))


def _fingerprint(call: InferenceCall, message: bytes) -> str:
    """The digest of what makes this request what it is."""
    digest = hashlib.sha256(f"grpc {call.model} {call.version} ".encode())
    digest.update(message)
    return digest.hexdigest()
