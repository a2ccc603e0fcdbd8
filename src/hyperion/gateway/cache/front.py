"""Requests that are the same bytes as one that was answered from the cache: they get the same bytes, undecoded.

Belongs to a `gateway/cache/answers.ResponseCache`, and holds nothing that is not there: an entry that leaves the cache,
by its time or for room, takes with it what stands here for it. Filled and asked by `gateway/http/routes`, for bodies as
they come. What is compared is the whole body, never a digest of it.
"""

from typing import TYPE_CHECKING, Final

from hyperion.gateway.cache.memory import CachedAnswer

if TYPE_CHECKING:
    from hyperion.gateway.cache.answers import ResponseCache

MAX_BODY_BYTES: Final = 64 << 10  # of a request; of a larger one the decoding is not what costs most
MAX_ANSWER_BYTES: Final = 256 << 10
MAX_PER_ENTRY: Final = 4  # ways of writing the same request: other blanks, other ids
FRONT_BYTES: Final = 640  # CPython's own, for an answer and its key

FrontKey = tuple[str, str, str, bytes, bytes]


class FrontAnswer:
    """An encoded answer of `rows` rows: what stands in its head behind the request's id, and its body. It holds while
    the endpoint's requests are divided as `mark` says."""

    __slots__ = ("body", "entry", "head", "key", "mark", "rows", "size_bytes")

    def __init__(self, key: FrontKey, entry: CachedAnswer, mark: object, rows: int, head: bytes, body: bytes) -> None:
        self.key: Final = key
        self.entry: Final = entry
        self.mark: Final = mark
        self.rows: Final = rows
        self.head: Final = head
        self.body: Final = body
        self.size_bytes: Final = FRONT_BYTES + len(key[4]) + len(head) + len(body)


class CacheFront:
    """The answers, by scope, digest and name of the version, the header Inference-Header-Content-Length (b"": none),
    and body."""

    __slots__ = ("_cache", "answers")

    def __init__(self, cache: "ResponseCache") -> None:
        self._cache: Final = cache
        self.answers: Final[dict[FrontKey, FrontAnswer]] = {}

    def find(
        self, tenant: str, digest: str, version: str, mark: object, json_length: bytes, body: object, now_ns: int
    ) -> FrontAnswer | None:
        """The answer to a request with that body, to that version; counts the hit. None where the request
        has to be decoded. Ask only while there are `answers`."""
        if type(body) is not bytes:
            return None
        found = self.answers.get((self._cache.scope(tenant), digest, version, json_length, body))
        if found is None or found.mark is not mark or not self._cache.used_again(found.entry, now_ns):
            return None
        return found

    def keep(
        self,
        entry: CachedAnswer,
        tenant: str,
        digest: str,
        version: str,
        mark: object,
        json_length: bytes,
        request_body: object,
        rows: int,
        head: bytes,
        body: bytes,
        now_ns: int,
    ) -> None:
        """Remembers how a hit was answered. `digest` and `version` are what `find` will be asked for: where another one
        answered, its choice depends on more than these bytes, and nothing is kept."""
        if type(request_body) is not bytes or entry.digest != digest:
            return
        if len(request_body) > MAX_BODY_BYTES or len(body) > MAX_ANSWER_BYTES:
            return
        key = (self._cache.scope(tenant), digest, version, json_length, request_body)
        old = self.answers.get(key)
        if old is not None:
            self._forget_one(old)
        made = FrontAnswer(key, entry, mark, rows, head, body)
        if not self._cache.grow(entry, made.size_bytes, now_ns):
            return
        known = entry.front
        if known is None:
            known = entry.front = []
        elif len(known) >= MAX_PER_ENTRY:
            self._drop(known.pop(0))
        known.append(made)
        self.answers[key] = made

    def forget(self, entry: CachedAnswer) -> None:
        """The entry has left the cache."""
        known, entry.front = entry.front, None
        if known is not None:
            for made in known:
                del self.answers[made.key]

    def _forget_one(self, made: FrontAnswer) -> None:
        known = made.entry.front
        if known is not None:
            known.remove(made)
        self._drop(made)

    def _drop(self, made: FrontAnswer) -> None:
        del self.answers[made.key]
        self._cache.shrink(made.entry, made.size_bytes)
