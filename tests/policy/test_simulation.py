"""The code that decides, simulated: how often it errs, how soon it halts, and that nothing missing ever promotes."""

from collections.abc import Callable
from math import nan

import msgspec
import numpy as np
import pytest
from tools.simulate_rollouts import NEVER, find_boundary, find_z_boundary, first_halts, is_promoted, upper_bound

from hyperion.policy.evidence import Tally, log_worse
from hyperion.policy.release.rollout import Command, Observed, QueryResult
from hyperion.schema.release import TrackCounts
from hyperion.schema.resource import DriftLimit, Halt, QualityLimit, QueryLimit, Rollout, ShadowStage, Step
from tests.policy.endpoint import NEW, OLD, Behaviour, Endpoint

STEPS = tuple(Step(percent, hold_s=3.0) for percent in (1.0, 5.0, 25.0, 50.0))
QUERIED = Rollout(steps=STEPS, halt=Halt(query=(QueryLimit("lag", max=1.0),)))
LABELLED = Rollout(steps=STEPS, halt=Halt(quality=QualityLimit()))
SHADOWED = Rollout(steps=STEPS, shadow=ShadowStage())
DRIFTING = Rollout(steps=STEPS, halt=Halt(drift=DriftLimit()))
GREEN = Rollout(strategy="blue-green", standby_s=5.0)


@pytest.mark.parametrize("margin", [1.0, 1.2])
def test_ten_thousand_rollouts_at_the_margin_peeked_at_every_event_halt_falsely_in_one_per_cent_at_most(
    margin: float,
) -> None:
    boundary = find_boundary(0.05, margin, 2_000)
    halts = first_halts(np.random.default_rng(7), 0.05, margin, boundary, 10_000)
    assert upper_bound(int((halts < NEVER).sum()), 10_000) <= 0.01


def test_a_fixed_test_peeked_at_halts_falsely_far_more_often() -> None:
    halts = first_halts(np.random.default_rng(7), 0.05, 1.0, find_z_boundary(0.05, 1.0, 2_000), 2_000)
    assert (halts < NEVER).mean() > 0.07


@pytest.mark.parametrize(("ratio", "most"), [(2, 320), (5, 40), (20, 8)])
def test_a_version_that_is_worse_halts_within_few_bad_events(ratio: float, most: int) -> None:
    halts = first_halts(np.random.default_rng(ratio), 0.05, ratio, find_boundary(0.05, 1.0, 2_000), 4_000)
    assert np.median(halts) <= most


def test_the_boundary_is_where_the_deciding_code_halts() -> None:
    """The looked-up counts and the verdict agree on every point near the boundary, so nothing else was simulated."""
    boundary = find_boundary(0.05, 1.2, 400, metrics=2)
    for total in range(1, 401, 7):
        for canary in range(total + 1):
            halts = log_worse([Tally(0.05, canary, total - canary)], 1.2) >= np.log(200)
            assert halts == (canary >= boundary[total - 1])


@pytest.mark.parametrize(("control", "ratio"), [(0.001 / 1.5, 1.5), (0.01, 1.5)])
def test_at_the_margin_false_promotions_are_five_per_cent_at_most(control: float, ratio: float) -> None:
    rng = np.random.default_rng(3)
    passed = sum(is_promoted(rng, 0.5, control, ratio, 0.001, 120) > 0 for _ in range(400))
    assert passed / 400 <= 0.05


def test_a_version_as_good_as_the_old_one_passes_after_a_few_thousand_requests() -> None:
    rng = np.random.default_rng(4)
    needed = [is_promoted(rng, 0.5, 0.00001, 1.0, 0.001, 20) for _ in range(100)]
    assert 3_000 < np.median(needed) < 4_500


@pytest.mark.parametrize("seed", range(5))
def test_an_equal_version_is_promoted_within_a_minute_at_500_requests_a_second(seed: int) -> None:
    endpoint = Endpoint(SHADOWED, seed=seed).run(120)
    assert endpoint.state.state == "promoted"
    assert endpoint.now - endpoint.began < 60
    shares = [detail["weight"] for kind, detail in endpoint.events if kind == "rollout.step"]
    assert shares == [0.0, 0.01, 0.05, 0.25, 0.5]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("new", "metric"),
    [
        (Behaviour(errors=0.05), "errors"),
        (Behaviour(slow=0.9), "slow"),
        (Behaviour(bins=(0.02,) * 5 + (0.18,) * 5), "drift"),
    ],
)
def test_a_bad_version_is_halted_and_the_entry_says_by_what_and_whom_it_harmed(
    new: Behaviour, metric: str, seed: int
) -> None:
    endpoint = Endpoint(DRIFTING, new=new, seed=seed).run(300)
    assert endpoint.state.state == "halted"
    kind, detail = endpoint.events[-1]
    assert kind == "rollout.halted"
    assert detail["reason"].startswith(metric)
    assert detail["requests"]["canary"] < 3_000
    assert any(row["metric"] == metric and row["e_value"] >= row["threshold"] for row in detail["evidence"])


def _counts(observed: Observed, keep: Callable[[TrackCounts], TrackCounts | None]) -> Observed:
    rows = [keep(item) for item in observed.counts]
    return msgspec.structs.replace(observed, counts=tuple(row for row in rows if row is not None))


def _no_events(endpoint: Endpoint, observed: Observed) -> Observed:
    return msgspec.structs.replace(observed, counts=())


def _control_without_traffic(endpoint: Endpoint, observed: Observed) -> Observed:
    return _counts(observed, lambda item: item if item.version == NEW else None)


def _canary_without_traffic(endpoint: Endpoint, observed: Observed) -> Observed:
    return _counts(observed, lambda item: item if item.version == OLD else None)


def _frozen_counts(endpoint: Endpoint, observed: Observed) -> Observed:
    return _counts(observed, lambda item: msgspec.structs.replace(item, requests=min(item.requests, 60)))


def _restart_again_and_again(endpoint: Endpoint, observed: Observed) -> Observed:
    if int(endpoint.now) % 4 == 0:
        endpoint.counts.clear()
    return observed


def _more_errors_than_requests(endpoint: Endpoint, observed: Observed) -> Observed:
    return _counts(observed, lambda item: msgspec.structs.replace(item, errors=item.requests + 1))


def _unknown_version(endpoint: Endpoint, observed: Observed) -> Observed:
    stranger = TrackCounts("e", endpoint.state.epoch, "77", requests=5)
    return msgspec.structs.replace(observed, counts=(*observed.counts, stranger))


def _epoch_of_the_future(endpoint: Endpoint, observed: Observed) -> Observed:
    stranger = TrackCounts("e", endpoint.state.epoch + 9, NEW, requests=5)
    return msgspec.structs.replace(observed, counts=(*observed.counts, stranger))


def _stale_acknowledgement(endpoint: Endpoint, observed: Observed) -> Observed:
    return msgspec.structs.replace(observed, acknowledged_epoch=5)


def _clock_runs_backwards(endpoint: Endpoint, observed: Observed) -> Observed:
    endpoint.now -= 2.0 if endpoint.state.stage >= 0 else 0.0
    return observed


def _clock_leaps(endpoint: Endpoint, observed: Observed) -> Observed:
    endpoint.now += 7_000.0
    return observed


def _candidate_gone(endpoint: Endpoint, observed: Observed) -> Observed:
    return msgspec.structs.replace(observed, candidate="loading") if endpoint.state.stage >= 1 else observed


def _old_version_gone(endpoint: Endpoint, observed: Observed) -> Observed:
    return msgspec.structs.replace(observed, stable_ready=False)


def _no_pairs(endpoint: Endpoint, observed: Observed) -> Observed:
    return msgspec.structs.replace(observed, pairs=())


def _pairs_of_nan(endpoint: Endpoint, observed: Observed) -> Observed:
    pairs = tuple(msgspec.structs.replace(item, abs_sum=nan) for item in observed.pairs)
    return msgspec.structs.replace(observed, pairs=pairs)


def _no_sample(endpoint: Endpoint, observed: Observed) -> Observed:
    return msgspec.structs.replace(observed, sample=None)


def _query(value: float | None, error: str = "", age_s: float = 0.0) -> Callable[[Endpoint, Observed], Observed]:
    def fault(endpoint: Endpoint, observed: Observed) -> Observed:
        result = QueryResult("lag", value, error, endpoint.now - age_s)
        return msgspec.structs.replace(observed, queries=(result,))

    return fault


def _nothing(endpoint: Endpoint, observed: Observed) -> Observed:
    return observed


CANARY = Rollout(steps=STEPS)
MISSING = {
    "no events": (CANARY, _no_events),
    "control without traffic": (CANARY, _control_without_traffic),
    "canary without traffic": (CANARY, _canary_without_traffic),
    "gateways that say the same again and again": (CANARY, _frozen_counts),
    "counts that go back again and again": (CANARY, _restart_again_and_again),
    "more errors than requests": (CANARY, _more_errors_than_requests),
    "counts of an unknown version": (CANARY, _unknown_version),
    "counts of an epoch that is not yet": (CANARY, _epoch_of_the_future),
    "gateways that run an old epoch": (CANARY, _stale_acknowledgement),
    "a clock that runs backwards": (CANARY, _clock_runs_backwards),
    "a clock that leaps forward": (CANARY, _clock_leaps),
    "a candidate that went away": (CANARY, _candidate_gone),
    "an old version that went away": (CANARY, _old_version_gone),
    "a query without an answer": (QUERIED, _nothing),
    "a query that returns NaN": (QUERIED, _query(nan)),
    "a query without a series": (QUERIED, _query(None)),
    "a provider that fails": (QUERIED, _query(0.5, "connection refused")),
    "a provider that hangs": (QUERIED, _query(0.5, age_s=900.0)),
    "an answer from the future": (QUERIED, _query(0.5, age_s=-900.0)),
    "no labels": (LABELLED, _nothing),
    "no pairs": (SHADOWED, _no_pairs),
    "pairs of NaN": (SHADOWED, _pairs_of_nan),
    "no sample of predictions": (DRIFTING, _no_sample),
    "smoke requests that nobody answers": (GREEN, _nothing),
    "blue-green without requests": (GREEN, lambda e, o: _no_events(e, msgspec.structs.replace(o, smoke="pass"))),
}


@pytest.mark.parametrize("kind", MISSING)
def test_missing_data_never_promotes_and_ends_at_the_deadline(kind: str) -> None:
    rollout, fault = MISSING[kind]
    rollout = msgspec.structs.replace(rollout, deadline_s=60.0)
    rate = 20.0 if kind == "a clock that leaps forward" else 500.0
    endpoint = Endpoint(rollout, fault=fault, rate=rate).run(90)
    assert endpoint.state.state != "promoted"
    if kind != "a clock that runs backwards":
        assert endpoint.state.state == "halted"
        assert endpoint.events[-1][1]["reason"]


def test_the_same_rollouts_are_promoted_when_nothing_is_missing() -> None:
    """Otherwise the test before could not fail."""
    for rollout in (CANARY, SHADOWED, DRIFTING):
        assert Endpoint(rollout).run(200).state.state == "promoted"
    assert Endpoint(QUERIED, fault=_query(0.5)).run(200).state.state == "promoted"
    assert Endpoint(GREEN, extra={"smoke": "pass"}).run(200).state.state == "promoted"


def test_counts_that_were_lost_once_only_cost_time() -> None:
    endpoint = Endpoint(CANARY).run(20)
    endpoint.counts.clear()
    endpoint.run(200)
    assert "evidence-restarted" in endpoint.kinds()
    assert endpoint.state.state == "promoted"


def test_a_command_in_the_middle_is_obeyed_at_once() -> None:
    endpoint = Endpoint(CANARY).run(8)
    endpoint.look(Command("abort", "ann", "changed my mind"))
    assert (endpoint.state.state, endpoint.state.reason) == ("aborted", "changed my mind")
