"""Each version of an endpoint under release has its replicas, and none of them touches another's."""

from hyperion.policy.placement import BROKEN, LOADING, SERVED, NewReplica, SeenReplica
from hyperion.policy.placement_release import WantedTrack, place_release


def seen(version: str, generation: int = 1, state: str = "ready", probed: bool = True, index: int = 0) -> SeenReplica:
    name = f"e@{version}.g{generation}.{index}"
    return SeenReplica(name, "e", version, generation, index, state, probed, "it died" if state == "failed" else "")


def test_a_candidate_is_started_beside_what_serves() -> None:
    placed = place_release("e", [WantedTrack("1", 1), WantedTrack("2", 1, replicas=2)], [seen("1")], {"1": 1})
    assert placed.start == (NewReplica("e", "2", 1, 0), NewReplica("e", "2", 1, 1))
    assert [part.version for part in placed.serve] == ["1"]
    assert placed.retire == ()
    assert (placed.outcomes["1"].verdict, placed.outcomes["2"].verdict) == (SERVED, LOADING)


def test_a_candidate_is_ready_only_when_all_of_its_replicas_are() -> None:
    wanted = [WantedTrack("1", 1), WantedTrack("2", 1, replicas=2)]
    half = place_release("e", wanted, [seen("1"), seen("2")], {"1": 1})
    assert half.outcomes["2"].verdict == LOADING
    whole = place_release("e", wanted, [seen("1"), seen("2"), seen("2", index=1)], {"1": 1})
    assert whole.outcomes["2"].verdict == SERVED
    assert {part.version: part.replicas for part in whole.serve} == {
        "1": ("e@1.g1.0",),
        "2": ("e@2.g1.0", "e@2.g1.1"),
    }


def test_a_broken_candidate_leaves_the_stable_version_alone() -> None:
    placed = place_release(
        "e", [WantedTrack("1", 1), WantedTrack("2", 1)], [seen("1"), seen("2", state="failed", probed=False)], {"1": 1}
    )
    assert placed.outcomes["2"].verdict == BROKEN
    assert placed.outcomes["2"].reason == "it died"
    assert [part.version for part in placed.serve] == ["1"]
    refused = place_release("e", [WantedTrack("1", 1), WantedTrack("2", 1, error="a byte differs")], [seen("1")], {})
    assert (refused.outcomes["2"].verdict, refused.start) == (BROKEN, ())


def test_a_version_nobody_wants_any_more_is_retired_whatever_its_generation() -> None:
    placed = place_release("e", [WantedTrack("2", 1)], [seen("1"), seen("1", 2), seen("2")], {"1": 1, "2": 1})
    assert placed.retire == ("e@1.g1.0", "e@1.g2.0")


def test_a_version_that_is_to_run_otherwise_is_swapped_when_its_new_replicas_are_ready() -> None:
    wanted = [WantedTrack("1", 2)]
    before = place_release("e", wanted, [seen("1")], {"1": 1})
    assert before.start == (NewReplica("e", "1", 2, 0),)
    assert before.serve[0].generation == 1
    after = place_release("e", wanted, [seen("1"), seen("1", 2)], {"1": 1})
    assert after.serve[0].generation == 2
    assert after.retire == ("e@1.g1.0",)
