"""What goes to another V2 server is what our own server takes, and nothing that comes back is believed unchecked."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.schema.errors import Unsupported, UpstreamFailed
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.grpc.framing import PREFIX_BYTES
from hyperion.wire.grpc.messages import ModelInferResponse, ModelReadyResponse
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.oip import answer as oip_answer
from hyperion.wire.oip import grpc as oip_grpc
from hyperion.wire.oip import grpc_upstream as oip_grpc_upstream
from hyperion.wire.oip import json as oip_json
from hyperion.wire.oip import upstream as oip_upstream

FP32 = Tensor("x", "FP32", (1, 2), b"\0\0\x80?\0\0\0@")
TEXT = Tensor("t", "BYTES", (1,), b"\2\0\0\0hi")
BF16 = Tensor("b", "BF16", (2,), b"\x80?\0@")
SMALL = WireLimits(max_tensors=1, max_rank=2)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("outputs", [(), ("y", "z")])
def test_our_own_server_reads_a_request_as_it_was_meant(binary: bool, outputs: tuple[str, ...]) -> None:
    parts, length = oip_upstream.encode_infer([FP32, TEXT], outputs, {"p": 3}, "id-1", binary)
    call, form = oip_json.decode_infer("m", "", b"".join(parts), length, DEFAULT_LIMITS)
    assert call.id == "id-1"
    assert (call.outputs, dict(call.parameters)) == (outputs, {"p": 3})
    assert [(t.name, t.datatype, t.shape, bytes(t.data)) for t in call.inputs] == [t._fields() for t in (FP32, TEXT)]
    assert form.is_binary("y") is binary


def test_a_request_without_extras_has_none() -> None:
    parts, length = oip_upstream.encode_infer([FP32], (), {}, "", False)
    assert length is None
    assert set(orjson.loads(parts[0])) == {"inputs"}


def test_what_json_cannot_carry_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match=r'input "b".*BF16'):
        oip_upstream.encode_infer([BF16], (), {}, "", False)


@pytest.mark.parametrize("binary", [True, False])
def test_an_answer_of_our_own_server_is_read_as_it_was_meant(binary: bool) -> None:
    answer = InferenceAnswer("m", "1", "", (FP32, TEXT))
    parts, length = oip_answer.encode_answer(answer, oip_answer.AnswerFormat("i", binary))
    header = None if length is None else b"%d" % length
    outputs = oip_upstream.decode_answer(b"".join(map(bytes, parts)), header, DEFAULT_LIMITS)
    assert [one._fields() for one in outputs] == [one._fields() for one in (FP32, TEXT)]


def output(**members: Any) -> bytes:
    one = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1], **members}
    return orjson.dumps({"outputs": [one]})


WRONG = {
    "no json": (b"<html>", None, "not JSON"),
    "no outputs": (b"{}", None, "not an answer"),
    "datatype": (output(datatype="FP31"), None, "unknown datatype"),
    "shape": (output(shape=[2]), None, "wants 2 elements"),
    "negative": (output(shape=[-1]), None, "negative"),
    "rank": (output(shape=[1, 1, 1]), None, "dimensions"),
    "many": (orjson.dumps({"outputs": [orjson.loads(output())["outputs"][0]] * 2}), None, "2 outputs, at most 1"),
    "header": (output(), b"x", "is no number"),
    "header beyond": (output(), b"999", "the body has"),
    "binary without header": (output(parameters={"binary_data_size": 4}), None, "no such binary data"),
    "size": (output(parameters={"binary_data_size": 5}) + b"12345", b"LENGTH", "takes 4 bytes"),
    "size negative": (output(parameters={"binary_data_size": -4}) + b"1234", b"LENGTH", "no such binary data"),
    "size beyond": (output(parameters={"binary_data_size": 4}) + b"123", b"LENGTH", "3 bytes of the body are left"),
    "more": (output(parameters={"binary_data_size": 4}) + b"12345", b"LENGTH", "belong to no tensor"),
}


@pytest.mark.parametrize(("body", "header", "says"), WRONG.values(), ids=list(WRONG))
def test_an_answer_that_is_wrong_is_the_upstreams_failure(body: bytes, header: bytes | None, says: str) -> None:
    if header == b"LENGTH":
        header = b"%d" % (body.rindex(b"}") + 1)
    with pytest.raises(UpstreamFailed, match=says):
        oip_upstream.decode_answer(body, header, SMALL)


@given(st.binary(max_size=200), st.one_of(st.none(), st.binary(max_size=5)))
def test_nothing_else_is_raised_for_any_bytes(body: bytes, header: bytes | None) -> None:
    for decode in (
        lambda: oip_upstream.decode_answer(body, header, DEFAULT_LIMITS),
        lambda: oip_grpc_upstream.decode_answer(body, DEFAULT_LIMITS),
    ):
        try:
            decode()
        except UpstreamFailed:
            continue
    assert "\n" not in oip_upstream.decode_error(body, DEFAULT_LIMITS)


SIGNATURE = Signature((), (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "BYTES", (-1,))))
Y, Z = Tensor("y", "FP32", (3, 2), b""), Tensor("z", "BYTES", (3,), b"")


def test_the_outputs_that_were_asked_for_are_chosen_in_their_order() -> None:
    extra = Tensor("w", "FP32", (1,), b"")
    assert oip_upstream.select_outputs([extra, Z, Y], SIGNATURE, (), 3) == (Y, Z)
    assert oip_upstream.select_outputs([Y, Z], SIGNATURE, ("z", "y"), 3) == (Z, Y)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (Tensor("y", "FP64", (3, 2), b""), r"answered FP64 \[3, 2\], expected FP32 \[3, 2\]"),
        (Tensor("y", "FP32", (2, 2), b""), r"answered FP32 \[2, 2\], expected FP32 \[3, 2\]"),
        (Tensor("y", "FP32", (3, 3), b""), "expected FP32"),
        (Tensor("y", "FP32", (6,), b""), "expected FP32"),
        (Tensor("n", "FP32", (3, 2), b""), 'no output "y"'),
    ],
)
def test_outputs_that_the_signature_does_not_have_are_refused(tensor: Tensor, says: str) -> None:
    with pytest.raises(UpstreamFailed, match=says):
        oip_upstream.select_outputs([tensor], SIGNATURE, ("y",), 3)


def test_without_rows_shapes_are_compared_as_they_are() -> None:
    whole = Signature((), (TensorSpec("y", "FP32", (4,)),), batched=False)
    right, wrong = Tensor("y", "FP32", (4,), b""), Tensor("y", "FP32", (5,), b"")
    assert oip_upstream.select_outputs([right], whole, (), 1) == (right,)
    with pytest.raises(UpstreamFailed, match=r"expected FP32 \[4\]"):
        oip_upstream.select_outputs([wrong], whole, (), 1)
    scalar = Signature((), (TensorSpec("y", "FP32", ()),))
    with pytest.raises(UpstreamFailed, match="expected"):
        oip_upstream.select_outputs([Tensor("y", "FP32", (), b"")], scalar, (), 1)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": "no"}', "no"),
        (b'{"detail": "no"}', "no"),
        (b'{"error": {"message": "no"}}', ""),
        (b'["no"]', ""),
        (b"<html>", ""),
        (b'{"error": "  a\\u001b[1mb\\nTraceback"}', "a[1mb"),
        (b'{"error": ""}', ""),
        (b'{"error": "' + b"x" * 400 + b'"}', "x" * 300),
        (b'{"detail": [{"loc": ["body", "inputs", 0], "msg": "missing"}, {"msg": "more"}]}', "body.inputs.0: missing"),
        (b'{"detail": [{"msg": "missing"}]}', "missing"),
        (b'{"detail": [{"loc": [[1], null], "msg": "missing"}]}', "missing"),
        (b'{"detail": [{"loc": ["body"]}]}', ""),
        (b'{"detail": ["missing"]}', ""),
        (b'{"detail": []}', ""),
    ],
)
def test_of_an_error_one_bounded_line_is_told(body: bytes, told: str) -> None:
    assert oip_upstream.decode_error(body, DEFAULT_LIMITS) == told


@pytest.mark.parametrize(
    ("body", "binary"),
    [(b'{"extensions": ["binary_tensor_data"]}', True), (b'{"name": "x"}', False), (b"x", False)],
)
def test_only_who_says_so_takes_binary_data(body: bytes, binary: bool) -> None:
    assert oip_upstream.is_binary_server(body, DEFAULT_LIMITS) is binary


@pytest.mark.parametrize(("body", "ready"), [(b"", True), (b'{"ready": false}', False), (b'{"ready": true}', True)])
def test_a_body_may_say_that_a_model_is_not_ready(body: bytes, ready: bool) -> None:
    assert oip_upstream.says_ready(body, DEFAULT_LIMITS) is ready


def test_our_own_server_reads_a_grpc_request_as_it_was_meant() -> None:
    parameters = {"b": True, "i": 3, "f": 0.5, "s": "x"}
    data = oip_grpc_upstream.encode_infer("m", "2", [FP32, TEXT], ("y",), parameters, "id-1")
    call, form = oip_grpc.decode_infer(data)
    assert (call.model, call.version, call.id, call.outputs, form.raw) == ("m", "2", "id-1", ("y",), True)
    assert dict(call.parameters) == parameters
    assert [(t.name, t.datatype, t.shape, bytes(t.data)) for t in call.inputs] == [t._fields() for t in (FP32, TEXT)]


@pytest.mark.parametrize("raw", [True, False])
def test_a_grpc_answer_of_our_own_server_is_read_as_it_was_meant(raw: bool) -> None:
    data = oip_grpc.encode_infer(InferenceAnswer("m", "1", "", (FP32, TEXT)), oip_grpc.AnswerFormat("i", raw))
    outputs = oip_grpc_upstream.decode_answer(data[PREFIX_BYTES:], DEFAULT_LIMITS)
    assert [one._fields() for one in outputs] == [one._fields() for one in (FP32, TEXT)]


def response(count: int = 1, raw: tuple[bytes, ...] = (), **members: Any) -> bytes:
    message = ModelInferResponse(raw_output_contents=raw)
    for _ in range(count):
        message.outputs.add(**{"name": "y", "datatype": "FP32", "shape": [1], **members})
    data: bytes = message.SerializeToString()
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xff", "are not a message"),
        (response(2), "2 outputs, at most 1"),
        (response(1, (b"1234", b"5678")), "1 outputs but 2"),
        (response(1, (b"123",)), "takes 4 bytes, got 3"),
        (response(1, shape=[1, 1, 1]), "has 3 dimensions"),
        (response(1, datatype="X"), "unknown datatype"),
        (response(1, (b"\x09",), datatype="BYTES"), 'output "y"'),
        (response(1), "the shape wants 1 elements"),
    ],
)
def test_a_grpc_answer_that_is_wrong_is_the_upstreams_failure(data: bytes, says: str) -> None:
    with pytest.raises(UpstreamFailed, match=says):
        oip_grpc_upstream.decode_answer(data, SMALL)


def test_readiness_over_grpc() -> None:
    assert oip_grpc_upstream.encode_ready("m", "2") == b"\n\x01m\x12\x012"
    assert oip_grpc_upstream.decode_ready(ModelReadyResponse(ready=True).SerializeToString())
    assert not oip_grpc_upstream.decode_ready(b"")
    with pytest.raises(UpstreamFailed, match="not a message"):
        oip_grpc_upstream.decode_ready(b"\xff\xff")
