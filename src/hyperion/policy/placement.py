"""Which replicas to start, which generation of each model to serve, and which replicas to retire. Pure.

A model's generation grows with every (re)load. The rule: a new generation is started beside the one that serves, takes
over when all of its replicas are ready, and only then is the old one retired; if any of its replicas cannot start, the
load has failed and the old one goes on serving. Without an old one, a version serves as soon as one replica is ready.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from hyperion.schema.model import Signature
from hyperion.schema.snapshot import ModelState

STARTING, READY, BACKOFF, STOPPING, FAILED = "starting", "ready", "backoff", "stopping", "failed"
SERVED: Final = "served"
LOADING: Final = "loading"
BROKEN: Final = "failed"
UNLOADED: Final = "unloaded"


class WantedVersion(Struct, frozen=True):
    """A version that its source holds, and how many replicas of it to run."""

    version: str
    replicas: int = 1


class WantedModel(Struct, frozen=True):
    """A model that was asked for. `error` says why this generation cannot be loaded, "" as long as nothing says so;
    with `serve` false it is to be unloaded."""

    name: str
    generation: int
    versions: tuple[WantedVersion, ...] = ()
    error: str = ""
    serve: bool = True


class SeenReplica(Struct, frozen=True):
    """A replica as the fleet sees it. `probed` says that it has served its signature at least once, which `signature`
    is where it is to be judged."""

    name: str
    model: str
    version: str
    generation: int
    index: int
    state: str
    probed: bool = False
    reason: str = ""
    signature: Signature | None = None


class NewReplica(Struct, frozen=True):
    """A replica to start."""

    model: str
    version: str
    generation: int
    index: int


class ServedReplicas(Struct, frozen=True):
    """A version to serve, by these replicas."""

    model: str
    version: str
    generation: int
    replicas: tuple[str, ...]


class Outcome(Struct, frozen=True):
    """How far a model's wanted generation is: loading, served, failed (with the reason) or unloaded."""

    model: str
    generation: int
    verdict: str
    reason: str = ""


class Placement(Struct, frozen=True):
    """The decision. `retire` names replicas to stop once no gateway uses them any more."""

    start: tuple[NewReplica, ...] = ()
    serve: tuple[ServedReplicas, ...] = ()
    retire: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    index: tuple[ModelState, ...] = ()


def place(wanted: Sequence[WantedModel], seen: Sequence[SeenReplica], served: Mapping[str, int]) -> Placement:
    """Decide for all models. `served` maps a model to the generation that serves now.

    >>> place([WantedModel("m", 1, (WantedVersion("1"),))], [], {}).start
    (NewReplica(model='m', version='1', generation=1, index=0),)
    >>> replica = SeenReplica("m@1.g1.0", "m", "1", 1, 0, "ready", probed=True)
    >>> place([WantedModel("m", 1, (WantedVersion("1"),))], [replica], {}).serve[0].replicas
    ('m@1.g1.0',)
    >>> place([], [replica], {"m": 1}).retire
    ('m@1.g1.0',)
    """
    known = {model.name for model in wanted}
    parts = [
        place_model(model, [replica for replica in seen if replica.model == model.name], served.get(model.name))
        for model in wanted
    ]
    strangers = tuple(r.name for r in seen if r.model not in known and r.state != STOPPING)
    return Placement(
        start=tuple(item for part in parts for item in part.start),
        serve=tuple(item for part in parts for item in part.serve),
        retire=strangers + tuple(item for part in parts for item in part.retire),
        outcomes=tuple(item for part in parts for item in part.outcomes),
        index=tuple(item for part in parts for item in part.index),
    )


def choose_default(versions: Iterable[str]) -> str:
    """The version that answers when none is named: the highest number, or the last name where there is no number.

    >>> choose_default(["1", "10", "9"]), choose_default(["b", "a"])
    ('10', 'b')
    """
    return max(versions, key=lambda version: (version.isdecimal(), int(version) if version.isdecimal() else 0, version))


def place_model(model: WantedModel, seen: list[SeenReplica], serving: int | None) -> Placement:
    """Decide for one model, of which `seen` are all the replicas and `serving` is the generation that serves now."""
    if not model.serve:
        return _unload(model, seen)
    members = _members(seen, model.generation)
    outcome = _judge(model, members)
    old = [] if serving is None or serving == model.generation else _members(seen, serving)
    stays = outcome.verdict != SERVED and any(map(_usable, old))
    chosen = serving if stays and serving is not None else model.generation
    given_up = outcome.verdict == BROKEN and chosen != model.generation
    start = () if given_up or model.error else _missing(model, seen)
    kept = {chosen} if given_up else {chosen, model.generation}
    return Placement(
        start=start,
        serve=_serve(model.name, chosen, seen),
        retire=tuple(r.name for r in seen if r.state != STOPPING and r.generation not in kept),
        outcomes=(outcome,),
        index=_index(model, outcome, _members(seen, chosen)),
    )


def _unload(model: WantedModel, seen: list[SeenReplica]) -> Placement:
    versions = sorted({replica.version for replica in seen}) or [""]
    state = "UNLOADING" if seen else "UNAVAILABLE"
    return Placement(
        retire=tuple(r.name for r in seen if r.state != STOPPING),
        outcomes=(Outcome(model.name, model.generation, UNLOADED),),
        index=tuple(ModelState(model.name, version, state, UNLOADED) for version in versions),
    )


def _judge(model: WantedModel, members: list[SeenReplica]) -> Outcome:
    """How far the wanted generation is, looked at alone."""
    if model.error:
        return Outcome(model.name, model.generation, BROKEN, model.error)
    for replica in members:
        if _broken(replica):
            return Outcome(model.name, model.generation, BROKEN, replica.reason or f"{replica.name} cannot start")
    ready = {(r.version, r.index) for r in members if _usable(r)}
    complete = all((wanted.version, index) in ready for wanted in model.versions for index in range(wanted.replicas))
    return Outcome(model.name, model.generation, SERVED if complete and model.versions else LOADING)


def _serve(model: str, generation: int, seen: list[SeenReplica]) -> tuple[ServedReplicas, ...]:
    usable = [replica for replica in _members(seen, generation) if _usable(replica)]
    return tuple(
        ServedReplicas(
            model, version, generation, tuple(replica.name for replica in usable if replica.version == version)
        )
        for version in sorted({replica.version for replica in usable})
    )


def _missing(model: WantedModel, seen: list[SeenReplica]) -> tuple[NewReplica, ...]:
    # One that is stopping still has the name: it is started anew when it is gone.
    taken = {(r.version, r.index) for r in seen if r.generation == model.generation}
    return tuple(
        NewReplica(model.name, wanted.version, model.generation, index)
        for wanted in model.versions
        for index in range(wanted.replicas)
        if (wanted.version, index) not in taken
    )


def _index(model: WantedModel, outcome: Outcome, members: list[SeenReplica]) -> tuple[ModelState, ...]:
    versions = sorted({r.version for r in members} | {wanted.version for wanted in model.versions})
    return tuple(
        _state_of(model.name, version, outcome, [r for r in members if r.version == version])
        for version in versions or [""]
    )


def _state_of(name: str, version: str, outcome: Outcome, members: list[SeenReplica]) -> ModelState:
    trouble = next((r.reason for r in members if r.reason), outcome.reason)
    if any(_usable(replica) and replica.state == READY for replica in members):
        return ModelState(name, version, "READY", outcome.reason)
    if (members and all(_broken(r) or r.state == BACKOFF for r in members)) or outcome.verdict == BROKEN:
        return ModelState(name, version, "UNAVAILABLE", trouble or "its replicas die and are restarted")
    return ModelState(name, version, "LOADING", trouble)


def _members(seen: list[SeenReplica], generation: int) -> list[SeenReplica]:
    return [replica for replica in seen if replica.generation == generation and replica.state != STOPPING]


def _usable(replica: SeenReplica) -> bool:
    """Served once, and will again: one that died a moment ago is restarted on the same socket."""
    return replica.probed and replica.state not in (FAILED, STOPPING)


def _broken(replica: SeenReplica) -> bool:
    """Cannot start: it refuses to, or it died before it was ever ready."""
    return replica.state == FAILED or (replica.state == BACKOFF and not replica.probed)
