"""Numbers that are written without numpy."""

import subprocess
import sys

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.wire.json.plain import encode_plain
from hyperion.wire.tensor import DATATYPES
from tests.wire.strategies import NUMERIC, Array, arrays


@pytest.mark.parametrize("datatype", NUMERIC)
@given(data=st.data())
def test_they_read_back_as_those_that_numpy_writes(datatype: str, data: st.DataObject) -> None:
    array: Array = data.draw(arrays(datatype, finite=False)).ravel()
    plain = orjson.loads(encode_plain(array.tobytes(), DATATYPES[datatype]))
    fast = orjson.loads(orjson.dumps(array, None, orjson.OPT_SERIALIZE_NUMPY))
    assert [value is None for value in plain] == [value is None for value in fast]
    assert [np.array(v or 0, array.dtype).tobytes() for v in plain] == [
        np.array(v or 0, array.dtype).tobytes() for v in fast
    ]


def test_floats_have_no_more_digits_than_they_need() -> None:
    values = np.array([0.1, 1 / 3, 16777216.0, 1e-7, 3.4028235e38], "<f4")
    assert orjson.loads(encode_plain(values.tobytes(), DATATYPES["FP32"])) == [
        0.1,
        0.33333334,
        16777216.0,
        1e-7,
        3.4028235e38,
    ]


CODE = """
import sys
from hyperion.schema.call import InferenceAnswer, Tensor
from hyperion.wire.oip.answer import ALL_JSON, encode_answer
answer = lambda count: InferenceAnswer("m", "1", "", (Tensor("y", "FP32", (count,), bytes(4 * count)),))
small = encode_answer(answer(2), ALL_JSON)[0][0]
assert b'"data":[0.0,0.0]' in small, small
print("numpy" in sys.modules)
large = encode_answer(answer(1000), ALL_JSON)[0][0]
print("numpy" in sys.modules, large.count(b"0.0"))
import numpy
assert encode_answer(answer(2), ALL_JSON)[0][0] == small
"""


def test_only_a_large_answer_makes_a_process_import_numpy() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "1000"]
