"""Leases: how large they are, and the bound that is promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.lease import (
    PERIOD_S,
    admitted_most,
    advance,
    lease_most,
    lease_wanted,
    shared_burst,
)

RATES = st.sampled_from([0.5, 7.0, 100.0, 5_000.0])
BURSTS = st.sampled_from([1, 3, 100, 1_000])
GATEWAYS = st.integers(1, 5)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 500), RATES, BURSTS, GATEWAYS)
def test_a_lease_is_within_its_most_and_enough_for_what_was_asked(
    asked: int, largest: int, held: int, rate: float, burst: int, gateways: int
) -> None:
    wanted = lease_wanted(asked, largest, held, rate, burst, gateways)
    most = max(lease_most(rate, burst, gateways), min(largest, burst))
    assert wanted >= 0
    assert wanted + held <= max(most, held)
    assert wanted + held >= min(2 * asked, most)
    assert wanted + held >= min(largest, 2 * asked, burst)


@given(RATES, BURSTS, GATEWAYS)
def test_all_gateways_together_advance_a_quarter_of_the_burst_or_one_each(
    rate: float, burst: int, gateways: int
) -> None:
    assert gateways <= gateways * advance(burst, gateways) <= max(gateways, burst / 4)


@pytest.mark.parametrize("gateways", [1, 3, 10])
@pytest.mark.parametrize("rate", [1.0, 100.0, 10_000.0])
def test_one_gateway_can_use_the_whole_rate(rate: float, gateways: int) -> None:
    burst = shared_burst(rate, 1)
    assert lease_most(rate, burst, gateways) >= rate * PERIOD_S
    assert burst >= rate * PERIOD_S


@given(RATES, BURSTS, GATEWAYS, st.floats(0, 1e4), st.integers(0, 3))
def test_the_bound_is_what_one_bucket_admits_and_the_advances(
    rate: float, burst: int, gateways: int, seconds: float, outages: int
) -> None:
    """tests/gateway/test_shared_limits.py holds the gateways to it."""
    whole = shared_burst(rate, burst)
    alone = whole + rate * seconds
    most = admitted_most(rate, burst, gateways, seconds, outages)
    assert alone < most <= alone + max(gateways, whole / 4) + 2 * whole * outages + 1e-6
