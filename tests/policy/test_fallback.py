"""A chain answers within the deadline whatever its attempts do, and a caller's own mistake goes down no chain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.fallback import LEAST_KEPT_NS, LEAST_NS, MOST_KEPT_NS, explain_misfit, falls_back, share_ns
from hyperion.schema.errors import HyperionError
from hyperion.schema.model import Signature, TensorSpec
from tests.policy.codes import CODES


@pytest.mark.parametrize("kind", CODES.values(), ids=list(CODES))
def test_only_what_others_may_do_better_falls_back(kind: type[HyperionError]) -> None:
    computed, at_hand = (falls_back(kind.code, kind.blame, how) for how in (False, True))
    assert computed is (kind.blame != "caller" and kind.code not in ("internal", "poison_request"))
    assert at_hand is (kind.blame != "caller" and kind.code != "internal")


@given(st.integers(0, 10**11), st.integers(0, 8), st.booleans())
def test_attempts_that_use_up_their_shares_leave_time_for_the_rest(left_ns: int, later: int, at_hand: bool) -> None:
    for further in range(later, -1, -1):
        share = share_ns(left_ns, further, at_hand)
        assert share == 0 or LEAST_NS <= share <= left_ns
        if at_hand:
            assert left_ns - share >= min(MOST_KEPT_NS, max(LEAST_KEPT_NS, left_ns // 20), left_ns // 2) - 1
        left_ns -= share
    assert left_ns >= 0


def test_the_first_attempt_gets_half_and_the_last_all() -> None:
    assert [share_ns(800, 1, False), share_ns(8 * LEAST_NS, 1, False)] == [0, 4 * LEAST_NS]
    assert share_ns(8 * LEAST_NS, 0, False) == 8 * LEAST_NS


X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1,))


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ((X,), (Y,), ""),
        ((TensorSpec("x", "FP32", (8, -1)),), (Y, X), ""),
        ((), (Y,), 'it has no input "x"'),
        ((X, Y), (Y,), 'it needs an input "y" besides'),
        ((X,), (X,), 'it has no output "y"'),
        ((TensorSpec("x", "FP32", (-1, 5)),), (Y,), 'its input "x" is FP32 [-1, 5], expected FP32 [-1, 4]'),
        ((TensorSpec("x", "FP32", (-1,)),), (Y,), 'its input "x" is FP32 [-1], expected FP32 [-1, 4]'),
        ((X,), (TensorSpec("y", "FP64", (-1,)),), 'its output "y" is FP64 [-1], expected FP32 [-1]'),
    ],
)
def test_who_takes_or_gives_something_else_cannot_stand_in(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], reason: str
) -> None:
    assert explain_misfit(Signature((X,), (Y,)), Signature(inputs, outputs)) == reason
