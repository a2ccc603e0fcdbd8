"""When a dead child is started again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.restart import LIMITS, Death, RestartState, decide_restart
from hyperion.schema.config import EXIT_REFUSED

SERVED_LONG = Death(ready_s=60.0, exit_code=-9)
SERVED_BRIEFLY = Death(ready_s=0.1, exit_code=-11)
NEVER_READY = Death(ready_s=None, exit_code=1)


def delays(deaths: list[Death]) -> list[float | None]:
    state, found = RestartState(), []
    for death in deaths:
        restart = decide_restart(death, state)
        state = restart.state
        found.append(restart.delay_s)
    return found


def test_a_child_that_served_for_long_is_restarted_at_once_each_time() -> None:
    assert delays([SERVED_LONG] * 4) == [0.0] * 4


def test_quick_deaths_back_off_from_50_ms_to_a_second() -> None:
    assert delays([SERVED_BRIEFLY] * 8) == pytest.approx([0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_serving_for_long_ends_the_back_off() -> None:
    assert delays([SERVED_BRIEFLY, SERVED_BRIEFLY, SERVED_LONG, SERVED_BRIEFLY]) == [0.0, 0.05, 0.0, 0.05]


def test_deaths_before_ready_back_off_from_200_ms_to_half_a_minute() -> None:
    assert delays([NEVER_READY] * 10) == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0])


def test_having_been_ready_ends_the_patience_of_those_that_never_were() -> None:
    assert delays([NEVER_READY, NEVER_READY, SERVED_LONG, NEVER_READY])[-1] == 0.2


def test_a_refusal_is_final_only_before_ready() -> None:
    assert delays([Death(None, EXIT_REFUSED)]) == [None]
    assert delays([Death(9.0, EXIT_REFUSED)]) == [0.0]


@given(
    st.lists(st.builds(Death, st.none() | st.floats(0, 1e6), st.integers(-64, 255)), max_size=200),
)
def test_no_history_makes_a_delay_negative_or_longer_than_its_limit(history: list[Death]) -> None:
    for death, delay_s in zip(history, delays(history), strict=True):
        if delay_s is None:
            assert (death.ready_s, death.exit_code) == (None, EXIT_REFUSED)
        else:
            assert 0.0 <= delay_s <= (LIMITS.patient_last_s if death.ready_s is None else LIMITS.quick_last_s)


def test_thousands_of_deaths_in_a_row_do_not_overflow() -> None:
    assert decide_restart(NEVER_READY, RestartState(patient=5_000)).delay_s == LIMITS.patient_last_s
