"""What control makes of an upstream's metadata, and when it looks again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hyperion.policy.upstream import LOOK_S, choose_tensors, make_digest, make_signature, pause_s
from hyperion.schema.errors import UpstreamFailed
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import DeclaredTensor, Upstream

X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1,))
HERE = Upstream("http://127.0.0.1:8000", model="m")


def test_what_is_declared_stands_for_what_the_server_says_and_one_of_them_must_say_something() -> None:
    declared = (DeclaredTensor("z", "INT8", (-1,)),)
    assert choose_tensors("inputs", (), (X,)) == (X,)
    assert choose_tensors("inputs", declared, (X,)) == (TensorSpec("z", "INT8", (-1,)),)
    with pytest.raises(UpstreamFailed, match=r"names no outputs: say them in spec\.upstream\.outputs"):
        choose_tensors("outputs", (), ())


@pytest.mark.parametrize(
    ("shape", "batched"), [((-1,), True), ((-1, 3), True), ((1, -1), False), ((8,), False), ((), False)]
)
def test_rows_are_counted_where_every_first_axis_is_free(shape: tuple[int, ...], batched: bool) -> None:
    assert make_signature([X], [Y, TensorSpec("z", "FP32", shape)]).batched is batched
    assert make_signature([TensorSpec("z", "FP32", shape)], [Y]).batched is batched


@pytest.mark.parametrize(
    "other",
    [{"url": "http://127.0.0.1:8001"}, {"protocol": "oip-grpc"}, {"model": "n"}, {"version": "2"}],
)
def test_another_place_or_model_is_another_digest(other: dict[str, str]) -> None:
    signature = Signature((X,), (Y,))
    first = make_digest(HERE, signature, "onnx")
    assert make_digest(replace(HERE, **other), signature, "onnx") != first
    assert make_digest(HERE, Signature((X,), (X,)), "onnx") != first
    assert make_digest(HERE, signature, "torch") != first


def test_how_it_is_called_changes_no_digest() -> None:
    same = replace(HERE, headers_from="/etc/key", concurrency=3, batch=True, ca_file="/etc/ca")
    assert make_digest(same, Signature((X,), (Y,)), "") == make_digest(HERE, Signature((X,), (Y,)), "")


@given(st.integers(0, 10_000))
def test_looks_are_never_further_apart_than_what_is_known_may_be_old(failures: int) -> None:
    assert 0 < pause_s(failures) <= LOOK_S
    assert failures == 0 or pause_s(failures) <= pause_s(failures + 1)
