"""The benchmark's own protobuf says what the official schema says."""

import numpy as np

from bench import v2
from bench.workloads import Workload

SMALL = Workload("small", "small", "", "binary", 2)


def test_a_request_written_by_hand_reads_back_field_by_field() -> None:
    x = np.arange(20, dtype=np.float32).reshape(1, 20)
    fields = dict(v2._fields(v2.grpc_request(SMALL, x, "m" * 200)))
    assert fields[1] == b"m" * 200
    assert np.array_equal(np.frombuffer(fields[7], np.float32), x.ravel())
    assert dict(v2._fields(fields[5])) == {1: b"input", 2: b"FP32", 3: bytes([1, 20])}


def test_raw_and_typed_answers_give_the_same_numbers() -> None:
    y = np.array([0.25, 0.75], np.float32)
    raw = v2._field(1, b"m") + v2._field(6, y.tobytes())
    typed = v2._field(5, v2._field(1, b"output") + v2._field(5, v2._field(6, y.tobytes())))
    assert np.array_equal(v2.grpc_answer(raw), y)
    assert np.array_equal(v2.grpc_answer(typed), y)


def test_json_floats_are_as_short_as_they_can_be_and_exact() -> None:
    x = np.array([[0.1, 1 / 3]], np.float32)
    body = v2.json_body(SMALL, x)
    assert b"[0.1,0.33333334]" in body
    assert np.array_equal(np.array([0.1, 0.33333334], np.float32), x.ravel())
