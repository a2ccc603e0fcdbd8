"""A rollout that was taken back says what it cost, once, and not before all gateways are back."""

from msgspec.structs import replace

from hyperion.policy.release.rollout import begin, decide
from hyperion.policy.release.settle import is_unsettled, settle
from hyperion.policy.release.state import Command, Observed, ReleaseState
from hyperion.schema.release import TrackCounts
from hyperion.schema.resource import Rollout, Slo

HALTED = ReleaseState("e", state="halted", from_version="1", to_version="2", epoch=7, ended_at=10.0, first_bad_at=8.0)


def test_it_waits_for_the_gateways_and_then_for_their_last_counts() -> None:
    assert settle(HALTED, Observed(acknowledged_epoch=6), 11.0) == (HALTED, ())
    back, events = settle(HALTED, Observed(acknowledged_epoch=7), 11.0)
    assert (back.back_at, events) == (11.0, ())
    assert settle(back, Observed(acknowledged_epoch=7), 11.5) == (back, ())
    counts = (
        TrackCounts("e", 5, "2", requests=40, errors=2, slow=1),
        TrackCounts("e", 6, "2", requests=10, errors=1),
        TrackCounts("e", 6, "2", shadow=True, requests=99, errors=99),
        TrackCounts("e", 6, "1", requests=500),
    )
    settled, ((kind, detail),) = settle(back, Observed(counts=counts, acknowledged_epoch=7), 12.0)
    assert kind == "rollout.rolled-back"
    assert (detail["seconds_from_first_bad"], detail["seconds_from_verdict"]) == (3.0, 1.0)
    assert (detail["answered_by_canary"], detail["harmed_errors"], detail["harmed_slow"]) == (50, 3, 1)
    assert not is_unsettled(settled)


def test_without_a_bad_request_there_is_no_time_from_it() -> None:
    back = replace(HALTED, first_bad_at=0.0, back_at=11.0)
    _, ((_, detail),) = settle(back, Observed(acknowledged_epoch=7), 13.0)
    assert detail["seconds_from_first_bad"] is None


def test_only_what_was_taken_back_is_to_be_settled() -> None:
    assert [is_unsettled(replace(HALTED, state=state)) for state in ("halted", "aborted", "promoted", "canary")] == [
        True,
        True,
        False,
        False,
    ]


def test_an_aborted_rollout_is_settled_once_by_the_looks_that_follow() -> None:
    names = {"from_version": "1", "from_digest": "a", "to_version": "2", "to_digest": "b"}
    state = begin("e", Rollout(), rollout_id="r", epoch=1, now=0.0, **names).state
    state = decide(Rollout(), Slo(), state, Observed(), 1.0, Command("abort", "ann")).state
    kinds = []
    for now in (2.0, 4.0, 6.0, 8.0):
        decision = decide(Rollout(), Slo(), state, Observed(acknowledged_epoch=state.epoch), now)
        kinds += [kind for kind, _ in decision.events]
        state = decision.state
    assert kinds == ["rollout.rolled-back"]
    assert decision.next_look == 8.0 + 60.0
