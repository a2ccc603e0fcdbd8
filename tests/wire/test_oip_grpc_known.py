"""Messages that are told by earlier ones mean, and are written, just as if nothing were remembered."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import BatchAnswer, InferenceAnswer, Tensor
from hyperion.schema.errors import HyperionError
from hyperion.wire.grpc.messages import ModelInferRequest
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.grpc import AnswerFormat, decode_infer, encode_infer
from hyperion.wire.oip.grpc_known import MAX_KNOWN, MAX_KNOWN_BYTES, InferCodec


def a_request(data: bytes = bytes(8), model: str = "m", **more: Any) -> bytes:
    request = ModelInferRequest(model_name=model, raw_input_contents=[data], **more)
    request.inputs.add(name="x", datatype="FP32", shape=[1, len(data) // 4])
    sent: bytes = request.SerializeToString()
    return sent


def both(codec: InferCodec, request: Any) -> Any:
    """What the codec and plain decoding make of it, which must be the same."""
    results: list[Any] = []
    for decode in (codec.decode, decode_infer):
        try:
            call, form = decode(request)
            (*rest,) = [(one.name, one.datatype, one.shape, bytes(one.data)) for one in call.inputs]
            results.append((call.model, call.version, call.id, rest, call.outputs, dict(call.parameters), form))
        except HyperionError as error:
            results.append((type(error), error.message))
    assert results[0] == results[1]
    return results[0]


PARTS = st.lists(
    st.sampled_from(
        [
            b"\x0a\x01m",
            b"\x0a\x01n",
            b"\x1a\x01i",
            b"\x2a\x0d\x0a\x01x\x12\x04FP32\x1a\x02\x01\x02",
            b"\x2a\x0e\x0a\x01x\x12\x05BYTES\x1a\x02\x01\x01",
            b"\x3a\x08abcdefgh",
            b"\x3a\x08ABCDEFGH",
            b"\x3a\x08\x04\0\0\0abcd",
            b"\x32\x03\x0a\x01y",
            b"\x42\x0a\x3a\x08abcdefgh",  # a field that nobody knows, which ends like raw contents
        ]
    ),
    max_size=6,
)


@given(st.lists(PARTS, max_size=8), st.booleans())
def test_what_was_decoded_before_changes_nothing(requests: list[list[bytes]], as_view: bool) -> None:
    codec = InferCodec(WireLimits())
    for parts in requests:
        request = b"".join(parts)
        both(codec, memoryview(request) if as_view else request)
        both(codec, request)


def test_only_the_numbers_differ_and_only_they_are_read() -> None:
    codec = InferCodec(WireLimits())
    both(codec, a_request(b"abcdefgh"))
    assert len(codec._calls) == 1
    known = dict(codec._calls)
    *_, inputs, _outputs, _parameters, _form = both(codec, a_request(b"ABCDEFGH"))
    assert inputs[0][3] == b"ABCDEFGH"
    assert codec._calls == known
    both(codec, a_request(b"ABCDEFGH", model="n"))
    assert codec._calls != known


@pytest.mark.parametrize(
    "request_",
    [a_request(id="seven"), a_request(b""), a_request(model="m" * MAX_KNOWN_BYTES), a_request() + b"\x0a\x01n"],
)
def test_what_will_not_come_again_is_not_remembered(request_: bytes) -> None:
    codec = InferCodec(WireLimits())
    both(codec, request_)
    assert codec._calls == {}


def test_the_memory_is_bounded() -> None:
    codec = InferCodec(WireLimits())
    for count in range(1, MAX_KNOWN + 2):
        both(codec, a_request(bytes(4 * count)))
        codec.encode(InferenceAnswer("m", str(count), "", ()), AnswerFormat())
    assert len(codec._calls) == 1
    assert len(codec._heads) == 1


@pytest.mark.parametrize("form", [AnswerFormat(), AnswerFormat(id="7"), AnswerFormat(raw=False)])
def test_answers_are_written_as_ever(form: AnswerFormat) -> None:
    codec = InferCodec(WireLimits())
    for datatype, data in (("FP32", b"abcd"), ("FP32", b"efgh"), ("FP16", b"ab"), ("FP32", b"ijkl")):
        answer = InferenceAnswer("m", "1", "", (Tensor("y", datatype, (1, 1), data),))
        assert codec.encode(answer, form) == encode_infer(answer, form)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("names", [[], ["y"], ["y", "z", "empty"]])
def test_answers_that_are_written_together_are_as_those_written_alone(names: list[str], count: int, rows: int) -> None:
    codec = InferCodec(WireLimits())

    def output(name: str, first: int, pieces: int) -> Tensor:
        width = 0 if name == "empty" else 2
        cells = [first * rows * width + at for at in range(pieces * rows * width)]
        return Tensor(name, "INT8", (pieces * rows, width), bytes(cells))

    batch = BatchAnswer("m", "1", "", tuple([output(name, 0, count) for name in names]), rows, [0] * count)
    alone = [InferenceAnswer("m", "1", "", tuple([output(name, at, 1) for name in names])) for at in range(count)]
    assert codec.encode_together(batch) == [encode_infer(answer, AnswerFormat()) for answer in alone]
