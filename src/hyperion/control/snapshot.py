"""Build the snapshot from a placement and from what the replicas said of themselves."""

from collections.abc import Mapping
from itertools import groupby

from hyperion.policy.placement import Placement, ServedReplicas, choose_default
from hyperion.schema.config import RunnerConfig
from hyperion.schema.snapshot import Replica, ServedModel, ServedVersion, Snapshot
from hyperion.wire.frame_headers import Hello


def build_snapshot(
    version: int, placement: Placement, runners: Mapping[str, RunnerConfig], hellos: Mapping[str, Hello]
) -> Snapshot:
    """Return the snapshot that serves this placement. `runners` and `hellos` are by replica name, and complete for
    every replica that the placement serves."""
    models = []
    for name, parts in groupby(placement.serve, key=lambda part: part.model):
        versions = tuple(_build_version(part, runners, hellos) for part in parts)
        models.append(ServedModel(name, choose_default(version.version for version in versions), versions))
    return Snapshot(version, tuple(models), placement.index)


def served_generations(snapshot: Snapshot) -> dict[str, int]:
    """Return which generation of each model a snapshot serves."""
    return {model.name: version.generation for model in snapshot.models for version in model.versions}


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
