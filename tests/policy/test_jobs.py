"""How jobs go on: every answer leads somewhere, no job tries for ever, and jitter stays within its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.jobs import (
    LEASE_S,
    LONGEST_BACKOFF_S,
    RENEW_S,
    WINDOW_LEAST,
    WINDOW_MOST,
    adapt,
    backoff_s,
    classify,
    follow,
)
from hyperion.schema.job import Kind

KINDS = st.sampled_from(["done", "failed", "retry", "busy"])


@pytest.mark.parametrize(
    ("status", "says_when", "kind"),
    [
        (200, False, "done"),
        (204, True, "done"),
        (400, False, "failed"),
        (404, True, "failed"),
        (422, False, "failed"),
        (500, False, "failed"),
        (408, True, "retry"),
        (429, True, "busy"),
        (429, False, "retry"),
        (502, True, "retry"),
        (503, True, "busy"),
        (503, False, "retry"),
        (504, True, "retry"),
    ],
)
def test_what_an_answer_means(status: int, says_when: bool, kind: str) -> None:
    assert classify(status, says_when) == kind


@given(st.integers(1, 1000), st.floats(0.0, 100.0), st.floats(0, 1, exclude_max=True))
def test_the_wait_is_within_its_bounds(attempt: int, base_s: float, random: float) -> None:
    wait = backoff_s(attempt, base_s, random)
    assert 0 <= wait <= min(LONGEST_BACKOFF_S, base_s * 2.0 ** min(attempt, 99))


@given(
    *(KINDS, st.integers(1, 9), st.integers(1, 9), st.floats(0.0, 1000.0), st.floats(0, 1, exclude_max=True)),
    st.floats(0.0, 1e9),
)
def test_every_attempt_leads_somewhere(
    kind: Kind, attempts: int, most: int, left_s: float, random: float, told_s: float
) -> None:
    then = follow(kind, "why", attempts, most, 1.0, 100.0 + left_s, 100.0, random, told_s)
    if kind in ("done", "failed"):
        assert then.state == kind
    elif then.state == "queued":
        assert 100.0 <= then.due_at < 100.0 + left_s
        assert then.counted == (kind == "retry")
        assert kind == "busy" or attempts < most
    else:
        assert then.state == "dead"
        assert "why" in then.reason
        assert (kind == "retry" and attempts >= most) or left_s < 600


@pytest.mark.parametrize(
    ("told_s", "left_s", "due_s"),
    [(0.0, 1e6, 1.0), (0.2, 1e6, 1.0), (30.0, 1e6, 30.0), (86_400.0, 1e6, 600.0), (60.0, 20.0, 10.0)],
)
def test_a_job_that_is_refused_comes_back_when_it_was_told_to(told_s: float, left_s: float, due_s: float) -> None:
    """Not sooner, or the queue would be asked for nothing again and again; within its time, as limits may change."""
    then = follow("busy", "429", 1, 5, 1.0, 100.0 + left_s, 100.0, 0.5, told_s)
    assert (then.state, then.due_at) == ("queued", 100.0 + due_s)


@given(st.floats(WINDOW_LEAST, WINDOW_MOST))
def test_a_tenant_without_quota_takes_no_room_from_others(window: float) -> None:
    assert adapt(window, "busy", 3600.0) == window


@given(st.floats(WINDOW_LEAST, WINDOW_MOST), KINDS)
def test_the_window_stays_within_its_bounds(window: float, kind: Kind) -> None:
    after = adapt(window, kind)
    assert WINDOW_LEAST <= after <= WINDOW_MOST
    assert (after < window) == (kind == "busy" and window > WINDOW_LEAST)


def test_a_lease_survives_two_lost_renewals() -> None:
    assert 3 * RENEW_S < LEASE_S
