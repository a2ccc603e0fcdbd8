"""Brown-out: optional work is given up when an overload lasts, step by step, and taken up again when it is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.brownout import FALL_NS, HIGH, LOW, MOST, RISE_NS, Brownout, look

TENTH = 100_000_000
SECOND = 1_000_000_000


def run(loads: list[float], state: Brownout, now_ns: int = SECOND) -> tuple[list[int], Brownout]:
    """The levels after each look, ten a second."""
    levels = []
    for index, load in enumerate(loads):
        state = look(state, load * 1e6, 1e6, now_ns + index * TENTH)
        levels.append(state.level)
    return levels, state


def test_each_step_up_takes_as_long_as_the_last() -> None:
    levels, _ = run([1.0] * 60, Brownout())
    assert levels[0] == 0
    assert [levels.index(level) for level in range(1, MOST + 1)] == [10, 20, 30]
    assert max(levels) == MOST


def test_a_burst_changes_nothing() -> None:
    levels, _ = run([1.0] * 8 + [0.0] * 20 + [1.0] * 8 + [0.0] * 20, Brownout())
    assert set(levels) == {0}


def test_what_was_given_up_comes_back_step_by_step_and_later() -> None:
    _, state = run([1.0] * 60, Brownout())
    levels, state = run([0.0] * 200, state, 7 * SECOND)
    steps = [levels.index(level) for level in (2, 1, 0)]
    assert steps[1] - steps[0] == steps[2] - steps[1] == FALL_NS // TENTH
    assert state.level == 0


@pytest.mark.parametrize("load", [(HIGH + LOW) / 2, HIGH - 0.01, LOW + 0.01])
def test_between_the_two_bounds_nothing_moves(load: float) -> None:
    assert set(run([load] * 300, Brownout())[0]) == {0}
    _, state = run([1.0] * 60, Brownout())
    levels, _ = run([load] * 300, state, 7 * SECOND)
    assert set(levels) == {MOST}


def test_a_queue_that_empties_in_leaps_is_overloaded_all_the_same() -> None:
    """A batch takes much out of a short queue at once."""
    levels, _ = run([1.2, 0.6] * 40, Brownout())
    assert levels[-1] == MOST


def test_without_a_target_there_is_no_overload() -> None:
    assert look(Brownout(), 1e9, 0.0, SECOND) == Brownout(0, 0.0, SECOND, SECOND)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 3 * SECOND)), max_size=100))
def test_a_level_moves_by_one_and_never_faster_than_it_may(looks: list[tuple[float, int]]) -> None:
    state, now_ns, moved_ns = Brownout(), SECOND, 0
    for load, gap_ns in looks:
        now_ns += gap_ns
        after = look(state, load, 1.0, now_ns)
        assert 0 <= after.level <= MOST
        assert abs(after.level - state.level) <= 1
        if after.level != state.level:
            assert now_ns - moved_ns >= (RISE_NS if after.level > state.level else FALL_NS)
            moved_ns = now_ns
        state = after
