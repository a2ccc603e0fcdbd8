"""Replicas of an endpoint under release: each of its versions has its own set, which comes and goes alone. Pure.

Beside `policy/placement`, where all versions of a model live and die together by the model's generation. Here a
generation belongs to one version and grows when that version is to be run otherwise (more threads, other batches).
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from hyperion.policy.placement import (
    SERVED,
    STOPPING,
    NewReplica,
    Outcome,
    SeenReplica,
    ServedReplicas,
    WantedModel,
    WantedVersion,
    place_model,
)
from hyperion.schema.snapshot import ModelState


class WantedTrack(Struct, frozen=True):
    """A version to keep running. `error` says why it cannot be loaded, "" as long as nothing says so."""

    version: str
    generation: int
    replicas: int = 1
    error: str = ""


class ReleasePlacement(Struct, frozen=True):
    """The decision for one endpoint. `outcomes` says by version how far its replicas are."""

    start: tuple[NewReplica, ...]
    serve: tuple[ServedReplicas, ...]
    retire: tuple[str, ...]
    outcomes: dict[str, Outcome]
    index: tuple[ModelState, ...]


def place_release(
    endpoint: str, wanted: Sequence[WantedTrack], seen: Sequence[SeenReplica], serving: Mapping[str, int]
) -> ReleasePlacement:
    """Decide for an endpoint. `seen` are its replicas; `serving` maps a version to the generation that serves now.

    >>> place_release("fraud", [WantedTrack("1", 1)], [], {}).start
    (NewReplica(model='fraud', version='1', generation=1, index=0),)
    >>> old = SeenReplica("fraud@1.g1.0", "fraud", "1", 1, 0, "ready", probed=True)
    >>> place_release("fraud", [WantedTrack("2", 1)], [old], {"1": 1}).retire
    ('fraud@1.g1.0',)
    >>> more = [old, SeenReplica("fraud@1.g1.1", "fraud", "1", 1, 1, "ready", probed=True)]
    >>> place_release("fraud", [WantedTrack("1", 1)], more, {"1": 1}).retire
    ('fraud@1.g1.1',)
    """
    known = {track.version for track in wanted}
    retire = [r.name for r in seen if r.version not in known and r.state != STOPPING]
    start: list[NewReplica] = []
    serve: list[ServedReplicas] = []
    index: list[ModelState] = []
    outcomes = {}
    for track in wanted:
        model = WantedModel(endpoint, track.generation, (WantedVersion(track.version, track.replicas),), track.error)
        part = place_model(model, [r for r in seen if r.version == track.version], serving.get(track.version))
        surplus = _surplus(track, part.outcomes[0], seen)
        start += part.start
        serve += [_without(served, surplus) for served in part.serve]
        retire += [*part.retire, *surplus]
        index += part.index
        outcomes[track.version] = part.outcomes[0]
    return ReleasePlacement(tuple(start), tuple(serve), tuple(retire), outcomes, tuple(index))


def _surplus(track: WantedTrack, outcome: Outcome, seen: Sequence[SeenReplica]) -> tuple[str, ...]:
    """Replicas more than are wanted, once those that are wanted all serve."""
    if outcome.verdict != SERVED:
        return ()
    mine = [r for r in seen if (r.version, r.generation) == (track.version, track.generation) and r.state != STOPPING]
    return tuple(replica.name for replica in mine if replica.index >= track.replicas)


def _without(served: ServedReplicas, names: Sequence[str]) -> ServedReplicas:
    if not names:
        return served
    kept = tuple(name for name in served.replicas if name not in names)
    return ServedReplicas(served.model, served.version, served.generation, kept)
