"""An undo to a version that is not warm any more: it is loaded before anything is said to be so."""

from hyperion.policy.release.rollout import begin, decide
from hyperion.policy.release.state import Command, Observed, ReleaseState
from hyperion.schema.resource import Rollout, Slo

ROLLOUT = Rollout("all-at-once", standby_s=10.0)


def promoted() -> ReleaseState:
    state = begin(
        "e", ROLLOUT, rollout_id="r", from_version="1", from_digest="a", to_version="2", to_digest="b", epoch=1, now=0.0
    ).state
    for now in range(1, 5):
        seen = Observed(candidate="ready", acknowledged_epoch=state.epoch)
        state = decide(ROLLOUT, Slo(), state, seen, float(now)).state
    assert (state.state, state.to_version) == ("promoted", "2")
    return state


def test_what_was_seen_of_the_version_before_the_undo_does_not_speak_for_the_one_after() -> None:
    # Version 2 is ready; version 1, to which this goes back, runs nowhere.
    seen = Observed(candidate="ready", stable_ready=False)
    decision = decide(ROLLOUT, Slo(), promoted(), seen, 100.0, Command("undo", "ann"))
    assert decision.reason == "version 1 is being loaded"
    assert (decision.state.state, decision.state.to_version) == ("canary", "1")
    assert [kind for kind, _ in decision.events] == ["rollout.undone"]


def test_it_is_promoted_by_the_look_that_sees_it_ready() -> None:
    undone = decide(ROLLOUT, Slo(), promoted(), Observed(candidate="ready"), 100.0, Command("undo", "ann")).state
    waiting = decide(ROLLOUT, Slo(), undone, Observed(candidate="loading"), 100.1)
    assert (waiting.state.state, waiting.events) == ("canary", ())
    back = decide(ROLLOUT, Slo(), waiting.state, Observed(candidate="ready"), 100.2)
    assert (back.state.state, back.state.to_version) == ("promoted", "1")
