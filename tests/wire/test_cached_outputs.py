"""What a shared cache gives back is what was kept under that very key, or nothing."""

import doctest
from hashlib import sha256

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.call import Tensor
from hyperion.wire import cached_outputs
from hyperion.wire.cached_outputs import DIGEST_BYTES, FORM, decode_outputs, encode_outputs
from hyperion.wire.tensor import from_numpy
from tests.wire.strategies import NUMERIC, arrays

KEY = sha256(b"key").digest()
TENSORS = st.sampled_from([*NUMERIC, "BYTES"]).flatmap(
    lambda datatype: st.builds(
        lambda name, array: from_numpy(name, array, datatype), st.text(max_size=5), arrays(datatype, finite=False)
    )
)
OUTPUTS = st.lists(TENSORS, max_size=3).map(tuple)


@pytest.mark.interpreted
def test_the_example_is_true() -> None:
    result = doctest.testmod(cached_outputs)
    assert result.attempted
    assert not result.failed


@given(OUTPUTS)
def test_what_is_kept_comes_back(outputs: tuple[Tensor, ...]) -> None:
    assert decode_outputs(KEY, encode_outputs(KEY, outputs)) == outputs


@given(OUTPUTS, st.data())
def test_a_value_that_was_changed_anywhere_is_nothing(outputs: tuple[Tensor, ...], data: st.DataObject) -> None:
    value = bytearray(encode_outputs(KEY, outputs))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    assert decode_outputs(KEY, bytes(value)) is None


@given(OUTPUTS, st.integers(0, 200))
def test_a_value_that_was_cut_off_or_is_anothers_is_nothing(outputs: tuple[Tensor, ...], size: int) -> None:
    value = encode_outputs(KEY, outputs)
    assert decode_outputs(KEY, value[: min(size, len(value) - 1)]) is None
    assert decode_outputs(sha256(KEY).digest(), value) is None


@given(st.binary(max_size=80))
def test_any_other_bytes_are_nothing(value: bytes) -> None:
    assert decode_outputs(KEY, value) is None


@pytest.mark.parametrize(
    "rows",
    [
        [("y", "FP32", (1, 2), bytes(4))],
        [("y", "FP99", (1,), bytes(4))],
        [("y", "FP32", (-1,), b"")],
        [("y", "BYTES", (1,), b"\5\0\0\0abc")],
        [("y", "FP32", (1,))],
        {"y": 1},
        [("y", "FP32", [2**40, 2**40], b"")],
    ],
)
def test_outputs_that_do_not_fit_themselves_are_nothing_though_their_digest_is_right(rows: object) -> None:
    """Written by somebody else, or by a release with a bug."""
    body = msgspec.msgpack.encode(rows)
    assert decode_outputs(KEY, FORM + sha256(KEY + body).digest()[:DIGEST_BYTES] + body) is None


def test_a_view_is_kept_as_its_bytes() -> None:
    data = np.arange(4, dtype="<f4").tobytes()
    viewed = (Tensor("y", "FP32", (4,), memoryview(data)),)
    assert decode_outputs(KEY, encode_outputs(KEY, viewed)) == (Tensor("y", "FP32", (4,), data),)
