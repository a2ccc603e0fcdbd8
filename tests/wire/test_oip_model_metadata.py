"""Another server's description of a model: read, or refused with what is wrong with it."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.errors import InvalidConfig, UpstreamFailed
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.grpc.messages import ModelMetadataRequest, ModelMetadataResponse
from hyperion.wire.header_lines import MAX_BYTES, parse_header_lines
from hyperion.wire.oip.grpc_metadata import encode_model_metadata as encode_message
from hyperion.wire.oip.metadata import encode_model_metadata
from hyperion.wire.oip.model_metadata import (
    ModelMetadata,
    decode_model_message,
    decode_model_metadata,
    encode_model_request,
)

X = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
Y = {"name": "y", "datatype": "BYTES", "shape": [-1]}
WHOLE: dict[str, Any] = {"name": "m", "platform": "onnx", "versions": ["1"], "inputs": [X], "outputs": [Y]}
SPECS = (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "BYTES", (-1,)),)


def read(**changes: Any) -> ModelMetadata:
    return decode_model_metadata(msgspec.json.encode({**WHOLE, **changes}))


def test_both_protocols_say_the_same() -> None:
    expected = ModelMetadata("m", *SPECS, ("1",), "onnx")
    assert read() == expected
    assert decode_model_message(encode_message("m", ["1"], "onnx", Signature(*SPECS))) == expected
    assert decode_model_metadata(encode_model_metadata("m", ["1"], "onnx", Signature(*SPECS))) == expected


def test_what_some_servers_leave_out_and_what_they_add_is_fine() -> None:
    body = {"name": "m", "inputs": [{**X, "parameters": {"a": 1}}], "outputs": [Y], "versions": None, "more": {}}
    assert decode_model_metadata(msgspec.json.encode(body)) == ModelMetadata("m", *SPECS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [{**X, "name": f"x{n}"} for n in range(65)]}, "has 65 inputs, expected up to 64"),
        ({"inputs": [X, X]}, "two inputs of one name"),
        ({"inputs": [{**X, "name": ""}]}, "the name of an input in its metadata has 0 characters"),
        ({"inputs": [{**X, "name": "x" * 2_000}]}, "has 2000 characters"),
        ({"outputs": [{**Y, "datatype": "STRING"}]}, "its output \"y\" has the datatype 'STRING'"),
        ({"inputs": [{**X, "shape": [1] * 9}]}, 'its input "x" has the shape'),
        ({"inputs": [{**X, "shape": [-2]}]}, "has the shape [-2]"),
        ({"inputs": [{**X, "shape": [2**40]}]}, "has the shape"),
        ({"inputs": [{**X, "shape": ["a"]}]}, "is not as the protocol says"),
        ({"versions": ["1"] * 1_001}, "has 1001 versions"),
        ({"platform": "p" * 2_000}, "a text of its metadata has 2000 characters"),
        ({"name": None}, "is not as the protocol says"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UpstreamFailed) as refused:
        read(**changes)
    assert message in refused.value.message


@pytest.mark.parametrize("nothing", [[], None])
def test_a_server_may_say_nothing_of_inputs_and_outputs(nothing: list[Any] | None) -> None:
    assert read(inputs=nothing, outputs=nothing) == ModelMetadata("m", (), (), ("1",), "onnx")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (decode_model_metadata, decode_model_message):
        with contextlib.suppress(UpstreamFailed):
            assert isinstance(decode(data), ModelMetadata)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UpstreamFailed):
        decode_model_metadata(b'{"name": ' + b"[" * 100_000)


def test_the_request_names_model_and_version() -> None:
    message = ModelMetadataRequest.FromString(encode_model_request("m", "2"))
    assert (message.name, message.version) == ("m", "2")
    assert decode_model_message(ModelMetadataResponse(name="m").SerializeToString()) == ModelMetadata("m", (), ())


def test_lines_of_headers_are_read() -> None:
    lines = b"\n# a comment\nAuthorization:  Bearer a:b \r\nx-tenant: acme\n"
    assert parse_header_lines(lines, "file") == {b"authorization": b"Bearer a:b", b"x-tenant": b"acme"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ok: 1\nsecret without colon", "file: line 2: expected `name: value`"),
        (b"a b: secret", "file: line 1: expected `name: value`"),
        (b"a: sec\x00ret", "file: line 1: expected `name: value`"),
        (b": secret", "file: line 1: expected `name: value`"),
        (b"Host: secret", "file: line 1: the header is not for you to set"),
        (b"a: secret\nA: secret", "file: line 2: the header is given twice"),
        (b"\n".join(b"h%d: secret" % n for n in range(33)), "file: line 33: the header is too many"),
        (b"a: " + b"s" * MAX_BYTES, "file: larger than 16 KiB"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(data: bytes, message: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parse_header_lines(data, "file")
    assert message in refused.value.message
    assert "sec" not in refused.value.message
