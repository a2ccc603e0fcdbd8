"""Different requests have different keys, the same request always has the same one."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.gateway.cache.key import LARGE_BYTES, identity, make_key
from hyperion.schema.call import InferenceCall, Tensor
from hyperion.schema.errors import InternalError

DIGEST = "sha256:" + "ab" * 32
# Short texts of few letters, so that joined without lengths many would be the same.
TEXTS = st.text("ab:1", max_size=3)
VALUES = st.one_of(
    TEXTS, st.booleans(), st.integers(-3, 3), st.none(), st.sampled_from([0.0, -0.0, 1.0, 2.0, float("inf")])
)
TENSORS = st.builds(
    Tensor,
    TEXTS,
    st.sampled_from(["FP32", "INT32", "UINT8", "BYTES"]),
    st.lists(st.integers(0, 2), max_size=3).map(tuple),
    st.binary(max_size=9),
)
CALLS = st.builds(
    InferenceCall,
    st.just("m"),
    st.sampled_from(["", "1"]),
    TEXTS,
    st.lists(TENSORS, min_size=1, max_size=3, unique_by=lambda one: one.name).map(tuple),
    st.lists(TEXTS, max_size=2, unique=True).map(tuple),
    st.dictionaries(TEXTS, VALUES, max_size=2),
)
REQUESTS = st.tuples(TEXTS, st.sampled_from(["", DIGEST, "a"]), CALLS)


def encoded(scope: str, digest: str, call: InferenceCall) -> bytes:
    return b"".join(identity(scope, digest, call)[0])


def meaning(scope: str, digest: str, call: InferenceCall) -> Any:
    """What an answer depends on, as values that Python compares."""
    inputs = sorted((one.name, one.datatype, one.shape, bytes(one.data)) for one in call.inputs)
    parameters = sorted(
        (name, type(value).__name__, struct.pack("<d", value) if type(value) is float else value)
        for name, value in call.parameters.items()
    )
    return scope, digest, inputs, call.outputs, [(name, kind, str(value)) for name, kind, value in parameters]


@given(REQUESTS, REQUESTS)
def test_two_encodings_are_the_same_only_where_the_requests_are(
    one: tuple[str, str, InferenceCall], other: tuple[str, str, InferenceCall]
) -> None:
    assert (encoded(*one) == encoded(*other)) is (meaning(*one) == meaning(*other))
    assert (make_key(*one) == make_key(*other)) is (meaning(*one) == meaning(*other))


def call(**changes: Any) -> InferenceCall:
    fields: dict[str, Any] = {"data": bytes(8), "datatype": "FP32", "shape": (1, 2), "outputs": (), "parameters": {}}
    fields.update(changes)
    tensor = Tensor("x", fields["datatype"], fields["shape"], fields["data"])
    return InferenceCall("m", "", "", (tensor,), fields["outputs"], fields["parameters"])


def test_the_same_bytes_as_something_else_have_another_key() -> None:
    """Shapes, datatypes, outputs and their order, parameters and their types, tenants, digests."""
    calls = [
        call(),
        call(shape=(2, 1)),
        call(shape=(2,)),
        call(shape=(1, 1, 2)),
        call(datatype="INT32"),
        call(datatype="FP64", shape=(1, 1)),
        call(datatype="UINT8", shape=(1, 8)),
        call(outputs=("y",)),
        call(outputs=("y", "z")),
        call(outputs=("z", "y")),
        call(outputs=("yz",)),
        *[
            call(parameters={"p": value})
            for value in (1, True, "1", 1.0, 0, False, 0.0, -0.0, None, "", "None", "True")
        ],
        call(parameters={"p": 1, "q": 1}),
        call(parameters={"q": 1}),
        InferenceCall("m", "", "", (Tensor("x", "FP32", (1, 2), bytes(8)), Tensor("y", "FP32", (1, 2), bytes(8)))),
        InferenceCall("m", "", "", (Tensor("xx", "FP32", (1, 2), bytes(8)),)),
    ]
    keys = [make_key(scope, digest, one) for one in calls for scope in ("", "a", "b") for digest in ("", DIGEST)]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


def test_what_does_not_change_the_answer_does_not_change_the_key() -> None:
    """Order of inputs and parameters, id, version by name, priority, timeout, and the kind of buffer."""
    x, y = Tensor("x", "FP32", (1,), b"\0\0\0\1"), Tensor("y", "FP32", (1,), b"\0\0\0\2")
    viewed = Tensor("x", "FP32", (1,), memoryview(bytearray(x.data)))
    keys = {
        make_key("t", DIGEST, one)
        for one in (
            InferenceCall("m", "", "", (x, y), ("o",), {"a": 1, "b": 2}),
            InferenceCall("other", "3", "id", (y, viewed), ("o",), {"b": 2, "a": 1}, 5, 10**9),
        )
    }
    assert len(keys) == 1


def test_large_tensors_have_the_key_that_small_ones_would_have() -> None:
    """They are hashed piece by piece, which must not show."""
    big = bytes(LARGE_BYTES + 5)
    one = InferenceCall("m", "", "", (Tensor("x", "UINT8", (len(big),), big),))
    halves = tuple([Tensor(name, "UINT8", (len(big) // 2,), big[: len(big) // 2]) for name in "xy"])
    from hashlib import sha256

    assert make_key("", DIGEST, one) == sha256(encoded("", DIGEST, one)).digest()
    assert make_key("", DIGEST, InferenceCall("m", "", "", halves)) != make_key("", DIGEST, one)


def test_keys_are_the_same_after_the_descriptions_were_forgotten() -> None:
    keys = [make_key(f"tenant {n}", DIGEST, call(shape=(n, 1))) for n in range(9_000)]
    again = [make_key(f"tenant {n}", DIGEST, call(shape=(n, 1))) for n in range(9_000)]
    assert keys == again
    assert len(set(keys)) == len(keys)


def test_a_parameter_that_is_no_single_value_is_our_bug() -> None:
    with pytest.raises(InternalError, match='parameter "p" is a list'):
        make_key("", DIGEST, call(parameters={"p": [1]}))
