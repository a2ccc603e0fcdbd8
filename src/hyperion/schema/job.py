"""Work that is remembered: jobs and idempotent calls, as gateways ask control for them and as the store keeps them.

Gateways never open the store: they send `Request`s over their link to control and get an `Answer` to each. Every
request may be sent again, when its answer was lost, and then changes nothing more.
"""

from typing import Literal

from msgspec import Struct

Fields = tuple[tuple[str, str], ...]
State = Literal["queued", "running", "done", "failed", "dead", "cancelled"]
Delivery = Literal["", "pending", "delivered", "failed"]
Kind = Literal["done", "failed", "retry", "busy"]

OVER: frozenset[State] = frozenset(("done", "failed", "dead", "cancelled"))
MAX_PAYLOAD_BYTES = 32 << 20  # of a request or an answer that is kept: as base64 it must fit into a message of the link


class StoredRequest(Struct, frozen=True):
    """A request as it will be made again: no credentials, and only headers that change the answer. Header names are in
    lower case."""

    method: str
    path: str
    headers: Fields
    body: bytes


class StoredAnswer(Struct, frozen=True):
    """An answer as it was given. `status` is HTTP's (200…), or 0 for a gRPC call that succeeded; `body` is the body, or
    the framed message, and `trailers` the header block behind it. Fields that belong to one connection or one moment
    (date, connection) are left out of `headers`."""

    status: int
    headers: Fields
    body: bytes
    trailers: bytes = b""


class Submission(Struct, frozen=True):
    """A new job. `id` is 32 hexadecimal digits that nobody can guess, chosen by the gateway. `priority` 0 is the
    highest. Times are seconds; `callback` is the URL that hears of the end, "" for none."""

    id: str
    tenant: str
    endpoint: str
    request: StoredRequest
    priority: int = 9
    attempts: int = 5
    backoff_s: float = 1.0
    ttl_s: float = 86_400.0
    timeout_s: float = 300.0
    callback: str = ""


class JobView(Struct, frozen=True):
    """A job without its payloads. Times are seconds since 1970, 0 for not yet. `status` is that of its answer, 0 for
    none; `reason` says why it is not done; `delivery` is how far its callback is."""

    id: str
    tenant: str
    endpoint: str
    state: State
    priority: int
    attempts: int
    max_attempts: int
    created_at: float
    due_at: float
    started_at: float
    finished_at: float
    expires_at: float
    status: int
    reason: str
    callback: str
    delivery: Delivery
    delivery_attempts: int
    delivery_reason: str


class ClaimedJob(Struct, frozen=True):
    """A job that a gateway may run until its lease ends. `fence` grows with each claim: only the newest finishes it.
    `counted` says that quotas have counted it as a request in an earlier attempt."""

    id: str
    fence: int
    tenant: str
    endpoint: str
    request: StoredRequest
    priority: int
    timeout_s: float
    counted: bool = False


class Held(Struct, frozen=True):
    """A job that a gateway runs."""

    id: str
    fence: int


class KeyScope(Struct, frozen=True, order=True):
    """Whose idempotency key it is, and for which endpoint."""

    tenant: str
    endpoint: str
    key: str


class HeldKey(Struct, frozen=True):
    """An idempotent call that a gateway runs. `token` is that of the attempt."""

    scope: KeyScope
    token: str


class Begin(Struct, frozen=True, tag="begin"):
    """May this call run? `fingerprint` is the digest of its payload, `token` this attempt's random name."""

    scope: KeyScope
    fingerprint: str
    token: str


class Complete(Struct, frozen=True, tag="complete"):
    """It ran, and this is what the caller is going to be told."""

    scope: KeyScope
    token: str
    answer: StoredAnswer


class Abandon(Struct, frozen=True, tag="abandon"):
    """It did not come to a final outcome: let the next attempt run."""

    scope: KeyScope
    token: str


class Renew(Struct, frozen=True, tag="renew"):
    """These are still running. Answered by `Lost`."""

    keys: tuple[HeldKey, ...] = ()
    jobs: tuple[Held, ...] = ()


class Submit(Struct, frozen=True, tag="submit"):
    """Keep this job."""

    job: Submission


class Finish(Struct, frozen=True, tag="finish"):
    """What came of one attempt at a job. `kind` is `policy.jobs.classify`'s; `counted` says that quotas have counted
    the job as a request; `told_s` is in how many seconds to come back, where a refusal said so."""

    job: Held
    kind: Kind
    reason: str = ""
    answer: StoredAnswer | None = None
    counted: bool = False
    told_s: float = 0.0


class Look(Struct, frozen=True, tag="look"):
    """How far is the tenant's job; with `whole` its answer, too."""

    tenant: str
    id: str
    whole: bool = False


class Cancel(Struct, frozen=True, tag="cancel"):
    """End the tenant's job if it has not ended."""

    tenant: str
    id: str


class Begun(Struct, frozen=True, tag="begun"):
    """The answer to `Begin`. `origin` is the token of the first attempt with this key; `answer` is there for replay."""

    decision: Literal["run", "replay", "in-progress", "mismatch"]
    origin: str = ""
    answer: StoredAnswer | None = None


class Kept(Struct, frozen=True, tag="kept"):
    """The answer to what writes. `held` False: somebody else has taken over, or it has ended, and nothing was
    written."""

    held: bool = True


class Lost(Struct, frozen=True, tag="lost"):
    """The answer to `Renew`: jobs that are no longer this gateway's to finish."""

    jobs: tuple[Held, ...] = ()


class Seen(Struct, frozen=True, tag="seen"):
    """The answer to `Look` and `Cancel`; None where the tenant has no such job."""

    job: JobView | None
    answer: StoredAnswer | None = None


class Failed(Struct, frozen=True, tag="failed"):
    """The answer to any request that could not be done: the error's stable code, and its message."""

    code: str
    message: str


Request = Begin | Complete | Abandon | Renew | Submit | Finish | Look | Cancel
Answer = Begun | Kept | Lost | Seen | Failed
