"""What becomes of a call that carries an idempotency key, by draft-ietf-httpapi-idempotency-key-header-07.

A key that is new runs; the same payload again gets the stored answer, or 409 while the first still runs; another
payload gets 422. Pure: called by `store/idempotency` with what it holds, and by the edges with what came.
"""

import re
from hashlib import sha256
from typing import Final, Literal

from msgspec import Struct

from hyperion.policy.redact import is_personal
from hyperion.schema.errors import MalformedRequest
from hyperion.schema.job import StoredAnswer

Decision = Literal["run", "replay", "in-progress", "mismatch"]

LEASE_S: Final = 10.0  # an attempt that is not renewed for so long is over: its gateway died
KEPT_S: Final = 86_400.0
MAX_KEY: Final = 255
# What a header field of this name says holds when the call ran, and not when its answer is told again.
OF_ITS_TIME: Final = frozenset(("ratelimit", "ratelimit-policy", "retry-after"))
_ITEM: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"(?:[ ]*;[ -~]*)?')
_ESCAPED: Final = re.compile(r"\\(.)")
ABANDONED: Final = 0.0  # in place of the end of a lease: the attempt came to no outcome, and the key is free again


class Record(Struct, frozen=True):
    """What is kept of a key. `token` names the attempt that holds the lease; times are seconds since 1970."""

    fingerprint: str
    done: bool
    token: str
    lease_until: float
    expires_at: float


def decide(record: Record | None, fingerprint: str, token: str, now: float) -> Decision:
    """Whether the attempt `token` with a payload of that digest runs, is told the stored answer, or is refused.

    An attempt that asks again, as its answer was lost on the way, gets the same answer again.

    >>> running = Record("digest", False, "first", lease_until=20.0, expires_at=100.0)
    >>> decide(None, "digest", "first", 10.0), decide(running, "digest", "first", 10.0)
    ('run', 'run')
    >>> decide(running, "digest", "second", 10.0), decide(running, "digest", "second", 20.0)
    ('in-progress', 'run')
    >>> decide(running, "other", "second", 10.0), decide(running, "other", "second", 100.0)
    ('mismatch', 'run')
    >>> abandoned = Record("digest", False, "first", lease_until=ABANDONED, expires_at=100.0)
    >>> decide(abandoned, "other", "second", 10.0)
    'run'
    """
    if record is None or now >= record.expires_at or (not record.done and record.lease_until == ABANDONED):
        return "run"
    if record.fingerprint != fingerprint:
        return "mismatch"
    if record.done:
        return "replay"
    return "run" if record.token == token or now >= record.lease_until else "in-progress"


def read_key(given: bytes) -> str:
    """The key that a header holds: an item of structured fields (RFC 8941) that is a string, its parameters ignored, or
    the same without its quotes, as many clients send it. One that is somebody's address or number is known by its
    digest only. Raises MalformedRequest for anything but 1 to 255 printable ASCII characters.

    >>> read_key(b'"8e03978e-40d5"'), read_key(b"8e03978e-40d5"), read_key(b'"8e03978e-40d5";v=1')
    ('8e03978e-40d5', '8e03978e-40d5', '8e03978e-40d5')
    >>> read_key(b"jane@example.com")[:14]
    'sha256:8c87b48'
    """
    text = given.decode("latin-1").strip()
    if text.startswith('"'):
        item = _ITEM.fullmatch(text)
        text = "" if item is None else _ESCAPED.sub(r"\1", item[1])
    if 1 <= len(text) <= MAX_KEY and is_personal(text):
        return f"sha256:{sha256(text.encode()).hexdigest()}"
    if not 1 <= len(text) <= MAX_KEY or not (text.isascii() and text.isprintable()):
        raise MalformedRequest(
            f'header "idempotency-key": expected 1 to {MAX_KEY} printable ASCII characters, as in "8e03978e-40d5"'
        )
    return text


def is_final(status: int) -> bool:
    """Whether an answer of this HTTP status (0: a gRPC call that succeeded) is the call's outcome, to be told to every
    retry. What was refused before it ran, and what a retry may mend, is not.

    >>> [status for status in (0, 200, 202, 422, 429, 500, 503, 504) if is_final(status)]
    [0, 200, 202, 500]
    """
    return status == 0 or 200 <= status < 300 or status == 500


def keeps(name: str) -> bool:
    """Whether a header field of an answer, its name in lower case, is kept to be told again.

    >>> [name for name in ("content-type", "ratelimit", "RateLimit-Policy", "retry-after") if keeps(name)]
    ['content-type']
    """
    return name.lower() not in OF_ITS_TIME


def make_lasting(answer: StoredAnswer) -> StoredAnswer:
    """The answer as it is kept: without the fields of its time."""
    headers = tuple([field for field in answer.headers if keeps(field[0])])
    return StoredAnswer(answer.status, headers, answer.body, answer.trailers)
