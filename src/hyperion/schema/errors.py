"""Every error that a caller or an operator can meet, with a stable code, whose fault it is, and if a retry can help.

The edges choose HTTP, gRPC and OpenAI statuses from `code`, in one table each; nothing else does.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

Fields = Sequence[tuple[bytes, bytes]]
Blame = Literal["caller", "model", "platform", "upstream"]


class HyperionError(Exception):
    """Base of all errors that cross a room's border. The message is for the caller: what was wrong, where, what was
    expected, what to do; never a path, a stack trace or another caller's data. `fields` are header fields (names in
    lower case) that go with the answer."""

    code: ClassVar[str] = "internal"
    blame: ClassVar[Blame] = "platform"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_s: float = 0.0, fields: Fields = ()) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.fields = fields


class InternalError(HyperionError):
    """A bug of ours. The caller learns only the request id."""


class MalformedRequest(HyperionError):
    """The bytes are not a request of this protocol."""

    code, blame = "malformed", "caller"


class SchemaMismatch(HyperionError):
    """A well-formed request whose tensors do not fit the model's signature."""

    code, blame = "schema_mismatch", "caller"


class TooLarge(HyperionError):
    """A body, a header block or a tensor over its limit."""

    code, blame = "too_large", "caller"


class HeadersTooLarge(HyperionError):
    """A request line or a header block over its limit."""

    code, blame = "headers_too_large", "caller"


class UnknownModel(HyperionError):
    """No endpoint, model or version of that name is served here."""

    code, blame = "unknown_model", "caller"


class UnknownRoute(HyperionError):
    """No such path."""

    code, blame = "unknown_route", "caller"


class MethodNotAllowed(HyperionError):
    """The path exists, the method does not."""

    code, blame = "method_not_allowed", "caller"


class Unsupported(HyperionError):
    """Asked for something that is valid in the protocol but that this endpoint does not do."""

    code, blame = "unsupported", "caller"


class Unauthenticated(HyperionError):
    """No valid credentials."""

    code, blame = "unauthenticated", "caller"


class Forbidden(HyperionError):
    """Valid credentials, no right to do this."""

    code, blame = "forbidden", "caller"


class ClientGone(HyperionError):
    """The caller left before the answer; seen in the log only."""

    code, blame = "client_gone", "caller"


class ClientTooSlow(HyperionError):
    """The request did not arrive in time."""

    code, blame, retryable = "client_too_slow", "caller", True


class DeadlineExceeded(HyperionError):
    """The answer would have come after the deadline, or did."""

    code, blame, retryable = "deadline_exceeded", "platform", True


class Overloaded(HyperionError):
    """A bounded queue is full; `retry_after_s` says when to come back."""

    code, blame, retryable = "overloaded", "platform", True


class RateLimited(HyperionError):
    """Over a limit that belongs to this caller."""

    code, blame, retryable = "rate_limited", "caller", True


class NotReady(HyperionError):
    """The model is loading, or the platform drains."""

    code, blame, retryable = "not_ready", "platform", True


class RunnerLost(HyperionError):
    """The replica died while it held the request, and no other could take it in time."""

    code, blame, retryable = "runner_lost", "platform", True


class ModelFailed(HyperionError):
    """The model raised an exception for this request."""

    code, blame = "model_failed", "model"


class PoisonRequest(HyperionError):
    """This request, computed alone, killed its replica each time it was tried."""

    code, blame = "poison_request", "model"


class UpstreamFailed(HyperionError):
    """A remote server that answers for this endpoint failed."""

    code, blame, retryable = "upstream_failed", "upstream", True


class UpstreamBusy(HyperionError):
    """A remote server that answers for this endpoint refused the request for now; `retry_after_s` is what it said."""

    code, blame, retryable = "upstream_busy", "upstream", True


class ModelRefused(HyperionError):
    """A model file or repository asks for something that is unsafe, unknown or not supported; the message names it."""

    code, blame = "model_refused", "caller"


class MissingExtra(HyperionError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    code, blame = "missing_extra", "caller"


class InvalidConfig(HyperionError):
    """A setting is unknown or out of range; the message names the nearest valid one."""

    code, blame = "invalid_config", "caller"


class InvalidResource(HyperionError):
    """A resource has a field that is unknown, out of range or not done by this version; the message names it and its
    line."""

    code, blame = "invalid_resource", "caller"


class NotFound(HyperionError):
    """No resource, key, entry or prediction of that name."""

    code, blame = "not_found", "caller"


class GateRefused(HyperionError):
    """A policy or a gate does not let this happen now; the message says which one and what it needs."""

    code, blame = "refused", "caller"


class StorageFailed(HyperionError):
    """Where artifacts are kept (disk, S3, OCI layout) cannot be read or written now; the message says what failed."""

    code, blame, retryable = "storage_failed", "platform", True


class Conflict(HyperionError):
    """What is there already, or has changed meanwhile, does not allow this write; the message says what is there."""

    code, blame = "conflict", "caller"


class KeyReused(HyperionError):
    """An idempotency key came again with another request."""

    code, blame = "key_reused", "caller"


class Fenced(HyperionError):
    """This control process is no longer the leader: a newer one is. What it wanted to write was not written."""

    code, blame, retryable = "fenced", "platform", True
