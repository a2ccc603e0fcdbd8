"""What a cached answer is and weighs, and the bytes that all the caches of a process may hold together."""

from typing import TYPE_CHECKING, Any, Final

from hyperion.schema.call import Buffer, InferenceAnswer, Tensor

if TYPE_CHECKING:
    from hyperion.gateway.cache.answers import ResponseCache

CACHE: Final = "cache"
MOST_BYTES: Final = 1 << 30
# CPython's own bytes around those of the answer: measured with tracemalloc in tests/gateway/test_cache.py, rounded up.
ENTRY_BYTES: Final = 520
TENSOR_BYTES: Final = 260
ROOM_SHARE: Final = 64  # of the process's bytes, freed at a time when they are all taken


class CachedAnswer:
    """An answer that the model of that digest gave, until `ends_ns` (monotonic). Tensors own their bytes. `front` is
    what `gateway/cache/front` knows it by."""

    __slots__ = ("digest", "ends_ns", "front", "key", "outputs", "sampled", "size_bytes", "version")

    def __init__(self, key: bytes, outputs: tuple[Tensor, ...], version: str, digest: str, ends_ns: int) -> None:
        self.key: Final = key
        self.outputs: Final = outputs
        self.version: Final = version
        self.digest: Final = digest
        self.ends_ns: Final = ends_ns
        self.sampled = False  # as it was found, so it will be again
        self.size_bytes = ENTRY_BYTES + sum([TENSOR_BYTES + _size(one.data) for one in outputs])
        self.front: list[Any] | None = None

    def answer(self, model: str, version: str = "") -> InferenceAnswer:
        """What a caller of the endpoint `model` gets, who asked `version` ("": that which gave the answer; two versions
        may be the same bytes). All times are zero: it did not wait, and nothing was computed."""
        return InferenceAnswer(model, version or self.version, self.digest, self.outputs, CACHE)


def _size(data: Buffer) -> int:
    return len(data) if isinstance(data, bytes) else memoryview(data).nbytes


class CacheMemory:
    """Shared by the caches of a process, which keep `held_bytes` true."""

    __slots__ = ("caches", "held_bytes", "most_bytes")

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes: Final = most_bytes
        self.held_bytes = 0
        self.caches: list[ResponseCache] = []

    def make_room(self, size_bytes: int) -> None:
        """Frees so many bytes, where they are all taken, at the cost of the cache that holds the most."""
        if self.held_bytes + size_bytes <= self.most_bytes:
            return
        most = max(0, self.most_bytes - size_bytes - self.most_bytes // ROOM_SHARE)
        while self.held_bytes > most:
            largest = self.caches[0]
            for cache in self.caches:
                if cache.held_bytes > largest.held_bytes:
                    largest = cache
            largest.drop_oldest()
