"""Rollouts of every strategy, commands, deadlines, splits; no data makes `decide` raise or move twice."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.policy.release.counts import choose_slow, count_tracks
from hyperion.policy.release.metrics import find_win
from hyperion.policy.release.rollout import (
    Command,
    Decision,
    Labelled,
    Observed,
    QueryResult,
    ReleaseState,
    begin,
    decide,
    kept_versions,
    split_of,
)
from hyperion.policy.release.stages import plan_stages
from hyperion.schema.release import OutputBins, OutputSample, PairCounts, Track, TrackCounts
from hyperion.schema.resource import (
    DriftLimit,
    Halt,
    QualityLimit,
    QueryLimit,
    RatioLimit,
    Rollout,
    ShadowStage,
    Slo,
    SlowLimit,
    Step,
    Sticky,
)
from tests.policy.endpoint import Behaviour, Endpoint

STEPS = (Step(5.0, hold_s=2.0), Step(pause=True), Step(50.0, hold_s=2.0))
READY = Observed(candidate="ready")


def start(rollout: Rollout, **fields: Any) -> ReleaseState:
    named = {"rollout_id": "r", "from_version": "1", "from_digest": "a", "to_version": "2", "to_digest": "b"}
    return begin("e", rollout, epoch=1, now=0.0, **{**named, **fields}).state


def look(rollout: Rollout, state: ReleaseState, now: float, verb: str = "", **fields: Any) -> Decision:
    observed = Observed(**{"candidate": "ready", "acknowledged_epoch": state.epoch, **fields})
    return decide(rollout, Slo(), state, observed, now, Command(verb, "ann") if verb else None)


def promoted(now: float = 100.0) -> ReleaseState:
    rollout = Rollout(strategy="all-at-once")
    return look(rollout, start(rollout), now).state


def test_a_first_release_serves_as_soon_as_it_is_ready_and_has_nothing_to_go_back_to() -> None:
    state = start(Rollout(), from_version="")
    assert split_of(Rollout(), state).tracks == (Track("2", 1.0),)
    waiting = look(Rollout(), state, 1.0, candidate="loading")
    assert (waiting.state.state, waiting.events, waiting.reason) == ("canary", (), "version 2 is loading")
    assert "first release" in look(Rollout(), state, 1.0, "abort", candidate="loading").reason
    done = look(Rollout(), waiting.state, 2.0).state
    assert (done.state, kept_versions(done, 3.0)) == ("promoted", ("2",))
    assert look(Rollout(), done, 3.0, "undo").reason == "refused: there is no version before this one"


def test_all_at_once_moves_everything_and_keeps_the_old_version_warm() -> None:
    state = promoted()
    assert split_of(Rollout(), state).tracks == (Track("2", 1.0),)
    assert kept_versions(state, 399.0) == ("2", "1")
    assert kept_versions(state, 401.0) == ("2",)
    assert look(Rollout(), state, 395.0).next_look == 400.0
    assert look(Rollout(), state, 500.0).next_look == 560.0


@pytest.mark.parametrize("strategy", ["all-at-once", "canary", "blue-green", "shadow", "champion-challenger"])
def test_a_candidate_that_cannot_run_halts_with_its_reason(strategy: Any) -> None:
    rollout = Rollout(strategy=strategy)
    decision = look(rollout, start(rollout), 1.0, candidate="broken", candidate_reason="the digest differs")
    assert decision.state.state == "halted"
    assert "the digest differs" in decision.reason
    assert split_of(rollout, decision.state).tracks == (Track("1", 1.0),)
    assert kept_versions(decision.state, 2.0) == ("1",)


def test_undo_swaps_back_at_once_while_the_old_version_is_warm_and_back_again() -> None:
    decision = look(Rollout(), promoted(), 150.0, "undo")
    state = decision.state
    assert [kind for kind, _ in decision.events] == ["rollout.undone"]
    assert split_of(Rollout(), state).tracks == (Track("1", 1.0),)
    assert (state.to_digest, state.from_digest, state.previous_version) == ("a", "b", "2")
    assert kept_versions(state, 160.0) == ("1", "2")
    assert split_of(Rollout(), look(Rollout(), state, 160.0, "undo").state).tracks == (Track("2", 1.0),)


def test_undo_in_the_middle_of_a_rollout_ends_it() -> None:
    decision = look(Rollout(), start(Rollout()), 1.0, "undo")
    assert (decision.state.state, decision.events[0][1]["command"]) == ("aborted", "undo")
    assert decision.reason == "version 1 serves all requests"


@pytest.mark.parametrize(("now", "stable_ready"), [(900.0, True), (150.0, False)])
def test_undo_loads_the_old_version_first_where_it_is_not_warm(now: float, stable_ready: bool) -> None:
    first = look(Rollout(), promoted(), now, "undo", stable_ready=stable_ready, candidate="loading").state
    assert (first.state, kept_versions(first, now)) == ("canary", ("2", "1"))
    assert split_of(Rollout(), first).tracks == (Track("2", 1.0),)
    assert split_of(Rollout(), first).sampling is False
    done = look(Rollout(), first, now + 1, alerts=("the one it is undone for",))
    assert split_of(Rollout(), done.state).tracks == (Track("1", 1.0),)
    assert done.reason == "back at version 1"


def test_commands_are_refused_where_they_make_no_sense() -> None:
    state = start(Rollout())
    for verb, reason in (
        ("resume", "refused: it is not paused"),
        ("explode", "refused: unknown command explode; expected one of promote, pause, resume, abort, undo"),
    ):
        decision = look(Rollout(), state, 1.0, verb, candidate="loading")
        assert (decision.reason, decision.events) == (reason, ())
    assert "not ready (loading)" in look(Rollout(), state, 1.0, "promote", candidate="loading").reason
    assert look(Rollout(), promoted(), 101.0, "abort").reason == "refused: no rollout is under way (promoted)"


def test_a_pause_step_waits_for_a_person_and_then_goes_on() -> None:
    endpoint = Endpoint(Rollout(steps=STEPS)).run(30)
    assert (endpoint.state.state, endpoint.state.weight) == ("paused", 0.05)
    assert endpoint.look(Command("pause")).reason == "refused: it is paused already"
    decision = endpoint.look(Command("promote", "ann", "looks good"))
    assert (endpoint.state.state, endpoint.state.weight, decision.reason) == (
        "canary",
        0.5,
        "went on: 50 % of the requests",
    )
    assert endpoint.events[-1][1]["actor"] == "ann"
    assert endpoint.run(100).state.state == "promoted"


def test_evidence_halts_in_a_pause_too() -> None:
    endpoint = Endpoint(Rollout(steps=STEPS)).run(30)
    endpoint.new = Behaviour(errors=0.3)
    assert endpoint.run(30).state.state == "halted"


def test_a_pause_by_hand_is_resumed_where_it_was_and_its_time_is_no_hold() -> None:
    endpoint = Endpoint(Rollout(steps=(Step(50.0, hold_s=30.0),))).run(8)
    held = endpoint.state.held_s
    endpoint.look(Command("pause", "ann"))
    endpoint.run(20)
    assert (endpoint.state.state, endpoint.state.held_s) == ("paused", held)
    assert endpoint.look(Command("resume", "ann")).reason == "resumed"
    assert endpoint.state.state == "canary"
    endpoint.look(Command("pause", "ann"))
    assert "not ready" in look(endpoint.rollout, endpoint.state, endpoint.now, "resume", candidate="loading").reason


def test_promote_by_hand_is_recorded_as_such() -> None:
    endpoint = Endpoint(Rollout(steps=(Step(50.0, hold_s=30.0),))).run(8)
    endpoint.look(Command("promote", "ann"))
    kind, detail = endpoint.events[-1]
    assert (kind, detail["by_hand"], detail["actor"]) == ("rollout.promoted", True, "ann")
    assert endpoint.state.reason == "promoted by ann before the verdict"


def test_a_pause_before_any_weight_is_looked_at_seldom() -> None:
    rollout = Rollout(steps=(Step(pause=True), 50.0), halt=Halt(slow=None))
    decision = look(rollout, start(rollout), 1.0)
    assert (decision.state.state, decision.state.weight, decision.next_look) == ("paused", 0.0, 2.0)
    assert kept_versions(decision.state, 2.0) == ("1", "2")


def test_on_inconclusive_hold_waits_for_a_person_who_may_give_it_more_time() -> None:
    rollout = Rollout(steps=(Step(50.0, hold_s=1.0),), deadline_s=20.0, on_inconclusive="hold")
    endpoint = Endpoint(rollout, old=Behaviour(errors=0.1), new=Behaviour(errors=0.1), rate=10.0).run(40)
    assert (endpoint.state.state, endpoint.state.verdict) == ("paused", "running")
    assert endpoint.kinds().count("paused") == 1
    assert "inconclusive after 20 s" in endpoint.state.reason
    endpoint.look(Command("resume", "ann"))
    assert endpoint.state.state == "canary"
    endpoint.run(40)
    endpoint.look(Command("promote", "ann"))
    assert endpoint.state.state == "promoted"


def test_on_inconclusive_rollback_goes_back() -> None:
    rollout = Rollout(steps=(Step(50.0, hold_s=1.0),), deadline_s=20.0)
    endpoint = Endpoint(rollout, old=Behaviour(errors=0.1), new=Behaviour(errors=0.1), rate=20.0)
    for _ in range(15):
        endpoint.look()
    assert endpoint.state.verdict == "inconclusive"
    endpoint.run(20)
    assert (endpoint.state.state, endpoint.state.verdict) == ("halted", "inconclusive")


def test_an_open_alert_halts_at_once_and_so_does_a_query_out_of_its_limits() -> None:
    rollout = Rollout(halt=Halt(query=(QueryLimit("lag", max=1.0),)))
    state = look(rollout, start(rollout), 1.0).state
    assert look(rollout, state, 2.0, alerts=("latency",)).reason == "alerts: open: latency"
    assert look(rollout, state, 2.0, queries=(QueryResult("lag", 2.0, at=2.0),)).state.state == "halted"


def test_a_spent_error_budget_holds_a_rollout_back() -> None:
    rollout = Rollout(strategy="all-at-once")
    assert "frozen" in look(rollout, start(rollout), 1.0, frozen=True).reason


def test_blue_green_needs_its_smoke_requests_answered_and_watches_the_new_version() -> None:
    rollout = Rollout(strategy="blue-green", standby_s=5.0, shadow=None)
    assert "smoke requests: 1 of 10" in look(rollout, start(rollout), 1.0, smoke="1 of 10 failed").reason
    waits = look(rollout, start(rollout), 1.0)
    assert (waits.state.weight, waits.reason) == (0.0, "smoke requests have not all been answered yet")
    slo = Slo(latency_ms={"p95": 50.0})
    good = Endpoint(rollout, slo=slo, extra={"smoke": "pass"}).run(4)
    assert split_of(rollout, good.state).tracks == (Track("1", 0.0), Track("2", 1.0))
    assert good.run(30).state.state == "promoted"
    bad = Endpoint(rollout, slo=slo, extra={"smoke": "pass"}, new=Behaviour(slow=0.5)).run(30)
    assert (bad.state.state, bad.state.reason[:4]) == ("halted", "slow")
    bare = msgspec.structs.replace(rollout, halt=Halt(errors=None, slow=None))
    assert Endpoint(bare, extra={"smoke": "pass"}).run(30).state.state == "promoted"


def test_a_shadow_that_differs_never_answers_anybody() -> None:
    rollout = Rollout(strategy="shadow")
    endpoint = Endpoint(rollout, disagree=0.2).run(30)
    assert endpoint.state.reason.startswith("disagreement")
    assert not any(version == "2" and not shadow for _, version, shadow in endpoint.counts)
    assert Endpoint(rollout).run(30).state.state == "promoted"
    quiet = Rollout(strategy="shadow", halt=Halt(errors=None, slow=None))
    assert Endpoint(quiet).run(30).state.state == "promoted"


def test_a_shadow_waits_for_labels_and_is_halted_or_promoted_by_them() -> None:
    rollout = Rollout(strategy="shadow", halt=Halt(quality=QualityLimit()), deadline_s=20.0)
    waiting = Endpoint(rollout).run(30).state
    assert (waiting.state, waiting.verdict) == ("halted", "inconclusive")
    assert "quality: no labels yet" in waiting.reason
    worse = Endpoint(rollout, extra={"quality": Labelled((0, 60, 25))}).run(30)
    assert worse.state.reason.startswith("quality: worse in 25 and better in 0 of 85"), worse.state.reason
    (halted,) = [detail for kind, detail in worse.events if kind == "rollout.halted"]
    (evidence,) = [row for row in halted["evidence"] if row["metric"] == "quality"]
    assert (evidence["bad_canary"], evidence["verdict"]) == (25, "fail")
    assert Endpoint(rollout, extra={"quality": Labelled((0, 900, 0))}).run(30).state.state == "promoted"


def test_values_are_kept_only_while_copies_are_judged_by_labels() -> None:
    asked = Rollout(shadow=ShadowStage(), halt=Halt(quality=QualityLimit()))
    shadow = start(asked)
    assert split_of(asked, look(asked, shadow, 1.0).state).keep_values
    assert not split_of(
        Rollout(shadow=ShadowStage()), look(Rollout(shadow=ShadowStage()), shadow, 1.0).state
    ).keep_values
    for state, weight in (("canary", 0.5), ("halted", 0.0), ("promoted", 1.0)):
        later = msgspec.structs.replace(shadow, state=state, weight=weight, shadow_share=0.0)
        assert not split_of(asked, later).keep_values


def test_a_challenger_wins_only_if_it_is_provably_better() -> None:
    rollout = Rollout(strategy="champion-challenger", hold_s=2.0, deadline_s=60.0)
    assert Endpoint(rollout, old=Behaviour(errors=0.03)).run(90).state.state == "promoted"
    equal = Endpoint(rollout).run(90).state
    assert equal.state == "halted"
    assert "not provably better" in equal.reason
    labelled = Rollout(halt=Halt(errors=None, slow=None, quality=QualityLimit()))
    state = start(labelled)
    counted = count_tracks(state, ())
    assert find_win(labelled, counted, Observed(quality=Labelled((60, 100, 5)))) == "quality"
    assert find_win(labelled, counted, Observed()) == ""


def test_every_metric_can_be_off_and_then_the_sample_ratio_alone_promotes() -> None:
    rollout = Rollout(steps=(Step(50.0, hold_s=1.0),), halt=Halt(errors=None, slow=None))
    assert Endpoint(rollout).run(30).state.state == "promoted"


def test_canary_of_a_class_whose_callers_stick_is_compared_by_the_share_that_came() -> None:
    state = ReleaseState("e", from_version="1", to_version="2", epoch=1, epochs=())
    state = msgspec.structs.replace(start(Rollout()), weight=0.5)
    state = msgspec.structs.replace(state, epochs=((1, 0.5, 0.0),))
    state = msgspec.json.decode(msgspec.json.encode(state), type=ReleaseState)
    counts = (TrackCounts("e", 1, "1", requests=90), TrackCounts("e", 1, "2", requests=10, errors=1))
    assert count_tracks(state, counts, sticky=True).errors[0].share == pytest.approx(0.1)
    assert count_tracks(state, (), sticky=True).errors[0].share == 0.5
    split = split_of(Rollout(sticky=Sticky(header="x-user")), state)
    assert (split.sticky_header, split.sticky_input, split.salt) == ("x-user", "", "r")


@pytest.mark.parametrize(
    ("counts", "trouble"),
    [
        (TrackCounts("other", 1, "9"), ""),
        (TrackCounts("e", 0, "9"), ""),
        (TrackCounts("e", 2, "1"), "counts of epoch 2, which this rollout does not have (it is at 1)"),
        (TrackCounts("e", 1, "9"), "counts of version 9, which is no part of this rollout"),
        (TrackCounts("e", 1, "1", shadow=True), "counts of version 1 as the shadow, which is 2"),
        (TrackCounts("e", 1, "1", errors=-1), "negative counts of version 1"),
        (TrackCounts("e", 1, "1", bins=(1, -1)), "negative counts of version 1"),
        (TrackCounts("e", 1, "1", requests=1, slow=2), "more bad requests of version 1 than requests"),
    ],
)
def test_counts_that_cannot_be_are_named(counts: TrackCounts, trouble: str) -> None:
    assert count_tracks(start(Rollout()), (counts,)).trouble == trouble


def test_counts_of_one_version_in_parts_are_added() -> None:
    parts = (TrackCounts("e", 1, "1", requests=3, bins=(1,)), TrackCounts("e", 1, "1", requests=4, bins=(1, 2)))
    assert count_tracks(start(Rollout()), parts).marks[0].requests == 7
    assert count_tracks(ReleaseState("e"), parts).trouble


@pytest.mark.parametrize(
    ("latency_ms", "quantile", "found"),
    [
        ({"p95": 200.0}, 0.95, (200_000_000, 0.95)),
        ({"p99": 300.0, "p50": 20.0}, 0.95, (20_000_000, 0.5)),
        ({"p99.9": 300.0}, 0.95, (300_000_000, 0.999)),
        ({"p95": -1.0, "pxx": 2.0, "p100": 5.0}, 0.95, None),
        ({}, 7.0, None),
    ],
)
def test_what_is_slow_by_the_slo(latency_ms: dict[str, float], quantile: float, found: Any) -> None:
    slow = choose_slow(Slo(latency_ms=latency_ms), SlowLimit(quantile=quantile), (10,))
    assert slow == (None if found is None else (found[0], pytest.approx(found[1])))


def test_what_is_slow_by_the_controls_latency() -> None:
    assert choose_slow(Slo(), SlowLimit(quantile=7.0), (199, 1)) == (1_000, 0.95)
    assert choose_slow(Slo(), SlowLimit(), (200, -1, 1)) is None


@pytest.mark.parametrize(
    ("rollout", "strategy", "kinds"),
    [
        (Rollout(steps=()), "canary", ["weight"]),
        (Rollout(steps=(0.0, float("nan"), 5.0)), "canary", ["weight"]),
        (Rollout(steps=(1.0, 100.0, 5.0)), "canary", ["weight"]),
        (Rollout(), "all-at-once", []),
        (Rollout(), "shadow", ["shadow"]),
        (Rollout(shadow=ShadowStage(percent=float("nan"))), "shadow", ["shadow"]),
        (Rollout(shadow=ShadowStage()), "champion-challenger", ["shadow", "challenge"]),
    ],
)
def test_plans(rollout: Rollout, strategy: str, kinds: list[str]) -> None:
    plan = plan_stages(rollout, strategy)
    assert [stage.kind for stage in plan] == kinds
    assert sum(stage.last for stage in plan) <= 1


def test_a_new_version_begins_without_the_evidence_of_the_one_before() -> None:
    endpoint = Endpoint(Rollout(steps=(Step(50.0, hold_s=60.0),)), new=Behaviour(errors=0.001)).run(20)
    again = begin(
        "e",
        endpoint.rollout,
        rollout_id="r2",
        from_version="1",
        from_digest="",
        to_version="3",
        to_digest="",
        epoch=endpoint.state.epoch + 1,
        now=endpoint.now,
    ).state
    decision = decide(endpoint.rollout, Slo(), again, endpoint.observe(again.epoch), endpoint.now + 1)
    assert all(row.bad_canary == 0 for row in decision.state.evidence)
    assert count_tracks(again, tuple(endpoint.counts.values())).trouble == ""


@pytest.mark.parametrize("strange", [{"endpoint": "other"}, {"numbers": (1.0,) * 10}])
def test_bins_are_not_made_of_what_cannot_measure(strange: dict[str, Any]) -> None:
    def send(_: Endpoint, observed: Observed) -> Observed:
        assert observed.sample is not None
        return msgspec.structs.replace(observed, sample=msgspec.structs.replace(observed.sample, **strange))

    endpoint = Endpoint(Rollout(halt=Halt(drift=DriftLimit())), fault=send).run(3)
    assert endpoint.state.bins is None
    assert endpoint.state.slow_ns > 0


def test_idle_has_no_split() -> None:
    assert split_of(Rollout(), ReleaseState("e")).tracks == ()
    assert decide(Rollout(), Slo(), ReleaseState("e"), READY, 5.0).events == ()


numbers = st.integers(-3, 10**7)
columns = st.lists(numbers, max_size=4).map(tuple)
tracks = st.builds(
    TrackCounts,
    st.sampled_from(["e", "x"]),
    st.integers(-1, 9),
    st.sampled_from(["1", "2", "3"]),
    st.booleans(),
    numbers,
    numbers,
    numbers,
    columns,
    columns,
)
pairs = st.builds(PairCounts, st.just("e"), st.integers(-1, 9), numbers, numbers, numbers, st.floats(), st.floats())
samples = st.builds(
    OutputSample,
    st.sampled_from(["e", "x"]),
    st.just(1),
    st.just("y"),
    st.sampled_from(["number", "class", "label", "?"]),
    st.lists(st.floats(), min_size=60, max_size=70).map(tuple),
    st.lists(st.text(max_size=1), max_size=70).map(tuple),
)
anything = st.builds(
    Observed,
    st.sampled_from(["ready", "ready", "ready", "loading", "broken", "?"]),
    st.just(""),
    st.booleans(),
    st.lists(tracks, max_size=6).map(tuple),
    st.lists(pairs, max_size=2).map(tuple),
    st.none() | samples,
    st.lists(st.builds(QueryResult, st.just("q"), st.none() | st.floats(), st.just(""), st.floats()), max_size=2).map(
        tuple
    ),
    st.lists(st.just("alert"), max_size=1).map(tuple),
    st.none() | st.builds(Labelled, st.lists(numbers, max_size=5).map(tuple)),
    st.sampled_from(["", "pass", "no"]),
    st.integers(0, 9),
    st.booleans(),
)
rollouts = st.builds(
    Rollout,
    st.sampled_from(["all-at-once", "blue-green", "canary", "shadow", "champion-challenger"]),
    st.none() | st.just(ShadowStage(min_pairs=3)),
    st.just((Step(5.0, hold_s=0.0, min_requests=0), Step(pause=True), Step(50.0, hold_s=0.0, min_requests=0))),
    st.builds(
        Halt,
        st.none() | st.builds(RatioLimit, st.floats()),
        st.none() | st.builds(SlowLimit, st.floats(), st.floats()),
        st.none() | st.just(DriftLimit()),
        st.none() | st.builds(QualityLimit, st.just("accuracy"), st.floats()),
        st.sampled_from([(), (QueryLimit("q", max=1.0),)]),
    ),
    st.floats(),
)
slos = st.builds(Slo, st.floats(), st.dictionaries(st.sampled_from(["p95", "p99", "?"]), st.floats(), max_size=2))
commands = st.none() | st.sampled_from([Command(verb) for verb in ("promote", "pause", "resume", "abort", "undo", "?")])


@settings(max_examples=60)
@given(rollouts, slos, st.lists(st.tuples(anything, st.floats(-100, 100), commands), max_size=8))
def test_nothing_that_is_seen_makes_a_decision_raise_or_move_twice(
    rollout: Rollout, slo: Slo, looks: list[tuple[Observed, float, Command | None]]
) -> None:
    state, now = start(rollout), 0.0
    for observed, passed, command in looks:
        now += passed
        decision = decide(rollout, slo, state, observed, now, command)
        if command is None:  # after one, what was observed is of another candidate
            again = decide(rollout, slo, decision.state, observed, now)
            assert (again.events, again.state) == ((), decision.state)
        assert decision == decide(rollout, slo, state, observed, now, command)
        assert now < decision.next_look <= now + 60
        if decision.state.epoch == state.epoch:
            before, after = split_of(rollout, state), split_of(rollout, decision.state)
            assert (before.tracks, before.shadow_share) == (after.tracks, after.shadow_share)
        else:
            assert decision.state.epoch > state.epoch
            assert decision.events
        split = split_of(rollout, decision.state)
        assert sum(track.share for track in split.tracks) == pytest.approx(1.0)
        assert {track.version for track in split.tracks} <= set(kept_versions(decision.state, now))
        msgspec.json.encode((decision.state, decision.events))
        state = decision.state


def test_frozen_bins_reach_the_gateways() -> None:
    endpoint = Endpoint(Rollout(halt=Halt(drift=DriftLimit()))).run(3)
    split = split_of(endpoint.rollout, endpoint.state)
    assert isinstance(split.bins, OutputBins)
    assert split.slow_ns > 0
    assert split.sampling is False
