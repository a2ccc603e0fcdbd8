"""The pipeline as edges without a look ahead (gRPC) use it, and what it remembers of its callers."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from hyperion.schema.call import BatchAnswer, InferenceAnswer, InferenceCall, Tensor
from hyperion.schema.errors import HyperionError
from hyperion.schema.snapshot import ServedVersion
from tests.gateway.runners import Fifo
from tests.gateway.serving import Serving, infer, on_uvloop, serving

ONE = Tensor("command", "BYTES", (1, 1), b"\x01\x00\x00\x00x")


class Kept:
    """A reply that keeps what it was told."""

    together: Any = None

    def __init__(self) -> None:
        self.answers: list[InferenceAnswer] = []
        self.errors: list[HyperionError] = []

    def answer(self, answer: InferenceAnswer) -> None:
        self.answers.append(answer)

    def send(self, message: bytes) -> None:
        raise ZeroDivisionError(message)

    def fail(self, error: HyperionError) -> None:
        self.errors.append(error)


def submit(gateway: Serving, call: InferenceCall, stream: bool = False) -> Kept:
    kept = Kept()
    gateway.pipeline.submit(call, kept, protocol="http", request_id="id", received_ns=1, stream=stream)
    return kept


@on_uvloop
async def test_a_call_for_a_model_or_version_that_is_not_there_fails_and_makes_no_series(
    obedient: ServedVersion,
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        for number in range(5):
            for model, version in ((f"m{number}", ""), ("obedient", f"{number + 2}")):
                (error,) = submit(gateway, InferenceCall(model, version, "", (ONE,))).errors
                assert error.code == "unknown_model"
        series = gateway.metrics.collect().counters["hyperion_requests_total"]
        assert series == {("other", "other", "http", "404"): 5.0, ("obedient", "other", "http", "404"): 5.0}


@on_uvloop
async def test_a_stream_from_a_model_that_has_none_is_refused(obedient: ServedVersion) -> None:
    plain = structs.replace(obedient, signature=structs.replace(obedient.signature, streams=False))
    async with serving(("obedient", plain)) as gateway:
        (error,) = submit(gateway, InferenceCall("obedient", "", "", (ONE,)), stream=True).errors
        assert error.code == "schema_mismatch"


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ((), (), 'missing input: "command" (BYTES [-1, 1])'),
        ((ONE, ONE), (), 'input "command" is unknown'),
        ((ONE, Tensor("other", "FP32", (2, 1), bytes(8))), (), 'input "other": has 2 rows, but "command" has 1'),
        ((ONE, Tensor("other", "FP32", (1, 1), bytes(4))), (), 'input "other" is unknown'),
        ((Tensor("command", "FP32", (1, 1), bytes(4)),), (), "expected BYTES [-1, 1], got FP32 [1, 1]"),
        ((ONE,), ("nothing",), 'output "nothing" is unknown; this model gives rows, said, turn'),
    ],
)
@on_uvloop
async def test_a_call_that_does_not_fit_the_signature_is_told_what_is_expected(
    obedient: ServedVersion, inputs: tuple[Tensor, ...], outputs: tuple[str, ...], words: str
) -> None:
    async with serving(("obedient", obedient)) as gateway:
        (error,) = submit(gateway, InferenceCall("obedient", "", "", inputs, outputs)).errors
        assert error.code == "schema_mismatch"
        assert words in error.message


@on_uvloop
async def test_what_callers_write_into_parameters_is_not_remembered(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient)) as gateway:
        for number in range(10):
            answer = await gateway.ask(infer("x", parameters={"text": f"{number}" * 1000}))
            assert answer.status == 200
        assert gateway.pool().known_keys == {}
        assert (await gateway.ask(infer("x"))).status == 200
        assert len(gateway.pool().known_keys) == 1


@on_uvloop
async def test_a_cancelled_call_is_told_nothing_more(obedient: ServedVersion, new_fifo: Callable[[], Fifo]) -> None:
    async with serving(("obedient", obedient)) as gateway:
        fifo = new_fifo()
        kept = Kept()
        text = fifo.command.encode()
        tensor = Tensor("command", "BYTES", (1, 1), len(text).to_bytes(4, "little") + text)
        call = InferenceCall("obedient", "", "", (tensor,))
        pending = gateway.pipeline.submit(call, kept, protocol="http", request_id="id", received_ns=1 << 62)
        await fifo.reached()
        pending.cancel()
        pending.cancel()
        fifo.release()
        await gateway.until(lambda: gateway.pool().queue_state().running_rows == 0)
        assert (kept.answers, kept.errors) == ([], [])
        assert [event["code"] for event in gateway.events()] == ["499"]


@on_uvloop
async def test_an_answer_that_cannot_be_sent_costs_its_caller_only(obedient: ServedVersion) -> None:
    class Broken(Kept):
        def answer(self, answer: InferenceAnswer) -> None:
            raise ZeroDivisionError

    async with serving(("obedient", obedient)) as gateway:
        broken, good = Broken(), Kept()
        for kept in (broken, good):
            call = InferenceCall("obedient", "", "", (ONE,))
            gateway.pipeline.submit(call, kept, protocol="http", request_id="id-9", received_ns=1 << 62)
        await gateway.until(lambda: good.answers and broken.errors)
        assert broken.errors[0].message == "an internal error; quote request id id-9 when you report it"
        assert len(gateway.events("answer not sent")) == 1


@on_uvloop
async def test_answers_are_written_together_or_if_that_cannot_be_alone(obedient: ServedVersion) -> None:
    asked: list[BatchAnswer] = []

    def join(replies: list[Any], answer: BatchAnswer) -> list[bytes] | None:
        asked.append(answer)
        return None if len(asked) == 1 else [b"bad" if reply.broken else b"good" for reply in replies]

    class Joined(Kept):
        together = staticmethod(join)
        broken = False

        def send(self, message: bytes) -> None:
            self.sent = message
            if self.broken:
                raise ZeroDivisionError

    async with serving(("obedient", obedient)) as gateway:
        alone = Joined()
        gateway.pipeline.submit(
            InferenceCall("obedient", "", "", (ONE,)), alone, protocol="http", request_id="id", received_ns=1 << 62
        )
        await gateway.until(lambda: alone.answers)
        broken, good = Joined(), Joined()
        broken.broken = True
        for kept in (broken, good):
            call = InferenceCall("obedient", "", "", (ONE,))
            gateway.pipeline.submit(call, kept, protocol="http", request_id="id-9", received_ns=1 << 62)
        await gateway.until(lambda: hasattr(good, "sent") and broken.errors)
        assert (good.sent, good.answers, broken.sent) == (b"good", [], b"bad")
        assert asked[-1].rows == 1
        assert len(asked[-1].queue_ns) == asked[-1].outputs[0].shape[0]
        assert broken.errors[0].message == "an internal error; quote request id id-9 when you report it"
