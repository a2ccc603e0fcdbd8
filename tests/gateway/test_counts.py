"""Each request of a split is one event of the version that answered it, in the epoch in which it was assigned."""

import asyncio
import math
from collections.abc import Callable

import numpy as np
import pytest
from msgspec import structs

from hyperion.gateway.pending import UNHEARD, PendingCall
from hyperion.gateway.release.binning import Binner, kind_of, predictions, value_of
from hyperion.gateway.release.counts import KEPT_EPOCHS, MAX_PREDICTIONS, Counts
from hyperion.gateway.release.tally import BOUNDS_NS, BUCKETS, MAX_REASONS
from hyperion.schema import errors
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.release import OutputBins, Split, Track
from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.tensor import from_numpy
from tests.gateway.runners import Fifo
from tests.gateway.serving import generate, infer, on_uvloop, serving


def split_of(epoch: int = 1, canary: float = 0.0, **more: object) -> Split:
    return structs.replace(Split(epoch, "salt", (Track("1", 1 - canary), Track("2", canary))), **more)


def canary_of(served: ServedVersion) -> ServedVersion:
    return structs.replace(served, version="2")


@on_uvloop
async def test_answers_errors_and_slow_requests_are_counted_once_each(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(access_log=False) as gateway:
        await gateway.release(split_of(slow_ns=2_000_000_000), obedient, canary_of(obedient))
        with await gateway.connect() as client:
            for command, status in (("a", 200), ("b", 200), ("raise", 500)):
                assert (await client.ask(infer(command))).status == status
            client.send(*[infer("x")] * 16)  # these share a batch
            assert [(await client.answer()).status for _ in range(16)] == [200] * 16
            assert (await client.ask(generate("count:3"))).status == 200
            assert (await client.ask(infer("a", path="/v2/models/obedient/infer", parameters={"q": 1}))).status == 200
            fifo = new_fifo()
            client.send(infer(fifo.command))
            await fifo.reached()
            await asyncio.sleep(2.1)
            fifo.release()
            assert (await client.answer()).status == 200
            fifo = new_fifo()
            client.send(infer(fifo.command, x_request_timeout_ms=500))
            await fifo.reached()
            assert (await client.answer()).status == 504
            fifo.release()
        track = gateway.tracks()[1, "1", False]
        assert track.requests == 3 + 16 + 1 + 1 + 1 + 1
        assert (track.errors, track.reasons) == (2, {"model_failed": 1, "deadline_exceeded": 1})
        assert track.slow == 1
        assert sum(track.latency) == track.requests
        assert len(track.latency) == BUCKETS


@on_uvloop
async def test_what_never_reached_the_version_is_no_event_and_who_leaves_is_no_error(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(access_log=False) as gateway:
        await gateway.release(split_of(), obedient, canary_of(obedient))
        with await gateway.connect() as client:
            bad = b'{"inputs":[{"name":"command","shape":[1,2],"datatype":"BYTES","data":["a","b"]}]}'
            head = b"POST /v2/models/obedient/infer HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n" % len(bad)
            assert (await client.ask(head + bad)).status == 422
            assert gateway.tracks() == {}
            fifo = new_fifo()
            client.send(infer(fifo.command))
            await fifo.reached()
        await gateway.until(gateway.tracks)
        fifo.release()
        track = gateway.tracks()[1, "1", False]
        assert (track.requests, track.errors, track.reasons) == (1, 0, {})


@on_uvloop
async def test_a_request_counts_in_the_epoch_in_which_it_was_assigned(
    obedient: ServedVersion, new_fifo: Callable[[], Fifo]
) -> None:
    async with serving(access_log=False) as gateway:
        versions = (obedient, canary_of(obedient))
        await gateway.release(split_of(1), *versions)
        with await gateway.connect() as client, await gateway.connect() as other:
            fifo = new_fifo()
            client.send(infer(fifo.command))
            await fifo.reached()
            await gateway.release(split_of(2, canary=1.0), *versions)
            other.send(infer("y"))
            fifo.release()
            assert (await client.answer()).headers["x-hyperion-model-version"] == "1"
            assert (await other.answer()).headers["x-hyperion-model-version"] == "2"
        assert {key: track.requests for key, track in gateway.tracks().items()} == {
            (1, "1", False): 1,
            (2, "2", False): 1,
        }


@on_uvloop
async def test_predictions_are_sampled_and_binned(obedient: ServedVersion) -> None:
    async with serving(access_log=False) as gateway:
        versions = (obedient, canary_of(obedient))
        await gateway.release(split_of(1, sampling=True), *versions)
        with await gateway.connect() as client:
            for command in ("cat", "dog", "cat"):
                await client.ask(infer(command, "not this row"))
            (sample,) = gateway.counts.content(0)[2]
            assert (sample.output, sample.kind, sample.labels, sample.epoch) == (
                "said",
                "label",
                ("cat", "dog", "cat"),
                1,
            )
            await gateway.release(split_of(2, bins=OutputBins("said", labels=("cat", "dog"))), *versions)
            client.send(*[infer(command) for command in ("cat", "cow", "cat", "dog", "raise")])
            for _ in range(5):
                await client.answer()
            tracks = gateway.tracks()
            assert tracks[2, "1", False].bins == (2, 1, 1)
            assert tracks[1, "1", False].bins == ()
            bins = OutputBins("rows", edges=(1.0, 2.0))
            await gateway.release(split_of(3, bins=bins), *versions)
            await client.ask(infer("a"))
            await client.ask(infer("a", "b", "c"))
            assert gateway.tracks()[3, "1", False].bins == (1, 0, 1)


@on_uvloop
async def test_a_share_of_all_predictions_is_logged_with_and_without_a_split(obedient: ServedVersion) -> None:
    async with serving(access_log=False) as gateway:
        await gateway.release(None, obedient, log_sample=1.0)
        with await gateway.connect() as client:
            assert (await client.ask(infer("a", x_request_id="one"))).status == 200
            await gateway.release(split_of(7), obedient, canary_of(obedient), log_sample=1.0)
            assert (await client.ask(infer("a", x_request_id="two"))).status == 200
            assert (await client.ask(infer("raise", x_request_id="three"))).status == 500
            path = "/v2/models/obedient/versions/2/infer"
            assert (await client.ask(infer("a", path=path, x_request_id="four"))).status == 200
            rows = {row.id: (row.version, row.epoch, row.code) for row in gateway.counts.content(100)[3]}
            assert rows == {
                "one": ("1", 0, "ok"),
                "two": ("1", 7, "ok"),
                "three": ("1", 7, "model_failed"),
                "four": ("2", 0, "ok"),
            }
            await gateway.release(None, obedient, log_sample=0.25)
            for _ in range(10):
                client.send(*[infer("x")] * 20)
                for _ in range(20):
                    await client.answer()
        logged = len(gateway.counts.content(1000)[3]) - 4
        assert abs(logged - 50) < 4 * math.sqrt(200 * 0.25 * 0.75)


def tally_of(counts: Counts, served: ServedVersion, epoch: int = 1, **more: object):  # type: ignore[no-untyped-def]
    return counts.tally("e", served, split_of(epoch, **more))


def a_call() -> PendingCall:
    return PendingCall(InferenceCall("e", "", "", ()), UNHEARD, "http", "id", 0)


def test_predictions_that_nobody_takes_are_dropped_and_counted(obedient: ServedVersion) -> None:
    counts = Counts(lambda: 0.0, lambda: 5.0)
    tally = tally_of(counts, obedient)
    tally.log_sample = 1.0
    for number in range(MAX_PREDICTIONS + 7):
        counts.log(tally, f"id{number}", "ok", 1_000_000)
    assert (counts.take_dropped(), counts.take_dropped()) == (7, 0)
    rows = counts.content(1000)[3]
    assert [row.id for row in rows] == [f"id{number}" for number in range(1000)]
    assert (rows[0].time, rows[0].latency_ms) == (5.0, 1.0)
    counts.acknowledge(counts.revision, 1000)
    assert counts.content(1)[3][0].id == "id1000"
    assert counts.revision != counts.acknowledged


def test_old_epochs_go_once_control_has_them_and_reasons_are_bounded(obedient: ServedVersion) -> None:
    counts = Counts()
    counts.endpoints = frozenset(("e",))
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HyperionError)
    ]
    for epoch in range(KEPT_EPOCHS + 5):
        tally = tally_of(counts, obedient, epoch)
        for kind in kinds:
            tally.ended(a_call(), kind("no"), 1000)
    guilty = sum(kind.blame != "caller" for kind in kinds)
    assert tally.errors == guilty > MAX_REASONS
    assert (len(tally.reasons), sum(tally.reasons.values())) == (MAX_REASONS + 1, guilty)
    seen = counts.revision
    last = tally_of(counts, obedient, 0)
    last.ended(a_call(), None, 1000)
    counts.acknowledge(seen, 0)
    epochs = [track.epoch for track in counts.content(0)[0]]
    assert epochs == [0, *range(5, KEPT_EPOCHS + 5)]  # control does not know yet how epoch 0 went on
    counts.endpoints = frozenset()
    counts.acknowledge(counts.revision, 0)
    assert counts.content(0)[0] == ()


def test_buckets_are_quarter_powers_of_two_of_microseconds(obedient: ServedVersion) -> None:
    for nanoseconds in (0, 1, 999, 1000, 1001, 1189, 1190, 5_000, 1_000_000, 10**9, 10**12, 10**16):
        tally = tally_of(Counts(), obedient)
        tally.ended(a_call(), None, nanoseconds)
        (bucket,) = [index for index, count in enumerate(tally.latency) if count]
        expected = max(0, math.ceil(4 * math.log2(max(nanoseconds / 1000, 1e-9)) - 1e-9))
        assert bucket == min(expected, BUCKETS - 1)
    assert BOUNDS_NS[4] == 2000


def outputs(array: np.ndarray, datatype: str) -> Tensor:
    return from_numpy("y", array, datatype)


@pytest.mark.parametrize(
    ("tensor", "kind", "numbers", "labels"),
    [
        (outputs(np.array([[0.5], [math.inf]]), "FP32"), "number", [0.5, math.inf], []),
        (outputs(np.array([0.5, 1.5]), "FP64"), "number", [0.5, 1.5], []),
        (outputs(np.array([[0.1, 0.7, 0.2], [3, 2, 1]]), "FP32"), "class", [1.0, 0.0], []),
        (outputs(np.array([[0.1, 0.7], [3, 2]]), "BF16"), "class", [1.0, 0.0], []),
        (outputs(np.array([[3], [-1]]), "INT64"), "label", [3.0, -1.0], ["3", "-1"]),
        (outputs(np.array([[True], [False]]), "BOOL"), "label", [1.0, 0.0], ["1", "0"]),
        (outputs(np.array([["a", "b"], ["c", "d"]]), "BYTES"), "label", [], ["a", "c"]),
        (outputs(np.zeros((2, 0), np.float32), "FP32"), "number", [], []),
    ],
)
def test_a_prediction_is_a_number_a_class_or_a_label(
    tensor: Tensor, kind: str, numbers: list[float], labels: list[str]
) -> None:
    assert predictions([(tensor, None)]) == (numbers, labels)
    assert kind_of(tensor) == kind
    assert predictions([(tensor, [1])]) == (numbers[1:], labels[1:])
    assert predictions([(tensor, None), (tensor, [0])]) == (numbers + numbers[:1], labels + labels[:1])


@pytest.mark.parametrize(
    ("bins", "numbers", "labels", "counts"),
    [
        (OutputBins("y", edges=(1.0, 2.0)), [0.0, 1.0, 1.5, 2.0, 9.0, math.nan], [], [2, 2, 2]),
        (OutputBins("y", labels=("a", "b")), [], ["a", "b", "b", "z"], [1, 2, 1]),
        (OutputBins("y", labels=("0", "2"), argmax=True), [0.0, 2.0, 2.0, 1.0], [], [1, 2, 1]),
        (OutputBins("y"), [1.0], [], [1]),
    ],
)
def test_a_prediction_falls_into_one_bin(
    bins: OutputBins, numbers: list[float], labels: list[str], counts: list[int]
) -> None:
    binner = Binner(bins)
    found = [0] * binner.size
    binner.count(numbers, labels, found)
    assert found == counts


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        (outputs(np.array([[0.1], [7.0]]), "FP32"), "0.1"),
        (outputs(np.array([[3.0]]), "FP64"), "3"),
        (outputs(np.array([[0.1, 0.7, 0.2], [3, 2, 1]]), "FP32"), "1"),
        (outputs(np.array([[0.1, 0.7]]), "BF16"), "1"),
        (outputs(np.array([[2**60 + 1]]), "INT64"), str(2**60 + 1)),
        (outputs(np.array([[-1]]), "INT8"), "-1"),
        (outputs(np.array([[2**64 - 1]], np.uint64), "UINT64"), str(2**64 - 1)),
        (outputs(np.array([[True]]), "BOOL"), "1"),
        (outputs(np.array([["é" * 99, "b"]]), "BYTES"), "é" * 64),
        (outputs(np.array([[math.nan]]), "FP32"), "nan"),
        (outputs(np.zeros((0, 1), np.float32), "FP32"), None),
        (outputs(np.zeros((1, 0), np.float32), "FP32"), None),
    ],
)
def test_a_prediction_is_written_as_a_label_would_say_it(tensor: Tensor, value: str | None) -> None:
    other = from_numpy("z", np.array([[9]]), "INT64")
    assert value_of([other, tensor], "y") == value
    assert value_of([tensor], "z") is None
