"""Build the snapshot from a placement and from what the replicas said of themselves."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from msgspec.structs import replace

from hyperion.control.release.view import ReleaseView
from hyperion.policy.graph.members import name_fallback, name_member
from hyperion.policy.placement import Placement, ServedReplicas, choose_default
from hyperion.schema.config import RunnerConfig
from hyperion.schema.protect import Directory
from hyperion.schema.snapshot import Replica, ServedModel, ServedVersion, Snapshot
from hyperion.wire.frame_headers import Hello


def build_snapshot(
    version: int,
    placement: Placement,
    runners: Mapping[str, RunnerConfig],
    hellos: Mapping[str, Hello],
    releases: Sequence[ReleaseView] = (),
    carried: Snapshot | None = None,
    directory: Directory = Directory(),  # noqa: B008  it is frozen
) -> Snapshot:
    """Return the snapshot that serves this placement and these releases. `runners` and `hellos` are by replica name,
    and complete for every replica that is served. What `carried` serves beside the placement is served on: nobody knows
    yet what is to become of it."""
    models = []
    for name, parts in groupby(placement.serve, key=lambda part: part.model):
        versions = tuple(_build_version(part, runners, hellos) for part in parts)
        models.append(ServedModel(name, choose_default(version.version for version in versions), versions))
    index = list(placement.index)
    for view in releases:
        if not view.internal:  # a member is its owner's business
            index += [replace(state, access=view.protection.access) for state in view.placement.index]
        if view.default:
            models.append(_build_model(view, runners, hellos))
    if carried is not None:
        known = {state.name for state in index}
        models += [model for model in carried.models if model.name not in known]
        index += [state for state in carried.index if state.name not in known]
    return Snapshot(version, tuple(models), tuple(index), directory)


def served_by_version(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    """Return which generation of each version of each model a snapshot serves; of an upstream or a graph, none."""
    return {
        model.name: {
            one.version: one.generation for one in model.versions if one.upstream is None and one.graph is None
        }
        for model in snapshot.models
    }


def served_generations(snapshot: Snapshot) -> dict[str, int]:
    """Return which generation of each model a snapshot serves."""
    return {model.name: version.generation for model in snapshot.models for version in model.versions}


def list_needed(published: Snapshot) -> frozenset[str]:
    """Members that something published still calls."""
    needed = set()
    for model in published.models:
        for version in model.versions:
            steps = version.graph.steps if version.graph is not None else ()
            needed |= {name_member(model.name, step.name) for step in steps if step.model}
        links = enumerate(model.protection.fallback)
        needed |= {name_fallback(model.name, index) for index, link in links if link.model or link.version}
    return frozenset(needed)


def _build_model(view: ReleaseView, runners: Mapping[str, RunnerConfig], hellos: Mapping[str, Hello]) -> ServedModel:
    return ServedModel(
        view.name,
        view.default,
        tuple(_build_version(part, runners, hellos) for part in view.placement.serve),
        view.split,
        view.log_sample,
        view.redact,
        view.protection,
        view.internal,
    )


def _build_version(
    part: ServedReplicas, runners: Mapping[str, RunnerConfig], hellos: Mapping[str, Hello]
) -> ServedVersion:
    first = part.replicas[0]
    spec, hello = runners[first].spec, hellos[first]
    return ServedVersion(
        version=part.version,
        digest=spec.digest,
        generation=part.generation,
        platform=hello.platform,
        signature=hello.signature,
        options=spec.options,
        replicas=tuple(Replica(name, runners[name].socket) for name in part.replicas),
    )
