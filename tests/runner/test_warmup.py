"""Warm-up: which batches are run, when it stops, and that a model which refuses zeros is still served."""

from collections.abc import Iterator

import numpy as np

from hyperion.runner.model import Arrays, Unary
from hyperion.runner.warmup import make_inputs, warm_up
from hyperion.schema.model import ModelOptions, Signature, TensorSpec


class Recorder(Unary):
    """A model that notes the batches it sees, on a clock that advances by `seconds` per run."""

    platform = "test"

    def __init__(self, seconds: list[float], batched: bool = True) -> None:
        shape = (-1, 3) if batched else (2, -1)
        self.signature = Signature((TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", shape),), batched)
        self.shapes: list[tuple[int, ...]] = []
        self._seconds: Iterator[float] = iter(seconds)
        self.now = 0.0

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        self.shapes.append(inputs["x"].shape)
        self.now += next(self._seconds)
        return dict.fromkeys(outputs, inputs["x"])

    def clock(self) -> float:
        return self.now


def run(model: Recorder, options: ModelOptions) -> dict[int, float]:
    """Warms up and lets a report fail the test."""
    lines: list[str] = []
    took = warm_up(model, options, lines.append, model.clock)
    assert lines == []
    return took


def test_each_bucket_runs_twice_and_the_faster_run_counts() -> None:
    model = Recorder([0.5, 0.125, 0.25, 0.5, 0.125, 0.25])
    assert run(model, ModelOptions(max_batch_size=32)) == {1: 0.125, 8: 0.25, 32: 0.125}
    assert model.shapes == [(1, 3), (1, 3), (8, 3), (8, 3), (32, 3), (32, 3)]


def test_a_slow_model_is_not_kept_from_serving() -> None:
    model = Recorder([1.5, 1.5])
    assert run(model, ModelOptions()) == {1: 1.5}


def test_buckets_that_were_asked_for_run_once_however_slow() -> None:
    model = Recorder([3.0, 4.0])
    assert run(model, ModelOptions(buckets=(4, 16))) == {4: 3.0, 16: 4.0}


def test_buckets_over_the_largest_batch_are_cut_to_it() -> None:
    model = Recorder([0.0] * 4)
    assert list(run(model, ModelOptions(max_batch_size=4))) == [1, 4]


def test_a_model_that_is_not_batched_runs_as_it_is() -> None:
    model = Recorder([0.25, 0.5], batched=False)
    assert run(model, ModelOptions()) == {1: 0.25}
    assert model.shapes == [(2, 1), (2, 1)]


def test_a_model_that_refuses_zeros_is_reported_and_still_served() -> None:
    class Picky(Recorder):
        def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
            raise KeyError("no word 0")

    lines: list[str] = []
    assert warm_up(Picky([]), ModelOptions(), lines.append) == {}
    assert lines == ["warm-up with 1 rows of zeros failed: KeyError: 'no word 0'"]


def test_made_up_inputs_have_every_type() -> None:
    specs = tuple(TensorSpec(name, name, (-1, 2)) for name in ("BYTES", "BOOL", "INT64", "FP16", "BF16"))
    made = make_inputs(Signature(specs, ()), 3)
    assert made["BYTES"].tolist() == [[b"", b""]] * 3
    assert {name: str(array.dtype) for name, array in made.items()} == {
        "BYTES": "object",
        "BOOL": "bool",
        "INT64": "int64",
        "FP16": "float16",
        "BF16": "float32",
    }
    assert all(np.shape(array) == (3, 2) for array in made.values())


def test_free_axes_have_the_lengths_that_a_repository_gives() -> None:
    specs = (TensorSpec("image", "FP32", (-1, 3, -1, -1)), TensorSpec("scale", "FP32", (-1, -1)))
    made = make_inputs(Signature(specs, ()), 2, {"image": [3, 8, 9]})
    assert [made["image"].shape, made["scale"].shape] == [(2, 3, 8, 9), (2, 1)]
    whole = make_inputs(Signature((TensorSpec("image", "FP32", (-1, 4)),), (), batched=False), 1, {"image": [5, 4]})
    assert whole["image"].shape == (5, 4)
