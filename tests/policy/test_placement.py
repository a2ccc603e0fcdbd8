"""Which replicas start, serve and retire: tables, and a simulation that must converge whatever happens."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.policy.placement import (
    BACKOFF,
    BROKEN,
    FAILED,
    LOADING,
    READY,
    SERVED,
    STARTING,
    STOPPING,
    UNLOADED,
    NewReplica,
    Placement,
    SeenReplica,
    WantedModel,
    WantedVersion,
    choose_default,
    place,
)


def want(generation: int = 1, replicas: int = 1, versions: tuple[str, ...] = ("1",), **fields: object) -> WantedModel:
    return WantedModel("m", generation, tuple(WantedVersion(v, replicas) for v in versions), **fields)  # type: ignore[arg-type]


def replica(generation: int = 1, index: int = 0, state: str = READY, **fields: object) -> SeenReplica:
    version = str(fields.pop("version", "1"))
    probed = bool(fields.pop("probed", state == READY))
    name = f"m@{version}.g{generation}.{index}"
    return SeenReplica(name, "m", version, generation, index, state, probed, **fields)  # type: ignore[arg-type]


def served(placement: Placement) -> list[str]:
    return [name for part in placement.serve for name in part.replicas]


def states(placement: Placement) -> list[tuple[str, str, str]]:
    return [(state.version, state.state, state.reason) for state in placement.index]


def test_missing_replicas_of_every_version_are_started() -> None:
    placement = place([want(replicas=2, versions=("1", "2"))], [replica()], {})
    assert placement.start == (NewReplica("m", "1", 1, 1), NewReplica("m", "2", 1, 0), NewReplica("m", "2", 1, 1))


def test_the_first_load_serves_with_its_first_ready_replica() -> None:
    placement = place([want(replicas=2)], [replica(), replica(index=1, state=STARTING)], {})
    assert served(placement) == ["m@1.g1.0"]
    assert placement.outcomes[0].verdict == LOADING
    assert states(placement) == [("1", "READY", "")]


def test_a_replica_that_is_ready_but_was_not_probed_does_not_serve_yet() -> None:
    placement = place([want()], [replica(probed=False)], {})
    assert (served(placement), placement.outcomes[0].verdict) == ([], LOADING)
    assert states(placement) == [("1", "LOADING", "")]


def test_a_new_generation_waits_for_all_its_replicas() -> None:
    seen = [replica(1), replica(2), replica(2, 1, STARTING)]
    placement = place([want(2, replicas=2)], seen, {"m": 1})
    assert (served(placement), placement.retire, placement.outcomes[0].verdict) == (["m@1.g1.0"], (), LOADING)


def test_a_complete_generation_takes_over_and_the_old_one_retires() -> None:
    placement = place([want(2)], [replica(1), replica(2)], {"m": 1})
    assert (served(placement), placement.retire) == (["m@1.g2.0"], ("m@1.g1.0",))
    assert placement.outcomes[0].verdict == SERVED


@pytest.mark.parametrize("state", [FAILED, BACKOFF])
def test_a_generation_that_cannot_start_is_given_up_and_the_old_one_serves_on(state: str) -> None:
    seen = [replica(1), replica(2, state=state, reason="bad file")]
    placement = place([want(2)], seen, {"m": 1})
    assert (served(placement), placement.retire, placement.start) == (["m@1.g1.0"], ("m@1.g2.0",), ())
    assert (placement.outcomes[0].verdict, placement.outcomes[0].reason) == (BROKEN, "bad file")
    assert states(placement) == [("1", "READY", "bad file")]


def test_a_replica_that_cannot_start_without_a_reason_still_has_a_message() -> None:
    assert place([want()], [replica(state=FAILED)], {}).outcomes[0].reason == "m@1.g1.0 cannot start"


def test_a_source_that_cannot_be_loaded_keeps_what_serves_and_starts_nothing() -> None:
    placement = place([WantedModel("m", 2, error="no such file")], [replica(1)], {"m": 1})
    assert (served(placement), placement.start, placement.retire) == (["m@1.g1.0"], (), ())
    assert placement.outcomes[0].reason == "no such file"


def test_a_source_that_cannot_be_loaded_at_first_is_unavailable_with_its_reason() -> None:
    placement = place([WantedModel("m", 1, error="no such file")], [], {})
    assert states(placement) == [("", "UNAVAILABLE", "no such file")]


def test_a_first_load_that_cannot_start_stays_so_that_it_is_tried_again() -> None:
    placement = place([want()], [replica(state=BACKOFF, reason="exit code 1")], {})
    assert (placement.retire, placement.start) == ((), ())
    assert states(placement) == [("1", "UNAVAILABLE", "exit code 1")]


def test_a_replica_that_served_and_died_stays_in_the_snapshot_while_it_is_restarted() -> None:
    placement = place([want()], [replica(state=BACKOFF, probed=True)], {"m": 1})
    assert served(placement) == ["m@1.g1.0"]
    assert states(placement) == [("1", "UNAVAILABLE", "its replicas die and are restarted")]


def test_a_version_whose_replicas_all_failed_is_served_no_more() -> None:
    placement = place([want()], [replica(state=FAILED, probed=True, reason="refused")], {"m": 1})
    assert (served(placement), states(placement)) == ([], [("1", "UNAVAILABLE", "refused")])


def test_an_old_generation_that_is_gone_holds_the_new_one_back_no_longer() -> None:
    seen = [replica(1, state=FAILED, probed=True), replica(2), replica(2, 1, STARTING)]
    placement = place([want(2, replicas=2)], seen, {"m": 1})
    assert (served(placement), placement.retire) == (["m@1.g2.0"], ("m@1.g1.0",))


def test_a_stopping_replica_neither_serves_nor_is_started_again_under_its_name() -> None:
    placement = place([want()], [replica(state=STOPPING, probed=True)], {"m": 1})
    assert (served(placement), placement.start, placement.retire) == ([], (), ())


def test_unloading_retires_everything_and_says_so() -> None:
    seen = [replica(), replica(index=1, state=STOPPING)]
    placement = place([want(serve=False)], seen, {"m": 1})
    assert (served(placement), placement.retire) == ([], ("m@1.g1.0",))
    assert (placement.outcomes[0].verdict, states(placement)) == (UNLOADED, [("1", "UNLOADING", "unloaded")])
    assert states(place([want(serve=False)], [], {})) == [("", "UNAVAILABLE", "unloaded")]


def test_replicas_of_a_model_that_nobody_asked_for_retire() -> None:
    assert place([], [replica(), replica(index=1, state=STOPPING)], {"m": 1}).retire == ("m@1.g1.0",)


def test_a_generation_that_was_not_looked_at_yet_changes_nothing() -> None:
    placement = place([WantedModel("m", 2)], [replica(1)], {"m": 1})
    assert (served(placement), placement.start, placement.retire) == (["m@1.g1.0"], (), ())
    assert placement.outcomes[0].verdict == LOADING


def test_the_default_version_is_the_highest_number_before_any_name() -> None:
    assert choose_default(["2", "10", "beta"]) == "10"
    assert choose_default(["alpha", "beta"]) == "beta"


@dataclass
class World:
    """A fleet that obeys placements, and fails as the test wishes."""

    seen: dict[str, SeenReplica] = field(default_factory=dict)
    serving: dict[str, int] = field(default_factory=dict)

    def obey(self, placement: Placement) -> None:
        for new in placement.start:
            started = replica(new.generation, new.index, STARTING, version=new.version)
            self.seen[started.name] = started
        self.serving = {part.model: part.generation for part in placement.serve}
        for name in placement.retire:
            assert name not in served(placement), "what serves must not retire"
            del self.seen[name]

    def turn(self, name: str, state: str) -> None:
        old = self.seen[name]
        self.seen[name] = replica(
            old.generation, old.index, state, version=old.version, probed=old.probed or state == READY
        )


EVENTS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from([READY, BACKOFF, STARTING, "reload"])), max_size=30)


@given(EVENTS, st.integers(1, 3))
def test_whatever_happens_a_serving_model_is_never_left_without_replicas(
    events: list[tuple[int, str]], replicas: int
) -> None:
    world, generation, failed = World(), 1, False

    def look() -> Placement:
        nonlocal failed
        placement = place(
            [want(generation, replicas, error="failed" if failed else "")], list(world.seen.values()), world.serving
        )
        outcome = placement.outcomes[0]
        failed = failed or (outcome.verdict == BROKEN and world.serving.get("m", generation) != generation)
        world.obey(placement)
        return placement

    look()
    has_served = False
    for number, event in events:
        if event == "reload":
            generation, failed = generation + 1, False
        elif world.seen:
            world.turn(sorted(world.seen)[number % len(world.seen)], event)
        placement = look()
        has_served = has_served or bool(served(placement))
        assert not has_served or served(placement)
    # When everything that starts becomes ready, the newest generation that can be loaded serves, alone.
    for _ in range(4):
        for name in list(world.seen):
            world.turn(name, READY)
        placement = look()
    assert placement.start == placement.retire == ()
    assert set(served(placement)) == set(world.seen)
    assert failed or world.serving == {"m": generation}
