"""The shadow gets copies of what was answered, answers nobody, and is compared with what was said."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec import structs

from hyperion.gateway.release.compare import compare, first_text
from hyperion.gateway.release.counts import MAX_VALUES, MAX_VALUES_PER_S, Counts
from hyperion.gateway.release.shadow import MAX_OPEN, MAX_SLICES, Pairs
from hyperion.schema.call import Tensor
from hyperion.schema.release import PairCounts, Split, Track
from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.tensor import from_numpy
from tests.gateway.runners import Fifo, config_of, served_by, start_runner, stop_runner
from tests.gateway.serving import Serving, infer, on_uvloop, serving


def split_of(share: float = 1.0, epoch: int = 1, **more: object) -> Split:
    return structs.replace(Split(epoch, "salt", (Track("1", 1.0),), "2", share), **more)


def shadow_of(served: ServedVersion) -> ServedVersion:
    return structs.replace(served, version="2", digest="sha256:" + "cd" * 32)


def pairs_of(gateway: Serving) -> PairCounts:
    (pairs,) = gateway.counts.content(0)[1]
    return pairs


@on_uvloop
async def test_every_answered_request_is_copied_compared_and_counted_for_the_shadow_alone(
    obedient: ServedVersion,
) -> None:
    async with serving(access_log=False) as gateway:
        await gateway.release(split_of(slice_input="command"), obedient, shadow_of(obedient))
        with await gateway.connect() as client:
            for command in ["a", "b", "a", "c"]:
                answer = await client.ask(infer(command))
                assert answer.headers["x-hyperion-model-version"] == "1"
                assert answer.said == [command]
            assert (await client.ask(infer("raise"))).status == 500  # there is nothing to compare it with
            path = "/v2/models/obedient/versions/1/infer"
            assert (await client.ask(infer("x", path=path))).status == 200  # nor was this one of the split
        await gateway.until(lambda: pairs_of(gateway).pairs == 4)
        pairs, tracks = pairs_of(gateway), gateway.tracks()
        # `turn` counts the batches of the model, so that a copy's is another one; what is `said` is the same.
        assert (pairs.flips, pairs.disagreements, pairs.failed, pairs.dropped) == (0, 4, 0, 0)
        assert pairs.abs_sum >= 4
        assert pairs.slices == {"a": (2, 2), "b": (1, 1), "c": (1, 1)}
        assert (tracks[1, "1", False].requests, tracks[1, "1", False].errors) == (5, 1)
        assert (tracks[1, "2", True].requests, tracks[1, "2", True].errors) == (4, 0)
        assert sum(tracks[1, "2", True].latency) == 4
        shown = gateway.metrics.collect().counters["hyperion_requests_total"]
        assert sum(shown.values()) == 6
        assert all(version == "1" for _, version, _, _ in shown)


@on_uvloop
async def test_a_shadow_that_fails_or_is_stuck_costs_no_caller_anything(
    obedient: ServedVersion, tmp_path: Path
) -> None:
    config = config_of(tmp_path, 1)
    process = start_runner(config)
    try:
        async with serving(access_log=False) as gateway:
            shadow = structs.replace(served_by([config]), version="2")
            await gateway.release(split_of(), obedient, shadow)
            fifo = Fifo(tmp_path, "stuck")
            with await gateway.connect() as client:
                pool = gateway.router.table.find("obedient", "2")
                # A caller of the shadow's own holds it, so that copies queue up behind him.
                path = "/v2/models/obedient/versions/2/infer"
                with await gateway.connect() as holder:
                    holder.send(infer(fifo.command, path=path))
                    await fifo.reached()
                    for _ in range(MAX_OPEN + 10):
                        assert (await client.ask(infer("x"))).status == 200
                    await gateway.until(lambda: pairs_of(gateway).dropped == 10)
                    assert pairs_of(gateway).pairs == 0
                    fifo.release()
                    assert (await holder.answer()).status == 200
                await gateway.until(lambda: pairs_of(gateway).pairs == MAX_OPEN)
                assert gateway.counts.mirrors["obedient", 1].open == 0
                # Now it dies with copies in its hands: they are not tried again.
                fifo = Fifo(tmp_path, "dying")
                with await gateway.connect() as holder:
                    holder.send(infer(fifo.command, path=path))
                    await fifo.reached()
                    for _ in range(5):
                        assert (await client.ask(infer("y"))).status == 200
                    await gateway.until(lambda: gateway.counts.mirrors["obedient", 1].open == 5)
                    await gateway.until(lambda: pool.queue_state().running_rows >= 6)
                    process.kill()
                    await gateway.until(lambda: pairs_of(gateway).failed == 5)
                    assert gateway.counts.mirrors["obedient", 1].open == 0
                    track = gateway.tracks()[1, "2", True]
                    assert (track.errors, track.reasons) == (5, {"runner_lost": 5})
                await gateway.until(lambda: not pool.ready)
                assert (await client.ask(infer("z"))).status == 200
                assert pairs_of(gateway).dropped == 11
    finally:
        stop_runner(process)


@on_uvloop
async def test_what_both_predicted_is_kept_pair_by_pair_only_where_it_is_asked_for(obedient: ServedVersion) -> None:
    async with serving(access_log=False) as gateway:
        versions = (obedient, shadow_of(obedient))
        await gateway.release(split_of(), *versions)
        with await gateway.connect() as client:
            assert (await client.ask(infer("a", x_request_id="unasked"))).status == 200
            await gateway.until(lambda: pairs_of(gateway).pairs == 1)
            assert gateway.counts.content(9)[4] == ()
            await gateway.release(split_of(epoch=2, keep_values=True), *versions)
            client.send(*[infer(f"say{number}", x_request_id=f"id{number}") for number in range(16)])  # share batches
            for _ in range(16):
                await client.answer()
            assert (await client.ask(infer("raise", x_request_id="failed"))).status == 500
            await gateway.until(lambda: len(gateway.counts.content(99)[4]) == 16)
        kept = gateway.counts.content(99)[4]
        assert {(pair.id, pair.given, pair.shadow) for pair in kept} == {
            (f"id{number}", f"say{number}", f"say{number}") for number in range(16)
        }
        assert {(pair.endpoint, pair.epoch) for pair in kept} == {("obedient", 2)}
        gateway.counts.acknowledge(gateway.counts.revision, 0, 10)
        assert gateway.counts.content(99)[4] == kept[10:]
        assert gateway.counts.revision != gateway.counts.acknowledged, "there is more to tell"


def test_so_many_pairs_of_a_second_are_kept_and_the_others_counted() -> None:
    now = [100.0]
    counts = Counts(clock_s=lambda: now[0])
    for second in (100.0, 101.0):
        now[0] = second
        for number in range(MAX_VALUES_PER_S + 5):
            counts.keep_values(f"{second}-{number}", "e", 1, "x", "y")
    kept = counts.content(9_999)[4]
    assert [pair.time for pair in kept] == [100.0] * MAX_VALUES_PER_S + [101.0] * MAX_VALUES_PER_S
    assert (counts.take_dropped(), counts.take_dropped()) == (10, 0)
    for now[0] in map(float, range(102, 160)):
        for number in range(MAX_VALUES_PER_S):
            counts.keep_values(f"{now[0]}-{number}", "e", 1, "x", "y")
    assert len(counts.content(99_999)[4]) == MAX_VALUES


@on_uvloop
async def test_a_share_of_the_requests_is_copied(obedient: ServedVersion) -> None:
    async with serving(access_log=False) as gateway:
        await gateway.release(split_of(0.25), obedient, shadow_of(obedient))
        with await gateway.connect() as client:
            for _ in range(20):
                client.send(*[infer("x")] * 20)
                for _ in range(20):
                    await client.answer()
        await gateway.until(lambda: gateway.counts.mirrors["obedient", 1].open == 0)
        pairs = pairs_of(gateway)
        assert abs(pairs.pairs + pairs.dropped - 100) < 4 * math.sqrt(400 * 0.25 * 0.75)


def f32(*rows: tuple[float, ...]) -> Tensor:
    return from_numpy("y", np.array(rows, np.float32), "FP32")


def text(*rows: str) -> Tensor:
    return from_numpy("y", np.array([[row] for row in rows], dtype=object), "BYTES")


@pytest.mark.parametrize(
    ("one", "other", "flipped", "disagrees", "largest"),
    [
        (f32((0.1, 0.9)), f32((0.1, 0.9)), False, False, 0.0),
        (f32((0.1, 0.9)), f32((0.1, 0.9001)), False, False, 0.0001),
        (f32((0.1, 0.9)), f32((0.3, 0.7)), False, True, 0.2),
        (f32((0.1, 0.9)), f32((0.9, 0.1)), True, True, 0.8),
        (f32((0.0, 1.0)), f32((1e-7, 1.0)), False, False, 1e-7),
        (f32((3.0,)), f32((4.0,)), False, True, 1.0),
        (f32((math.nan, 1.0)), f32((math.nan, 1.0)), False, False, 0.0),
        (f32((math.nan,)), f32((1.0,)), False, True, 0.0),
        (f32((math.inf,)), f32((1.0,)), False, True, 0.0),
        (text("cat", "dog"), text("cat", "dog"), False, False, 0.0),
        (text("cat", "dog"), text("cat", "cow"), True, True, 0.0),
        (f32((1.0, 2.0)), f32((1.0, 2.0), (3.0, 4.0)), True, True, 0.0),
        (from_numpy("y", np.array([[3]]), "INT64"), from_numpy("y", np.array([[4]]), "INT64"), True, True, 1.0),
        (from_numpy("y", np.array([[True]]), "BOOL"), from_numpy("y", np.array([[False]]), "BOOL"), True, True, 1.0),
        (
            from_numpy("y", np.ones((1, 2), "f4"), "BF16"),
            from_numpy("y", np.ones((1, 2), "f4"), "BF16"),
            *[False] * 2,
            0,
        ),
    ],
)
def test_a_pair_is_compared(one: Tensor, other: Tensor, flipped: bool, disagrees: bool, largest: float) -> None:
    found = compare([one], [other])
    assert (found.flipped, found.disagrees) == (flipped, disagrees)
    assert found.largest == pytest.approx(largest, rel=1e-3, abs=1e-12)


def test_an_output_that_is_missing_disagrees_and_a_second_one_flips_nothing() -> None:
    first, second = f32((0.1, 0.9)), Tensor("z", "FP32", (1, 1), struct.pack("<f", 1.0))
    assert compare([first], []).flipped
    found = compare([first, second], [first])
    assert (found.flipped, found.disagrees) == (False, True)


@given(arrays.arrays(np.float64, (2, 3)), arrays.arrays(np.float64, (2, 3)))
def test_whatever_the_numbers_are_the_sums_stay_finite(one: np.ndarray, other: np.ndarray) -> None:
    pairs = Pairs("e", 1)
    for _ in range(3):
        pairs.add((from_numpy("y", one, "FP64"),), (from_numpy("y", other, "FP64"),), None)
    counts = pairs.counts()
    sums = (counts.abs_sum, counts.abs_max, counts.x, counts.y, counts.xx, counts.yy, counts.xy)
    assert all(map(math.isfinite, sums))
    assert counts.flips <= counts.disagreements <= counts.pairs == 3


@given(st.lists(st.text(max_size=3), max_size=80))
def test_slices_are_bounded_and_lose_no_pair(names: list[str]) -> None:
    pairs = Pairs("e", 1)
    for name in names:
        pairs.add((f32((1.0,)),), (f32((2.0,)),), name)
    slices = pairs.counts().slices
    assert len(slices) <= MAX_SLICES
    assert sum(total for total, _ in slices.values()) == len(names)


def test_the_sums_give_the_correlation() -> None:
    numbers = np.random.default_rng(1).normal(size=(200, 2))
    pairs = Pairs("e", 1)
    for x, y in numbers:
        pairs.add((from_numpy("y", np.array([[x]]), "FP64"),), (from_numpy("y", np.array([[x + y]]), "FP64"),), None)
    c = pairs.counts()
    n = c.pairs
    r = (n * c.xy - c.x * c.y) / math.sqrt((n * c.xx - c.x**2) * (n * c.yy - c.y**2))
    assert r == pytest.approx(np.corrcoef(numbers[:, 0], numbers.sum(axis=1))[0, 1])


@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        (text("DE"), "DE"),
        (f32((2.5,)), "2.5"),
        (from_numpy("y", np.array([7]), "INT32"), "7"),
        (Tensor("y", "BYTES", (0,), b""), ""),
    ],
)
def test_a_slice_is_named_by_the_first_value(tensor: Tensor, name: str) -> None:
    assert first_text(tensor) == name
