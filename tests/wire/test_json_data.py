"""JSON data becomes the bytes that its datatype and shape say, through every path, or an error says why not."""

import contextlib
import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperion.schema.errors import HyperionError, MalformedRequest, SchemaMismatch, TooLarge, Unsupported
from hyperion.wire.json import large as json_large
from hyperion.wire.json.data import parse_any, parse_data
from hyperion.wire.json.depth import check_depth
from hyperion.wire.json.large import parse_document, parse_large
from hyperion.wire.limits import DEFAULT_LIMITS, WireLimits
from hyperion.wire.tensor import DATATYPES, from_numpy
from tests.wire.strategies import JSON_VALUES, NUMERIC, arrays, json_values, mutations


def parse(text: str | bytes, datatype: str, shape: tuple[int, ...], limits: WireLimits = DEFAULT_LIMITS) -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return parse_data(text, DATATYPES[datatype], shape, int(np.prod(shape)), limits)


@given(st.data(), st.booleans(), st.sampled_from([None, " ", 2]))
def test_flat_and_nested_data_of_every_datatype_become_the_same_bytes(
    data: st.DataObject, nested: bool, blanks: Any
) -> None:
    datatype = data.draw(st.sampled_from([*NUMERIC, "BYTES"]))
    array = data.draw(arrays(datatype))
    separators = (blanks + ",", ": ") if isinstance(blanks, str) else None
    text = json.dumps(
        json_values(array, nested), indent=blanks if isinstance(blanks, int) else None, separators=separators
    )
    assert parse(text, datatype, array.shape) == bytes(from_numpy("x", array, datatype).data)
    if nested and array.size:
        assert parse_any(text.encode(), DATATYPES[datatype], DEFAULT_LIMITS) == (
            array.shape or (1,),
            bytes(from_numpy("x", array, datatype).data),
        )


@pytest.mark.parametrize("datatype", [name for name in NUMERIC if name != "BOOL"])
@pytest.mark.parametrize("shape", [(400,), (2, 200), (100, 4), (1, 3, 10, 12), (50, 1, 8)])
@pytest.mark.parametrize("nested", [False, True])
def test_large_data_takes_simdjson_and_becomes_the_same_bytes(
    datatype: str, shape: tuple[int, ...], nested: bool
) -> None:
    kind = np.dtype(DATATYPES[datatype].dtype)
    values = np.random.default_rng(7).normal(0, 40, shape)
    array = (np.abs(values) if kind.kind == "u" else values).astype(kind)
    text = json.dumps(json_values(array, nested)).encode()
    expected = bytes(from_numpy("x", array, datatype).data)
    assert parse_large(text, DATATYPES[datatype], shape, array.size) == expected
    assert parse(text, datatype, shape) == expected


@given(st.data())
def test_simdjson_and_the_exact_decoders_never_disagree(data: st.DataObject) -> None:
    """Whatever the text, `parse_large` gives what the exact decoders give, or nothing."""
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    datatype = data.draw(st.sampled_from(["FP16", "FP32", "FP64", "INT8", "INT64", "UINT8", "UINT64"]))
    array = data.draw(arrays(datatype, shapes=st.just(shape)))
    text = data.draw(mutations(json.dumps(json_values(array, data.draw(st.booleans()))).encode()))
    count = int(np.prod(shape))
    quick = parse_large(text, DATATYPES[datatype], shape, count)
    if quick is not None:
        assert parse_data(text, DATATYPES[datatype], shape, count, DEFAULT_LIMITS) == quick


WRONG = [
    ("[1,2]", "FP32", (3,), r"shape \[3\] wants 3 elements, got 2"),
    ("[1,2,3,4]", "FP32", (3,), r"wants 3 elements, got 4"),
    ("[[1,2],[3]]", "FP32", (2, 2), "ragged"),
    ("[[1,2],[3,4]]", "FP32", (4,), "wants data flat, got it nested 2 deep"),
    ("[[1,2,3,4]]", "FP32", (2, 2), "does not fit data nested as"),
    ("[[1],[2]]", "FP32", (1, 2), "does not fit data nested as"),
    ("[[[1]]]", "FP32", (1, 1), "flat or nested 2 deep, got it nested 3 deep"),
    ("[[1,2],3]", "FP32", (2, 2), "FP32 wants numbers"),
    ("[1,[2]]", "FP32", (2,), "FP32 wants numbers"),
    ("5", "FP32", (1,), "nested 0 deep"),
    ("{}", "FP32", (1,), "nested 0 deep"),
    ("{}", "FP32", (0,), "nested 0 deep"),
    ("[1]", "FP32", (0,), "wants 0 elements, got 1"),
    ("[true]", "FP32", (1,), "row 0 is a boolean, expected a number"),
    ('["1"]', "FP32", (1,), "row 0 is a string, expected a number"),
    ("[null]", "FP32", (1,), "row 0 is null, expected a number"),
    ("[1e39]", "FP32", (1,), "row 0: 1e.39 is out of range for FP32"),
    ("[0,-1e39]", "FP32", (2,), "row 1: -1e.39 is out of range"),
    ("[1e400]", "FP64", (1,), "out of range"),
    ("[65520]", "FP16", (1,), "out of range for FP16"),
    ("[NaN]", "FP32", (1,), "malformed"),
    ("[1.0]", "INT32", (1,), "row 0 is a float, expected an integer .INT32."),
    ("[true]", "INT32", (1,), "row 0 is a boolean, expected an integer .INT32."),
    ("[1,128]", "INT8", (2,), "row 1: 128 is out of range for INT8"),
    ("[-129]", "INT8", (1,), "out of range"),
    ("[-1]", "UINT8", (1,), "out of range"),
    ("[256]", "UINT8", (1,), "out of range"),
    ("[18446744073709551616]", "UINT64", (1,), "out of range"),
    ("[9223372036854775808]", "INT64", (1,), "out of range"),
    ("[1]", "BOOL", (1,), "row 0 is an integer, expected true or false .BOOL."),
    ("[1]", "BYTES", (1,), "row 0 is an integer, expected a string .BYTES."),
    ('["a"]', "BYTES", (2,), "wants 2 elements, got 1"),
    ('["\\ud800"]', "BYTES", (1,), "BYTES wants strings"),
    (b'["\xff"]', "BYTES", (1,), "BYTES wants strings"),
    ("[1", "FP32", (1,), "truncated"),
    ("[" * 100_000, "FP32", (1,), "nested 100000 deep"),
    ("[0," + "[" * 100_000, "FP32", (1,), "FP32 wants numbers"),
]


def kind_of(message: str) -> type[HyperionError]:
    """JSON whose elements are not of the datatype does not fit; anything else is no request."""
    return SchemaMismatch if "out of range" in message or ", expected " in message else MalformedRequest


@pytest.mark.parametrize(("text", "datatype", "shape", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_data_is_refused_and_the_message_says_why(
    text: str | bytes, datatype: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(kind_of(message), match=message):
        parse(text, datatype, shape)


def large(edit: str, shape: tuple[int, ...] = (400,)) -> str:
    """JSON of ones in that shape, the first of them replaced."""
    return json.dumps(np.ones(shape, "i8").tolist()).replace("1", edit, 1)


LARGE_WRONG = [
    (large("1e39"), "FP32", (400,), "row 0: 1e.39 is out of range"),
    (large("-1e39"), "FP32", (400,), "out of range"),
    (large("70000"), "FP16", (400,), "out of range"),
    (large("300"), "UINT8", (400,), "out of range"),
    (large("-129"), "INT8", (400,), "out of range"),
    (large("-1"), "UINT64", (400,), "out of range"),
    (large("1.5"), "INT8", (400,), "row 0 is a float, expected an integer .INT8."),
    (large("[1]"), "FP32", (400,), "nested 2 deep"),
    (large("1,1"), "FP32", (400,), "wants 400 elements, got 401"),
    (large("1,1", (200, 2)), "FP32", (200, 2), "ragged"),
    (large("[1]", (200, 2)), "FP32", (200, 2), "nested 3 deep"),
    (large("1", (200, 2)), "FP32", (2, 200), "does not fit data nested as"),
    (large("1", (2, 200)), "FP32", (4, 100), "does not fit data nested as"),
    (large("1", (2, 200)), "FP32", (200, 2), "does not fit data nested as"),
    ("[[1,[" + "1," * 198 + "1,1]],[" + "1," * 199 + "1]]", "FP32", (2, 200), "FP32 wants numbers"),
    ("[[" + "1," * 199 + "[1]],[" + "1," * 199 + "1]]", "FP32", (2, 200), "FP32 wants numbers"),
    ("[1," + "[" + "1," * 398 + "1]]", "FP32", (400,), "FP32 wants numbers"),
    ("[" + "1," * 200 + "[" + "1," * 199 + "1]]", "FP32", (2, 200), "wants 400 elements|FP32 wants numbers"),
    ("[[" + "1," * 99 + "1],[" + "1," * 299 + "1]]", "FP32", (2, 200), "ragged"),
    (large("1")[:-1], "FP32", (400,), "truncated"),
    ("7", "FP32", (400,), "nested 0 deep"),
    (large("1", (20, 20)), "BOOL", (20, 20), "row 0, column 0 is an integer, expected true or false"),
]


@pytest.mark.parametrize(("text", "datatype", "shape", "message"), LARGE_WRONG, ids=range(len(LARGE_WRONG)))
def test_wrong_large_data_is_refused_with_the_same_messages(
    text: str, datatype: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(kind_of(message), match=message):
        parse(text, datatype, shape)


def test_integers_over_64_bits_are_numbers_for_large_float_tensors_too() -> None:
    text = large("123456789012345678901234567890")
    assert np.frombuffer(parse(text, "FP64", (400,)))[0] == 123456789012345678901234567890.0


@pytest.mark.parametrize("value", [3.4028234663852886e38, 3.4028235677973362e38, -3.4028235677973362e38])
def test_the_largest_floats_fit_and_the_next_do_not_on_both_paths(value: float) -> None:
    end = np.nextafter(np.float64(3.4028235677973362e38), np.inf)
    assert np.isfinite(np.frombuffer(parse(large(repr(value)), "FP32", (400,)), "<f4")).all()
    assert np.isfinite(np.frombuffer(parse(f"[{value!r}]", "FP32", (1,)), "<f4")).all()
    for text, shape in ((f"[{end!r}]".replace("np.float64(", "").replace(")", ""), (1,)), (large(str(end)), (400,))):
        with pytest.raises(SchemaMismatch, match="out of range"):
            parse(text, "FP32", shape)


def test_bf16_has_no_json_form() -> None:
    with pytest.raises(Unsupported, match="BF16"):
        parse("[1]", "BF16", (1,))
    with pytest.raises(Unsupported, match="BF16"):
        parse(large("1"), "BF16", (400,))
    with pytest.raises(Unsupported, match="BF16"):
        parse_any(b"[1]", DATATYPES["BF16"], DEFAULT_LIMITS)


def test_more_elements_than_json_may_carry_are_refused_before_parsing() -> None:
    limits = WireLimits(max_json_elements=300)
    with pytest.raises(TooLarge, match="binary"):
        parse("not even JSON", "FP32", (301,), limits)
    with pytest.raises(TooLarge, match="binary"):
        parse_any(b"[" + b"1," * 300 + b"1]", DATATYPES["FP32"], limits)


def test_far_more_text_than_the_shape_needs_is_refused_before_parsing() -> None:
    with pytest.raises(MalformedRequest, match="far too many"):
        parse("[" + " " * 2_000_000 + "garbage", "FP32", (1,))


@pytest.mark.parametrize(("text", "shape"), [("[]", (0,)), ("[[],[]]", (2, 0)), ("[[],[]]", (2, 0, 3)), ("[]", (0, 3))])
def test_empty_tensors_have_no_bytes(text: str, shape: tuple[int, ...]) -> None:
    assert parse(text, "FP32", shape) == b""


@pytest.mark.parametrize(
    ("text", "datatype"), [("7", "FP32"), ("[7]", "INT8"), ("true", "BOOL"), ("18446744073709551616", "FP32")]
)
def test_a_scalar_is_a_bare_value_or_a_list_of_one(text: str, datatype: str) -> None:
    expected = np.array(json.loads(text.strip("[]")), DATATYPES[datatype].dtype)
    assert parse(text, datatype, ()) == expected.tobytes()


def test_a_scalar_of_text_is_a_bare_text() -> None:
    assert parse('"ab"', "BYTES", ()) == b"\x02\x00\x00\x00ab"


@given(JSON_VALUES, st.sampled_from(list(DATATYPES)))
def test_any_json_value_for_a_scalar_gives_bytes_or_a_typed_error(value: Any, datatype: str) -> None:
    with contextlib.suppress(HyperionError):
        assert isinstance(parse(json.dumps(value), datatype, ()), bytes)


def test_parse_any_takes_a_bare_value_as_a_scalar_and_limits_the_rank() -> None:
    assert parse_any(b"7", DATATYPES["INT8"], DEFAULT_LIMITS) == ((), b"\7")
    assert parse_any(b"[[],[]]", DATATYPES["INT8"], DEFAULT_LIMITS) == ((2, 0), b"")
    assert parse_any(b"[]", DATATYPES["INT8"], DEFAULT_LIMITS) == ((0,), b"")
    with pytest.raises(MalformedRequest, match="more than 8 deep"):
        parse_any(b"[" * 9 + b"]" * 9, DATATYPES["INT8"], DEFAULT_LIMITS)


@given(JSON_VALUES, st.sampled_from(sorted(DATATYPES)))
def test_any_json_value_gives_bytes_or_a_typed_error(value: Any, datatype: str) -> None:
    text = json.dumps(value).encode()
    for call in (lambda: parse(text, datatype, (2, 1)), lambda: parse_any(text, DATATYPES[datatype], DEFAULT_LIMITS)):
        with contextlib.suppress(HyperionError):
            call()


def test_a_parser_that_is_in_use_does_not_stop_the_next_parse() -> None:
    held = parse_document(b"[1,2]")
    assert parse_document(b"[3]").as_list() == [3]
    assert held.as_list() == [1, 2]
    assert len(parse_document(b"[1" + b" " * json_large.KEPT_PARSER_BYTES + b"]")) == 1


@pytest.mark.parametrize("text", [b"[" * 32 + b"]" * 32, b'{"a":"[[[{{{"}' * 50, b'{"a":"\\"[[["}' * 20, b"[]" * 99])
def test_depth_up_to_the_limit_passes_and_brackets_in_strings_do_not_count(text: bytes) -> None:
    check_depth(text, 32)


HIDDEN = b'{"]]]":' * 33 + b"1" + b"}" * 33  # brackets that close nothing, in strings


@pytest.mark.parametrize("text", [b"[" * 33 + b"]" * 33, b'{"a":' * 33 + b"1" + b"}" * 33, b"[" * 1_000_000, HIDDEN])
def test_depth_over_the_limit_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedRequest, match="nested more than 32 deep"):
        check_depth(memoryview(text), 32)


@given(JSON_VALUES, st.integers(0, 6))
def test_depth_is_that_of_the_value(value: Any, limit: int) -> None:
    def depth(one: Any) -> int:
        inner = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    text = json.dumps(value).encode()
    if depth(value) <= limit:
        check_depth(text, limit)
    else:
        with pytest.raises(MalformedRequest):
            check_depth(text, limit)


@pytest.mark.parametrize("unit", [b'"', b'\\"', b'"[', b"[{", b'"\\', b'["]"', b"[]{"])
def test_the_depth_of_hostile_texts_is_found_in_linear_time(unit: bytes) -> None:
    """Sixteen times the text takes less than 64 times as long, whatever the machine."""

    def seconds(size: int) -> float:
        start = time.perf_counter()
        with contextlib.suppress(MalformedRequest):
            check_depth(unit * size + b"[" * 40, 32)
        return time.perf_counter() - start

    short = min(seconds(4_000) for _ in range(5))
    assert min(seconds(64_000) for _ in range(3)) < 64 * short + 0.01
