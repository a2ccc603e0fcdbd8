"""Tensors keep their values between bytes, numpy and rows, and no size is computed without a limit."""

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperion.schema.call import Tensor
from hyperion.schema.errors import MalformedRequest, SchemaMismatch, TooLarge
from hyperion.wire import bytes_elements
from hyperion.wire.bytes_elements import element_offsets
from hyperion.wire.tensor import (
    DATATYPES,
    check_bytes_tensor,
    check_tensor_data,
    count_elements,
    datatype_of,
    datatype_of_numpy,
    decode_elements,
    encode_elements,
    from_numpy,
    join_rows,
    row_offsets_bytes,
    slice_rows,
    split_rows,
    tensor_size_bytes,
    to_numpy,
)
from tests.wire.strategies import NUMERIC, SHAPES, arrays


@given(st.data())
def test_every_datatype_survives_from_numpy_and_to_numpy(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from([*NUMERIC, "BYTES"]))
    array = data.draw(arrays(datatype, finite=False))
    tensor = from_numpy("x", array, datatype)
    check_tensor_data(tensor)
    back = to_numpy(tensor)
    assert back.dtype == DATATYPES[datatype].dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("datatype", NUMERIC)
def test_numeric_views_share_the_memory_of_the_tensor(datatype: str) -> None:
    tensor = from_numpy("x", np.ones((2, 3), DATATYPES[datatype].dtype), datatype)
    assert np.shares_memory(to_numpy(tensor), np.frombuffer(tensor.data, "u1"))


def test_big_endian_and_strided_arrays_become_little_endian_rows() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    tensor = from_numpy("x", array, "INT32")
    assert bytes(tensor.data) == np.array([0, 2, 4, 6, 8, 10], "<i4").tobytes()


@given(hnp.arrays("<f4", SHAPES))
def test_bf16_rounds_to_nearest_even_as_ml_dtypes_does(array: Any) -> None:
    with np.errstate(all="ignore"):
        expected = array.astype(ml_dtypes.bfloat16)
    tensor = from_numpy("x", array, "BF16")
    assert tensor.shape == array.shape
    np.testing.assert_array_equal(to_numpy(tensor), expected.astype("<f4"))
    np.testing.assert_array_equal(to_numpy(from_numpy("x", expected, "BF16")), expected.astype("<f4"))


@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FFFFFFF])
def test_a_nan_stays_a_nan_in_bf16_whatever_its_payload(bits: int) -> None:
    assert np.isnan(to_numpy(from_numpy("x", np.array([bits], "<u4").view("<f4"), "BF16"))).all()


@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        (np.array([1.5]), "INT64"),
        (np.array([1]), "BOOL"),
        (np.array([1]), "BYTES"),
        (np.array([1], object), "BYTES"),
        (np.array(["a"]), "FP32"),
        (np.array(["a"]), "BF16"),
        (np.array([1j]), "BF16"),
    ],
)
def test_values_of_another_kind_are_refused(values: Any, datatype: str) -> None:
    with pytest.raises(SchemaMismatch, match='tensor "x"'):
        from_numpy("x", values, datatype)


def test_values_of_one_kind_are_converted() -> None:
    assert to_numpy(from_numpy("x", np.array([1.5]), "FP32")).tolist() == [1.5]
    assert to_numpy(from_numpy("x", np.array([7], "i1"), "INT64")).tolist() == [7]
    assert to_numpy(from_numpy("x", np.array([1e300]), "FP32")).tolist() == [float("inf")]


def test_bytes_tensors_take_text_and_bytes_of_every_array_type() -> None:
    for array in (np.array(["é", "b"]), np.array(["é", b"b"], object), np.array(["é".encode(), b"b"])):
        assert to_numpy(from_numpy("x", array, "BYTES")).tolist() == ["é".encode(), b"b"]
    array = np.empty(1, object)
    array[0] = bytearray(b"z")
    assert to_numpy(from_numpy("x", array, "BYTES")).tolist() == [b"z"]


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        *((DATATYPES[name].dtype, name) for name in NUMERIC),
        ("O", "BYTES"),
        ("U3", "BYTES"),
        ("S3", "BYTES"),
        (ml_dtypes.bfloat16, "BF16"),
        (">f8", "FP64"),
    ],
)
def test_numpy_types_have_their_datatypes(dtype: Any, datatype: str) -> None:
    assert datatype_of_numpy(dtype) == datatype


def test_names_that_are_no_datatype_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match="complex128"):
        datatype_of_numpy("complex128")
    with pytest.raises(MalformedRequest, match='unknown datatype "FP8"'):
        datatype_of("FP8")


@given(st.lists(st.integers(0, 50), max_size=8))
def test_elements_are_the_product_of_the_dimensions(shape: list[int]) -> None:
    if np.prod([size or 1 for size in shape], dtype=object) <= 2**31:  # what surrounds a 0 is bounded, too
        assert count_elements(shape) == np.prod(shape, dtype=object)


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((-1,), MalformedRequest),
        ((1,) * 9, MalformedRequest),
        ((2**31 + 1,), TooLarge),
        ((2**16, 2**16), TooLarge),
        ((0, 2**70), TooLarge),
        ((2**70, 0), TooLarge),
        ((2**31, 2**31, 2**31, 2**31), TooLarge),
    ],
)
def test_shapes_over_the_limits_are_refused(shape: tuple[int, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        count_elements(shape)


def test_sizes_in_bytes() -> None:
    assert tensor_size_bytes(DATATYPES["FP64"], 3) == 24
    assert tensor_size_bytes(DATATYPES["BYTES"], 3) == 12


@pytest.mark.parametrize("tensor", [Tensor("x", "FP32", (2,), b"1234"), Tensor("x", "BYTES", (2,), b"\0\0\0\0")])
def test_data_of_the_wrong_size_is_refused(tensor: Tensor) -> None:
    with pytest.raises(MalformedRequest):
        check_tensor_data(tensor)
    with pytest.raises(MalformedRequest):
        to_numpy(tensor)


@given(st.lists(st.binary(max_size=9)))
def test_bytes_elements_survive_encoding(elements: list[bytes]) -> None:
    data = encode_elements(elements)
    check_bytes_tensor(data, len(elements))
    assert decode_elements(data, len(elements)) == elements
    assert decode_elements(memoryview(bytearray(data)), len(elements)) == elements


@given(st.binary(max_size=40), st.integers(0, 12))
def test_any_bytes_are_either_whole_elements_or_refused(data: bytes, count: int) -> None:
    try:
        elements = decode_elements(data, count)
    except MalformedRequest:
        return
    assert encode_elements(elements) == data


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"", 2**31, "cannot hold"),
        (b"\1\0\0\0", 1, "element 0 of 1 ends at byte 5"),
        (b"\1\0\0\0a\0\0\0", 2, "inside the length of element 1"),
        (b"\0\0\0\0b", 1, "1 bytes after its last element"),
        (b"\xff\xff\xff\xff", 1, "ends at byte"),
    ],
)
def test_malformed_bytes_data_says_where(data: bytes, count: int, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        element_offsets(data, count)


def test_an_element_too_long_for_its_length_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytes_elements, "MAX_ELEMENT_BYTES", 2)
    assert encode_elements([b"ab"]) == b"\2\0\0\0ab"
    with pytest.raises(TooLarge, match="a BYTES element has 3 bytes; at most 2 fit"):
        encode_elements([b"abc"])


@given(st.data())
def test_rows_can_be_cut_and_joined_again(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from([*NUMERIC, "BYTES"]))
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)
    array = data.draw(arrays(datatype, finite=False, shapes=shapes))
    tensor = from_numpy("x", array, datatype)
    rows = array.shape[0]
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=4)))
    edges = [0, *cuts, rows]
    pieces = split_rows(tensor, [stop - start for start, stop in itertools.pairwise(edges)])
    for piece, (start, stop) in zip(pieces, itertools.pairwise(edges), strict=True):
        np.testing.assert_array_equal(to_numpy(piece), array[start:stop])
        np.testing.assert_array_equal(to_numpy(slice_rows(tensor, start, stop)), array[start:stop])
    joined = join_rows(pieces)
    assert joined.shape == tensor.shape
    assert bytes(joined.data) == bytes(tensor.data)


def test_a_single_tensor_is_joined_without_a_copy() -> None:
    tensor = Tensor("x", "INT8", (1,), b"1")
    assert join_rows([tensor]) is tensor


def test_offsets_of_rows_without_elements_are_zero() -> None:
    assert row_offsets_bytes(b"", 2, 0) == [0, 0, 0]
    assert row_offsets_bytes(encode_elements([b"a", b"", b"cc", b"d"]), 2, 2) == [0, 9, 20]
