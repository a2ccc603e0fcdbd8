"""The answers of one endpoint that may be given again: bounded in bytes, the one used longest ago leaves first.

Made by `gateway/front/guard` for an endpoint that asks for it, and asked by it for every call that was checked and
charged. A rollout needs no invalidation: the model's digest is part of the key. Never here: errors, parts of streams,
answers of a fallback. Decisions are `policy/cache_worth`'s; the shared store behind it is `gateway/cache/shared`.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from sys import intern
from typing import Final

from hyperion.gateway.cache.front import CacheFront
from hyperion.gateway.cache.key import make_key
from hyperion.gateway.cache.memory import CachedAnswer, CacheMemory
from hyperion.policy.cache_worth import SAMPLE, Seen, Worth, judge, looks
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.protect import Cache

HIT: Final = "hit"
MISS: Final = "miss"
STALE: Final = "stale"  # there, but its time was over
BYPASS: Final = "bypass"  # not looked up, as looking does not pay
SHARED_HIT: Final = "shared-hit"  # found in Redis
COALESCED: Final = "coalesced"  # answered by the computation for an identical request
RESULTS: Final = (HIT, MISS, STALE, BYPASS, SHARED_HIT, COALESCED)

BYPASSED: Final = b""  # in place of a key
JUDGE_EVERY: Final = 256  # looks
TIME_EVERY: Final = 64  # keys; two looks at the clock cost a tenth of one
SAMPLE_BYTES: Final = 256  # of a request's data decide if it is in the sample
LARGEST_SHARE: Final = 8  # no answer may take more than this part of the cache
WEIGHT: Final = 0.1  # of the newest duration in the moving means
OUTLIER: Final = 8.0  # times the mean: more than that of a duration does not count
SECOND_NS: Final = 1_000_000_000


class ResponseCache:
    """`draw` gives numbers in [0, 1), by which entries do not all end at once. `keeps_stale` leaves entries whose time
    is over where they are, for `last_good`, until their room is needed."""

    __slots__ = (
        "_draw",
        "_entries",
        "_hits",
        "_key_ns",
        "_keys",
        "_largest_bytes",
        "_looks",
        "_looks_this_second",
        "_memory",
        "_model_ns",
        "_sampled_hits",
        "_sampled_looks",
        "_scoped",
        "_second_ends_ns",
        "_settings",
        "_ttl_ns",
        "_was_sampled",
        "counts",
        "front",
        "held_bytes",
        "keeps_stale",
        "most_bytes",
        "worth",
    )

    def __init__(
        self, settings: Cache, memory: CacheMemory, draw: Callable[[], float], keeps_stale: bool = False
    ) -> None:
        self.most_bytes: Final = settings.max_mb << 20
        self.keeps_stale: Final = keeps_stale
        self.counts: Final[dict[str, int]] = dict.fromkeys(RESULTS, 0)
        self.worth = Worth()
        self.held_bytes = 0
        self.front: Final = CacheFront(self)
        self._settings: Final = settings
        self._scoped: Final = settings.scope == "tenant"
        self._ttl_ns: Final = int(settings.ttl_s * SECOND_NS)
        self._largest_bytes = min(self.most_bytes, memory.most_bytes) // LARGEST_SHARE
        self._memory: Final = memory
        self._draw: Final = draw
        self._entries: OrderedDict[bytes, CachedAnswer] = OrderedDict()
        self._was_sampled = False  # whether the call that the newest key is of is in the sample
        self._second_ends_ns = 0
        self._looks_this_second = 0
        self._keys = 0
        self._key_ns = 0.0
        self._model_ns = 0.0
        self._looks = self._hits = self._sampled_looks = self._sampled_hits = 0
        memory.caches.append(self)

    def __len__(self) -> int:
        return len(self._entries)

    # --- in the order in which a call meets them ---

    def scope(self, tenant: str) -> str:
        """Who shares answers with this tenant: "" is everybody."""
        return tenant if self._scoped else ""

    def key(self, tenant: str, digest: str, call: InferenceCall, now_ns: int) -> bytes:
        """What the call's answer is kept under, or `BYPASSED` where looking is not worth it: then it is to be computed
        as if there were no cache. Ask `get` next."""
        self._was_sampled = sampled = _is_sampled(call)
        if not (self.worth.pays or sampled):
            # Most calls come here where looking does not pay: it must cost next to nothing.
            if now_ns >= self._second_ends_ns:
                self._second_ends_ns = now_ns + SECOND_NS
                self._looks_this_second = 0
            if not looks(self.worth, sampled, self._looks_this_second):
                self.counts[BYPASS] += 1
                return BYPASSED
            self._looks_this_second += 1
        self._keys += 1
        if self._keys % TIME_EVERY:
            return make_key(self.scope(tenant), digest, call)
        began_ns = time.perf_counter_ns()
        key = make_key(self.scope(tenant), digest, call)
        self._key_ns = _mean(self._key_ns, time.perf_counter_ns() - began_ns)
        return key

    def get(self, key: bytes, now_ns: int) -> CachedAnswer | None:
        """The answer, or None where the call has to be computed; then give it to `put`."""
        assert key, "a call that passes the cache by was looked up"
        entry = self._entries.get(key)
        if entry is not None and now_ns < entry.ends_ns:
            self._entries.move_to_end(key)
            self.counts[HIT] += 1
            entry.sampled = self._was_sampled
            self._note(True, entry.sampled)
            return entry
        self._note(False, self._was_sampled)
        if entry is None:
            self.counts[MISS] += 1
        else:
            self.counts[STALE] += 1
            if not self.keeps_stale:
                self._drop(entry)
        return None

    def put(
        self,
        key: bytes,
        outputs: tuple[Tensor, ...],
        version: str,
        digest: str,
        now_ns: int,
        model_ns: int = 0,
        most_ns: int = 0,
    ) -> CachedAnswer | None:
        """Keeps a whole answer that the model gave without an error; None where there is no room for one so large.
        `model_ns` is what computing it took, as far as that is known, `most_ns` how long it is good where another
        gateway computed it. Views are copied, so that no batch is kept alive
        for one of its rows."""
        assert key, "the answer to a call that passed the cache by was kept"
        if model_ns:
            self._model_ns = _mean(self._model_ns, model_ns)
        old = self._entries.get(key)
        if old is not None:
            self._drop(old)
        ttl_ns = self._ttl_ns
        ends_ns = now_ns + ttl_ns - int(ttl_ns * self._settings.jitter * self._draw())
        if most_ns:
            ends_ns = min(ends_ns, now_ns + most_ns)
        entry = CachedAnswer(key, _own(outputs), version, digest, ends_ns)
        if entry.size_bytes > self._largest_bytes:
            return None
        self._make_room(entry.size_bytes, now_ns)
        self._entries[key] = entry
        self.held_bytes += entry.size_bytes
        self._memory.held_bytes += entry.size_bytes
        return entry

    def last_good(self, key: bytes) -> CachedAnswer | None:
        """The answer that was kept last, be its time over or not, for a caller who would get none at all."""
        return self._entries.get(key)

    # --- for the front ---

    def used_again(self, entry: CachedAnswer, now_ns: int) -> bool:
        """Whether the entry may be given once more; counts that it was. Nothing is counted where it may not: the
        caller's next step is `get`."""
        if now_ns >= entry.ends_ns:
            return False
        self._entries.move_to_end(entry.key)
        self.counts[HIT] += 1
        self._note(True, entry.sampled)
        return True

    def grow(self, entry: CachedAnswer, size_bytes: int, now_ns: int) -> bool:
        """Whether there is room for so many more bytes that belong to the entry; then they are counted."""
        if entry.key not in self._entries or entry.size_bytes + size_bytes > self._largest_bytes:
            return False
        self._entries.move_to_end(entry.key)
        self._make_room(size_bytes, now_ns)
        entry.size_bytes += size_bytes
        self.held_bytes += size_bytes
        self._memory.held_bytes += size_bytes
        return True

    def shrink(self, entry: CachedAnswer, size_bytes: int) -> None:
        """As many bytes of the entry have gone."""
        entry.size_bytes -= size_bytes
        self.held_bytes -= size_bytes
        self._memory.held_bytes -= size_bytes

    # --- room ---

    def clear(self) -> None:
        """Drops everything."""
        for entry in tuple(self._entries.values()):
            self._drop(entry)

    def close(self) -> None:
        """The endpoint has gone, or has another cache now: what is still under way for it is not kept."""
        self._largest_bytes = 0
        self.clear()
        self._memory.caches.remove(self)

    def drop_oldest(self) -> None:
        """Drops the entry that was used longest ago, if there is one."""
        for entry in self._entries.values():
            self._drop(entry)
            return

    def _make_room(self, size_bytes: int, now_ns: int) -> None:
        """Drops what was used longest ago until there is room here and in the process, and first what nobody will get
        any more: two looks for each new entry are enough to meet all of it in time."""
        if not self.keeps_stale:
            for _ in range(2):
                for entry in self._entries.values():
                    if now_ns >= entry.ends_ns:
                        self._drop(entry)
                    break
        while self.held_bytes + size_bytes > self.most_bytes and self._entries:
            self.drop_oldest()
        self._memory.make_room(size_bytes)

    def _drop(self, entry: CachedAnswer) -> None:
        del self._entries[entry.key]
        self.held_bytes -= entry.size_bytes
        self._memory.held_bytes -= entry.size_bytes
        self.front.forget(entry)

    # --- does it pay? ---

    def _note(self, hit: bool, sampled: bool) -> None:
        self._looks += 1
        self._hits += hit
        if sampled:
            self._sampled_looks += 1
            self._sampled_hits += hit
        if self._looks >= JUDGE_EVERY:
            seen = Seen(
                self._looks, self._hits, self._sampled_looks, self._sampled_hits, self._key_ns, self._model_ns
            )  # fmt: skip
            self._looks = self._hits = self._sampled_looks = self._sampled_hits = 0
            self.worth = judge(self.worth, seen)


def _is_sampled(call: InferenceCall) -> bool:
    """Whether the call's key is in the sample. Python's hash of bytes is keyed per process, so that no caller can tell,
    and takes a tenth of what the key takes. Of large data the middle stands for all."""
    data = call.inputs[0].data
    if not isinstance(data, bytes) or len(data) > SAMPLE_BYTES:
        start = max(0, len(data) - SAMPLE_BYTES) // 2
        data = bytes(data[start : start + SAMPLE_BYTES])
    return hash(data) % SAMPLE == 0


def _own(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs that share nothing with a frame or a batch, but for names."""
    return tuple(
        [
            Tensor(intern(one.name), intern(one.datatype), one.shape, one.data)
            if isinstance(one.data, bytes)
            else Tensor(intern(one.name), intern(one.datatype), one.shape, bytes(one.data))
            for one in outputs
        ]
    )


def _mean(mean: float, newest: float) -> float:
    """The moving mean with one duration more. One that was interrupted, by others on the core, says little."""
    return mean + WEIGHT * (min(newest, OUTLIER * mean) - mean) if mean else float(newest)
