"""A cache gives back what was put in, for as long as it may, within its bytes."""

import gc
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hyperion.gateway.cache.answers import BYPASS, BYPASSED, HIT, MISS, STALE, ResponseCache
from hyperion.gateway.cache.front import MAX_BODY_BYTES, MAX_PER_ENTRY
from hyperion.gateway.cache.memory import CachedAnswer, CacheMemory
from hyperion.policy.cache_worth import LOOKS_PER_S, SAMPLE, Worth
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.protect import Cache
from tests.e2e import cache_collisions as collisions

DIGEST = "sha256:" + "ab" * 32
SECOND = 1_000_000_000
MB = 1 << 20
MARK = object()


def make(
    ttl_s: float = 30.0,
    memory: CacheMemory | None = None,
    draw: Callable[[], float] = lambda: 0.0,
    keeps_stale: bool = False,
    **changes: Any,
) -> ResponseCache:
    return ResponseCache(Cache(ttl_s=ttl_s, **changes), memory or CacheMemory(), draw, keeps_stale)


def call(value: int, size: int = 8) -> InferenceCall:
    return InferenceCall("m", "", "", (Tensor("x", "UINT8", (1, size), value.to_bytes(size, "little")),))


def outputs(value: int, size: int = 8) -> tuple[Tensor, ...]:
    return (Tensor("y", "UINT8", (1, size), value.to_bytes(size, "little")),)


def key_of(cache: ResponseCache, value: int, now_ns: int = 0, tenant: str = "") -> bytes:
    return cache.key(tenant, DIGEST, call(value), now_ns)


def keep(cache: ResponseCache, value: int, now_ns: int = 0, size: int = 8, tenant: str = "") -> CachedAnswer | None:
    return cache.put(key_of(cache, value, now_ns, tenant), outputs(value, size), "1", DIGEST, now_ns)


def test_an_answer_comes_back_with_who_made_it_and_all_times_zero() -> None:
    cache = make()
    key = key_of(cache, 1)
    assert cache.get(key, 0) is None
    cache.put(key, outputs(1), "3", DIGEST, 0)
    found = cache.get(key, SECOND)
    assert found is not None
    answer = found.answer("m")
    assert (answer.model, answer.version, answer.digest, answer.outputs) == ("m", "3", DIGEST, outputs(1))
    assert (answer.served_by, answer.final) == ("cache", True)
    assert (answer.queue_ns, answer.batch_ns, answer.compute_ns) == (0, 0, 0)
    assert (cache.counts[MISS], cache.counts[HIT]) == (1, 1)


def test_tenants_share_answers_only_where_the_endpoint_says_so() -> None:
    apart, together = make(), make(scope="all")
    for cache in (apart, together):
        keep(cache, 1, tenant="a")
    assert apart.get(key_of(apart, 1, tenant="b"), 0) is None
    assert together.get(key_of(together, 1, tenant="b"), 0) is not None


def test_an_answer_ends_with_its_time_and_no_later_than_it_was_told() -> None:
    drawn = iter((0.0, 0.5, 0.999))
    cache = make(ttl_s=10.0, jitter=0.2, draw=lambda: next(drawn))
    for value in (1, 2, 3):
        keep(cache, value)
    for value, ends_ns in ((1, 10 * SECOND), (2, 9 * SECOND), (3, 8.002 * SECOND)):
        key = key_of(cache, value)
        assert cache.get(key, int(ends_ns) - 1) is not None
        assert cache.get(key, int(ends_ns)) is None
    assert cache.counts[STALE] == 3
    assert len(cache) == 0
    assert cache.held_bytes == 0


def test_what_is_stale_is_kept_for_a_fallback_where_there_is_one() -> None:
    cache = make(ttl_s=1.0, keeps_stale=True)
    keep(cache, 7)
    key = key_of(cache, 7)
    assert cache.get(key, 2 * SECOND) is None
    found = cache.last_good(key)
    assert found is not None
    assert found.outputs == outputs(7)
    assert cache.last_good(key_of(cache, 8)) is None


def test_stale_answers_that_nobody_asks_for_go_as_new_ones_come() -> None:
    cache = make(ttl_s=1.0)
    for value in range(100):
        keep(cache, value)
    for value in range(100, 160):
        keep(cache, value, 2 * SECOND)
    assert len(cache) == 60


def test_the_answer_used_longest_ago_leaves_first() -> None:
    cache = make(max_mb=1)
    size = MB // 10
    for value in range(9):
        keep(cache, value, size=size)
    assert cache.get(key_of(cache, 0), 0) is not None
    keep(cache, 9, size=size)
    assert cache.get(key_of(cache, 0), 0) is not None
    assert cache.get(key_of(cache, 1), 0) is None


def test_an_answer_that_would_push_out_too_many_others_is_not_kept() -> None:
    cache = make(max_mb=1)
    assert keep(cache, 1, size=MB // 8) is None
    assert cache.held_bytes == 0
    assert keep(cache, 1, size=MB // 9) is not None


def test_a_view_is_copied_so_that_no_batch_is_kept_alive_for_one_row() -> None:
    cache = make()
    batch = bytearray(1000)
    key = key_of(cache, 1)
    cache.put(key, (Tensor("y", "UINT8", (1, 8), memoryview(batch)[8:16]),), "1", DIGEST, 0)
    batch[8:16] = b"overtake"
    found = cache.get(key, 0)
    assert found is not None
    assert found.outputs[0].data == bytes(8)


def test_the_process_has_one_bound_for_all_endpoints_which_the_largest_pays_for() -> None:
    memory = CacheMemory(MB)
    large, small = make(memory=memory), make(memory=memory)
    for value in range(10):
        keep(small, value, size=100)
    for value in range(200):
        keep(large, value, size=10_000)
    assert memory.held_bytes == large.held_bytes + small.held_bytes <= memory.most_bytes
    assert len(small) == 10
    assert len(large) > 50
    large.close()
    assert memory.held_bytes == small.held_bytes
    assert memory.caches == [small]


def test_an_answer_that_comes_after_the_end_of_its_cache_weighs_nothing() -> None:
    memory = CacheMemory(MB)
    cache = make(memory=memory)
    cache.close()
    assert cache.put(b"k", (Tensor("y", "FP32", (1, 1), bytes(4)),), "1", "d", 0) is None
    assert memory.held_bytes == 0


def test_counted_bytes_are_those_that_python_takes() -> None:
    """At least, and not by far."""
    cache = make(max_mb=64)
    keep(cache, 0)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = cache.held_bytes
    for value in range(1, 4_001):
        key = key_of(cache, value)
        body = b'{"inputs":[%d]}' % value
        entry = cache.put(key, outputs(value, 100), "1", DIGEST, 0)
        assert entry is not None
        if value % 2:
            cache.front.keep(entry, "", DIGEST, "1", MARK, b"", body, 1, b"head: %d\r\n" % value, b"x" * 50 + body, 0)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken <= cache.held_bytes - held <= 2 * taken


# --- the front ---


def hit(cache: ResponseCache, value: int, body: bytes, now_ns: int = 0, mark: object = MARK) -> CachedAnswer:
    entry = cache.get(key_of(cache, value), now_ns) or keep(cache, value, now_ns)
    assert entry is not None
    cache.front.keep(entry, "", DIGEST, "1", mark, b"", body, 1, b"head", b"answer %d" % value, now_ns)
    return entry


def found(cache: ResponseCache, body: object, now_ns: int = 0, mark: object = MARK, **changes: Any) -> bytes | None:
    about: dict[str, Any] = {"tenant": "", "digest": DIGEST, "version": "1", "json_length": b""} | changes
    scope = (about["tenant"], about["digest"], about["version"])
    made = cache.front.find(*scope, mark, about["json_length"], body, now_ns)
    return None if made is None else made.body


def test_the_same_bytes_get_the_same_answer_and_count_as_a_hit() -> None:
    cache = make()
    hit(cache, 1, b"one")
    hits = cache.counts[HIT]
    assert found(cache, b"one") == b"answer 1"
    assert cache.counts[HIT] == hits + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"One"},
        {"body": memoryview(b"one")},
        {"tenant": "other"},
        {"digest": "sha256:" + "cd" * 32},
        {"version": "2"},
        {"json_length": b"3"},
        {"mark": object()},
        {"now_ns": 31 * SECOND},
    ],
)
def test_anything_else_is_decoded(changes: dict[str, Any]) -> None:
    cache = make()
    hit(cache, 1, b"one")
    counted = dict(cache.counts)
    assert (
        found(cache, changes.pop("body", b"one"), changes.pop("now_ns", 0), changes.pop("mark", MARK), **changes)
        is None
    )
    assert cache.counts == counted


def test_the_front_leaves_with_its_entry() -> None:
    cache = make(ttl_s=1.0)
    hit(cache, 1, b"one")
    assert cache.get(key_of(cache, 1), 2 * SECOND) is None
    assert not cache.front.answers
    assert cache.held_bytes == 0
    hit(cache, 2, b"two")
    cache.clear()
    assert not cache.front.answers
    assert cache.held_bytes == 0


def test_nothing_is_kept_for_an_answer_of_another_model_than_the_one_asked_for() -> None:
    cache = make()
    entry = keep(cache, 1)
    assert entry is not None
    cache.front.keep(entry, "", "sha256:other", "1", MARK, b"", b"one", 1, b"", b"", 0)
    assert not cache.front.answers


def test_nothing_is_kept_for_an_entry_that_has_gone_or_for_large_bodies() -> None:
    cache = make()
    entry = hit(cache, 1, b"one")
    cache.front.keep(entry, "", DIGEST, "1", MARK, b"", bytes(MAX_BODY_BYTES + 1), 1, b"", b"", 0)
    assert len(cache.front.answers) == 1
    cache.clear()
    cache.front.keep(entry, "", DIGEST, "1", MARK, b"", b"one", 1, b"", b"", 0)
    assert not cache.front.answers
    assert cache.held_bytes == 0


def test_one_entry_has_only_so_many_ways_of_asking_for_it() -> None:
    cache = make()
    for n in range(20):
        hit(cache, 1, b"%d" % n)
    assert len(cache.front.answers) == MAX_PER_ENTRY
    assert found(cache, b"19") == b"answer 1"
    held = cache.held_bytes
    hit(cache, 1, b"19", mark=None)  # the same again in its place
    assert cache.held_bytes == held
    cache.clear()
    assert not cache.front.answers
    assert cache.held_bytes == 0


# --- whether it pays ---


def test_a_cache_that_never_hits_is_passed_by_but_for_a_few() -> None:
    cache = make(max_mb=64)
    bypassed = 0
    for value in range(60_000):
        key = key_of(cache, value, value * SECOND // 30_000)  # 30,000 a second
        if key == BYPASSED:
            bypassed += 1
        elif cache.get(key, 0) is None:
            cache.put(key, outputs(value), "1", DIGEST, 0)
    assert not cache.worth.pays
    assert cache.counts[BYPASS] == bypassed > 35_000
    assert cache.counts[MISS] == 60_000 - bypassed


def test_where_requests_are_few_all_are_looked_up() -> None:
    cache = make()
    cache.worth = Worth(0.0, 0.0, False)
    for value in range(5_000):
        assert key_of(cache, value, value * SECOND // (LOOKS_PER_S - 50)) != BYPASSED


@pytest.mark.parametrize("distinct", [1, 100, 20_000])
def test_a_cache_that_was_passed_by_is_found_again_when_requests_repeat(distinct: int) -> None:
    """Soon where the same few come again, and after some rounds where many do."""
    cache = make(max_mb=64)
    cache.worth = Worth(0.0, 0.0, False)
    choose = random.Random(5)
    for n in range(400_000):
        value = choose.randrange(distinct)
        key = key_of(cache, value, n * SECOND // 30_000)
        if key != BYPASSED and cache.get(key, 0) is None:
            cache.put(key, outputs(value), "1", DIGEST, 0, model_ns=SECOND // 100)
        if cache.worth.pays and n > 10 * distinct:
            return
    raise AssertionError(cache.worth)


def test_the_sample_is_as_large_as_it_says_and_always_the_same() -> None:
    cache = make()
    cache.worth = Worth(0.0, 0.0, False)
    now_ns = 5 * SECOND
    for value in range(2 * LOOKS_PER_S):
        key_of(cache, value, now_ns)
    kept = [[key_of(cache, value, now_ns) != BYPASSED for value in range(8_000)] for _ in range(2)]
    assert kept[0] == kept[1]
    assert 0.5 / SAMPLE < sum(kept[0]) / 8_000 < 2 / SAMPLE


def test_large_inputs_are_sampled_by_a_part_of_them() -> None:
    cache = make()
    cache.worth = Worth(0.0, 0.0, False)
    for data in (bytes(10_000), memoryview(bytes(10_000)), memoryview(bytes(4)), b""):
        one = InferenceCall("m", "", "", (Tensor("x", "UINT8", (len(data),), data),))
        assert cache.key("", DIGEST, one, 0) != BYPASSED


def test_what_the_model_takes_decides_how_long_looking_pays() -> None:
    """Two caches that never hit: when the one of a cheap model is passed by, that of a dear one is not."""
    cheap, dear = make(), make()
    assert dear.put(key_of(dear, 1), outputs(1), "1", DIGEST, 0, model_ns=SECOND) is not None
    for value in range(2, 100_000):
        cheap.get(key_of(cheap, value), 0)
        dear.get(key_of(dear, value), 0)
        if not cheap.worth.pays:
            break
    assert not cheap.worth.pays
    assert dear.worth.pays


class CacheMachine(RuleBasedStateMachine):
    """Two caches and their memory, against a plain dictionary that never forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = CacheMemory(40_000)
        self.caches = [make(ttl_s=5.0, memory=self.memory, keeps_stale=stale) for stale in (False, True)]
        self.truth: dict[tuple[int, int], tuple[int, tuple[Tensor, ...]]] = {}
        self.now_ns = 0

    @rule(which=st.integers(0, 1), value=st.integers(0, 40), size=st.sampled_from([8, 100, 3_000]))
    def put(self, which: int, value: int, size: int) -> None:
        if keep(self.caches[which], value, self.now_ns, size) is not None:
            self.truth[which, value] = self.now_ns, outputs(value, size)

    @rule(which=st.integers(0, 1), value=st.integers(0, 40))
    def get(self, which: int, value: int) -> None:
        entry = self.caches[which].get(key_of(self.caches[which], value), self.now_ns)
        if entry is not None:
            made_ns, made = self.truth[which, value]
            assert entry.outputs == made
            assert self.now_ns < made_ns + 5 * SECOND
            body = b"%d" % value
            self.caches[which].front.keep(entry, "", DIGEST, "1", MARK, b"", body, 1, b"", body, self.now_ns)

    @rule(which=st.integers(0, 1), value=st.integers(0, 40))
    def find(self, which: int, value: int) -> None:
        body = found(self.caches[which], b"%d" % value, self.now_ns)
        assert body in (None, b"%d" % value)
        assert body is None or self.now_ns < self.truth[which, value][0] + 5 * SECOND

    @rule(seconds=st.integers(0, 3))
    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND

    @invariant()
    def bytes_add_up(self) -> None:
        assert self.memory.held_bytes == sum(cache.held_bytes for cache in self.caches) <= self.memory.most_bytes
        for cache in self.caches:
            entries = list(cache._entries.values())
            assert cache.held_bytes == sum(entry.size_bytes for entry in entries)
            fronts = [made for entry in entries for made in entry.front or ()]
            assert {id(made) for made in fronts} == {id(made) for made in cache.front.answers.values()}


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_requests_built_to_collide_never_get_each_others_answers() -> None:
    """A short run of `tests/e2e/cache_collisions.py`; and the run does find a cache that mixes them up."""
    said: list[str] = []
    assert collisions.run(3_000, 2, said.append) == 0
    assert "0 wrong answers" in said[0]


@pytest.mark.interpreted
def test_the_run_of_collisions_finds_a_key_that_leaves_something_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperion.gateway.cache.answers.make_key", lambda scope, digest, one: bytes(one.inputs[0].data))
    assert collisions.run(3_000, 2, lambda _: None) == 1
