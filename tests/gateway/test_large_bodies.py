"""Large bodies take another way into memory: the requests are the same, and no memory is shared or kept too long."""

import asyncio
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.gateway.http import large_body
from hyperion.gateway.http import protocol as http
from hyperion.gateway.http.large_body import LARGEST_BYTES, SMALLEST_BYTES, BodyMemory
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import infer, on_uvloop, serving
from tests.gateway.wires import CONFIG, Edge, feed

MIB = 1 << 20
SMALL = b"POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"
CHUNKED = b"POST /chunked HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


def large(size: int, mark: int) -> bytes:
    body = bytes([65 + mark % 26]) * (size - 1) + b"."
    return b"POST /large%d HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (mark, size, body)


LARGE = st.builds(large, st.integers(SMALLEST_BYTES - 2, SMALLEST_BYTES + 30_000), st.integers(0, 9))


@settings(max_examples=60)
@given(st.lists(LARGE | st.sampled_from([SMALL, CHUNKED]), min_size=1, max_size=4), st.data(), st.booleans())
def test_the_requests_are_the_same_however_they_are_cut(requests: list[bytes], data: st.DataObject, tls: bool) -> None:
    stream = b"".join(requests)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
    edges = [0, *sorted(places), len(stream)]
    pieces = [stream[start:stop] for start, stop in itertools.pairwise(edges)]
    seen = []
    for smallest in (SMALLEST_BYTES, LARGEST_BYTES + 1):
        edge = Edge(at_once=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(http, "SMALLEST_BYTES", smallest)
            connection, wire = edge.connect()
            wire.tls = tls or None
            feed(wire, pieces)
        assert len(edge.seen) == len(requests)
        assert edge.edge.buffered_bytes == 0
        assert wire.protocol is connection
        seen.append([(one.method, one.path, one.headers, bytes(one.body)) for one in edge.seen])
    assert seen[0] == seen[1]


def test_a_body_over_the_limit_is_refused_before_it_arrives() -> None:
    edge = Edge()
    _, wire = edge.connect()
    feed(wire, [large(CONFIG.max_body_bytes + 1, 0)[:SMALLEST_BYTES]])
    assert wire.written.startswith(b"HTTP/1.1 413 ")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, LARGEST_BYTES + 10)),
        st.tuples(st.just("take"), st.integers(SMALLEST_BYTES, 2 * SMALLEST_BYTES)),
        st.tuples(st.just("give"), st.integers(0, 50)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS)
def test_nobody_gets_memory_that_another_looks_at_and_no_more_than_allowed_is_kept(
    steps: list[tuple[str, int]],
) -> None:
    memory = BodyMemory(kept_bytes=8 * MIB)
    held: list[tuple[memoryview, memoryview, int]] = []
    for number, (verb, what) in enumerate(steps):
        if verb == "take":
            view = memory.take(what)
            if view is None:
                taken = sum(len(whole) for whole, _part, _mark in held)
                assert not SMALLEST_BYTES <= what <= LARGEST_BYTES or taken * 1.3 + what * 1.3 > 8 * MIB
                continue
            assert len(view) == what
            view[0] = view[-1] = number % 256
            held.append((view, view[what // 2 :], number % 256))  # a tensor cut out of it keeps it, too
        elif held:
            whole, part, _mark = held.pop(what % len(held))
            whole.release()
            part.release()
        assert memory._held_bytes <= 8 * MIB
        assert memory._held_bytes == sum(room for room, _block in memory._all())
        for whole, part, mark in held:
            assert whole[0] == part[-1] == mark


def test_memory_that_nobody_looks_at_is_used_again() -> None:
    memory = BodyMemory()
    for _ in range(10):
        view = memory.take(MIB)
        assert view is not None
        view.release()
    assert memory._held_bytes == MIB


@on_uvloop
async def test_large_requests_one_after_the_other_and_at_once_keep_their_own_bodies(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), max_body_bytes=16 * MIB, access_log=False) as gateway:
        texts = [letter * (100_000 + 300_000 * number) for number, letter in enumerate("abcdef")]

        async def ask(text: str) -> None:
            with await gateway.connect() as client:
                for _ in range(4):
                    assert (await client.ask(infer(text))).said == [text]
                client.send(infer(text), infer("small"), infer(text))
                assert [(await client.answer()).said for _ in range(3)] == [[text], ["small"], [text]]

        await asyncio.gather(*map(ask, texts))


@on_uvloop
async def test_a_large_body_that_stalls_is_refused_and_one_whose_sender_leaves_is_forgotten(
    obedient: ServedVersion,
) -> None:
    data = infer("x" * 400_000)
    async with serving(("obedient", obedient), body_timeout_s=5.0) as gateway:
        with await gateway.connect() as slow, await gateway.connect() as gone:
            slow.send(data[:300_000])
            gone.send(data[:300_000])
            await gateway.until(lambda: gateway.edge.buffered_bytes > 590_000)
            gone.leave()
            await gateway.until(lambda: len(gateway.edge.connections) == 1)
            gateway.tick(6.0)
            assert (await slow.answer()).status == 408
            assert await slow.rest() == b""
            assert gateway.edge.buffered_bytes == 0
        assert (await gateway.ask(data)).status == 200


@on_uvloop
async def test_a_large_body_that_waits_in_the_queue_is_not_overwritten_by_the_next(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        with await gateway.connect() as holder:
            fifo = new_fifo()
            holder.send(infer(fifo.command))
            await fifo.reached()
            clients = [await gateway.connect() for _ in range(4)]
            texts = [letter * 200_000 for letter in "abcd"]
            for client, text in zip(clients, texts, strict=True):
                client.send(infer(text))
            state = gateway.pool().queue_state
            await gateway.until(lambda: state().queued_rows + state().running_rows == 5)
            fifo.release()
            for client, text in zip(clients, texts, strict=True):
                assert (await client.answer()).said == [text]
                client.leave()


def test_the_sizes_make_sense() -> None:
    assert SMALLEST_BYTES < LARGEST_BYTES < large_body.KEPT_BYTES
