"""A cache is looked into as long as that is cheaper than computing, and found again once it would be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.cache_worth import (
    LOOKS_PER_S,
    SAMPLE,
    Seen,
    Worth,
    break_even,
    follow,
    judge,
    looks,
)

US, MS = 1_000.0, 1_000_000.0
SHARES = st.floats(0, 1)
COUNTS = st.integers(0, 100_000)


def seen(requests: int, hits: float, key_ns: float = US, compute_ns: float = 0.0, sampled: float | None = None) -> Seen:
    """All of so many requests were looked up; of the sample the share `sampled` hit, as of all if not said."""
    part = requests // SAMPLE
    return Seen(
        requests, int(requests * hits), part, int(part * (hits if sampled is None else sampled)), key_ns, compute_ns
    )


@pytest.mark.parametrize(
    ("key_ns", "compute_ns", "share"),
    [
        (0.0, 0.0, 0.15),
        (US, 0.0, 0.25),
        (US, 10 * US, 0.125),
        (US, MS, 0.0025),
        (10 * MS, 0.0, 1000.15),
        (-5.0, -5.0, 0.15),
    ],
)
def test_the_share_that_breaks_even(key_ns: float, compute_ns: float, share: float) -> None:
    assert break_even(key_ns, compute_ns) == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize(
    ("worth", "given", "pays"),
    [
        (Worth(), seen(256, 0.0), True),  # a new cache is given time
        (Worth(), seen(20_000, 0.0), False),
        (Worth(), seen(20_000, 0.0, compute_ns=50 * MS), True),  # a slow model: the faintest hope pays
        (Worth(), seen(20_000, 0.3), True),
        (Worth(), seen(40_000, 0.1), False),
        (Worth(), seen(20_000, 0.1, compute_ns=MS), True),
        (Worth(), seen(20_000, 0.0, sampled=0.9), True),  # what comes again after long
        (Worth(0.0, 0.0, False), seen(20_000, 0.3), False),  # it would do, but not by the margin
        (Worth(0.0, 0.0, False), seen(20_000, 0.6), True),
        (Worth(0.0, 0.0, False), Seen(2_000, 0, 1_000, 800, US, 0.0), True),
        (Worth(0.0, 0.0, False), Seen(0, 0, 0, 0, US, 0.0), False),
        (Worth(1.0, 1.0, True), seen(20_000, 1.0, key_ns=10 * MS), False),  # a key that costs more than the model
        (Worth(1.0, 1.0, False), seen(20_000, 1.0, key_ns=10 * MS), False),
    ],
)
def test_verdicts(worth: Worth, given: Seen, pays: bool) -> None:
    assert judge(worth, given).pays is pays


@given(SHARES, COUNTS, SHARES, st.floats(1, 1e5))
def test_a_share_moves_towards_what_is_seen_and_never_past_it(
    share: float, count: int, hit_share: float, half_life: float
) -> None:
    hits = int(count * hit_share)
    after = follow(share, count, hits, half_life)
    if not count:
        assert after == share
    else:
        low, high = sorted((share, hits / count))
        assert low - 1e-9 <= after <= high + 1e-9


@given(SHARES, SHARES, st.floats(0, 20 * US), st.floats(0, 100 * MS))
def test_hits_alone_bring_a_cache_back_wherever_they_are_worth_it(
    recent: float, sampled: float, key_ns: float, compute_ns: float
) -> None:
    worth = Worth(recent, sampled, False)
    for _ in range(200):
        worth = judge(worth, seen(512, 1.0, key_ns, compute_ns))
    assert worth.pays is (break_even(key_ns, compute_ns) < 0.999)


@given(SHARES, SHARES, st.booleans(), st.floats(0, 20 * US), st.floats(0, MS))
def test_unique_requests_alone_end_it_and_then_it_stays_ended(
    recent: float, sampled: float, pays: bool, key_ns: float, compute_ns: float
) -> None:
    worth = Worth(recent, sampled, pays)
    verdicts = []
    for _ in range(2_000):
        worth = judge(worth, seen(512, 0.0, key_ns, compute_ns))
        verdicts.append(worth.pays)
    assert not verdicts[-1]
    assert not any(verdicts[verdicts.index(False) :])


@given(SHARES, SHARES, st.booleans(), st.booleans(), st.integers(0, 10_000))
def test_where_it_pays_all_are_looked_up_and_elsewhere_the_sample_and_the_first_of_a_second(
    recent: float, sampled: float, pays: bool, in_sample: bool, looks_this_second: int
) -> None:
    expected = pays or in_sample or looks_this_second < LOOKS_PER_S
    assert looks(Worth(recent, sampled, pays), in_sample, looks_this_second) is expected
