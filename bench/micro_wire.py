"""Microbenchmarks of the wire codecs: `python bench/micro_wire.py [NAME…]` prints the microseconds of one call.

The best run is what the code costs when nothing disturbs it; compare such figures only on one machine, side by side.
"""

import random
import sys
import timeit
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import orjson

from hyperion.schema.call import InferenceAnswer
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.json import data as json_data
from hyperion.wire.json import large as json_large
from hyperion.wire.limits import DEFAULT_LIMITS
from hyperion.wire.oip.json import ALL_JSON, AnswerFormat, decode_infer, encode_answer
from hyperion.wire.tensor import DATATYPES, from_numpy, join_rows, split_rows
from hyperion.wire.v1 import decode_predict, encode_predict

RUNS = 15
RUN_SECONDS = 0.02


def time_call(call: Callable[[], object]) -> float:
    """Microseconds of one call: the best of RUNS runs of about RUN_SECONDS each."""
    timer = timeit.Timer(call)
    once = max(min(timer.repeat(3, 1)), 1e-7)
    number = max(1, int(RUN_SECONDS / once))
    return min(timer.repeat(RUNS, number)) / number * 1e6


def request(rng: random.Random, shape: list[int], datatype: str, nested: bool) -> bytes:
    """A V2 request with one tensor of random values in full precision."""
    count = int(np.prod(shape))
    kinds: dict[str, Callable[[], object]] = {
        "f": lambda: rng.gauss(0, 1),
        "i": lambda: rng.randrange(-100, 100),
        "s": lambda: f"word {rng.random():.3f}",
    }
    values = np.array([kinds[DATATYPES[datatype].kind]() for _ in range(count)], dtype=object)
    data = (values.reshape(shape) if nested else values).tolist()
    return orjson.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]})


def decoding(rng: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
    """Cases of decoding requests."""
    limits = DEFAULT_LIMITS
    for shape, datatype, nested in (
        ([1, 20], "FP32", False),
        ([1, 20], "FP32", True),
        ([1, 20], "INT64", False),
        ([1, 8], "BYTES", False),
        ([1, 784], "FP32", False),
        ([1, 784], "FP32", True),
        ([196, 4], "FP32", True),
        ([1, 3, 224, 224], "FP32", False),
        ([1, 3, 224, 224], "FP32", True),
        ([1, 224, 224, 3], "FP32", True),
    ):
        body = request(rng, shape, datatype, nested)
        name = f"decode {datatype}{shape} {'nested' if nested else 'flat'}"
        yield name, partial(decode_infer, "m", "", body, None, limits)
    head = orjson.dumps(
        {
            "inputs": [
                {"name": "x", "shape": [1, 20], "datatype": "FP32", "parameters": {"binary_data_size": 80}},
            ],
            "parameters": {"binary_data_output": True},
        }
    )
    binary = head + bytes(80)
    yield "decode FP32[1, 20] binary", lambda: decode_infer("m", "", binary, len(head), limits)
    signature = Signature((TensorSpec("x", "FP32", (-1, 20)),), ())
    rows = orjson.dumps({"instances": [[rng.gauss(0, 1) for _ in range(20)]]})
    yield "decode V1 20 floats", lambda: decode_predict("m", "", rows, signature, limits)


def encoding(rng: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
    """Cases of encoding answers, and of cutting and joining batches."""

    def answer(columns: int) -> InferenceAnswer:
        values = np.array([[rng.random() for _ in range(columns)]])
        return InferenceAnswer("m", "1", "sha256:0", (from_numpy("y", values, "FP32"),))

    small, large = answer(10), answer(10_000)
    yield "encode FP32[1, 10] JSON", lambda: encode_answer(small, ALL_JSON)
    yield "encode FP32[1, 10] JSON with id", lambda: encode_answer(small, AnswerFormat("42"))
    yield "encode FP32[1, 10] binary", lambda: encode_answer(small, AnswerFormat(binary=True))
    yield "encode FP32[1, 10000] JSON", lambda: encode_answer(large, ALL_JSON)
    yield "encode V1 FP32[1, 10]", lambda: encode_predict(small)
    rows = [small.outputs[0]] * 64
    batch = join_rows(rows)
    ones = [1] * 64
    yield "join 64 rows", lambda: join_rows(rows)
    yield "split 64 rows", lambda: split_rows(batch, ones)


def thresholds(rng: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
    """msgspec against simdjson around SIMD_ELEMENTS."""
    datatype = DATATYPES["FP32"]

    def exact(text: bytes) -> bytes:
        return json_data.pack(json_data.decode_text(text, datatype, 1), datatype)

    for count in (64, 128, 256, 512):
        text = orjson.dumps([rng.gauss(0, 1) for _ in range(count)])
        yield f"{count} floats msgspec", partial(exact, text)
        yield f"{count} floats simdjson", partial(json_large.parse_large, text, datatype, (count,), count)


def main(wanted: list[str]) -> None:
    """Print the cases whose name contains one of `wanted`, or all."""
    rng = random.Random(7)
    for group in (decoding, encoding, thresholds):
        for name, call in group(rng):
            if not wanted or any(part in name for part in wanted):
                print(f"{name:42} {time_call(call):10.2f} µs")


if __name__ == "__main__":
    main(sys.argv[1:])
