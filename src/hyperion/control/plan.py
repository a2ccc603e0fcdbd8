"""Between the records of the store and the fleet and those of the placement policy. Pure, and free of asyncio: control
starts its first runners with this before it imports anything slow."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from hyperion.control.state import Memory
from hyperion.fleet.messages import READY, Child, ChildSpec
from hyperion.fleet.replicas import describe_runner, name_replica, name_socket
from hyperion.policy.placement import NewReplica, SeenReplica, WantedModel, WantedVersion
from hyperion.schema.config import RunnerConfig
from hyperion.store.desired import DesiredModel


class Machine(Struct, frozen=True):
    """What the replicas share: the run directory, the `cores` that the gateways leave them, the time to drain."""

    run_dir: Path
    cores: int
    grace_s: float


def want_models(rows: Iterable[DesiredModel], memory: Memory) -> list[WantedModel]:
    """Return what is to run. A model whose source has not been looked at yet has no versions, so nothing changes."""
    wanted = []
    for row in rows:
        known = memory.models.get(row.name)
        if known is None or known.generation != row.generation:
            wanted.append(WantedModel(row.name, row.generation, serve=row.serve))
            continue
        versions = tuple(WantedVersion(spec.version, spec.options.replicas) for spec in known.specs)
        wanted.append(WantedModel(row.name, row.generation, versions, known.error, row.serve))
    return wanted


def see_replicas(
    runners: Sequence[tuple[Child, RunnerConfig]], probed: Mapping[str, object]
) -> tuple[SeenReplica, ...]:
    """Return the fleet's runners as the policy wants them; `probed` holds the names of those that were reached."""
    return tuple(
        SeenReplica(
            name=config.replica,
            model=config.spec.name,
            version=config.spec.version,
            generation=config.generation,
            index=config.index,
            state=child.state,
            probed=config.replica in probed,
            reason=child.reason or (child.exit if child.state != READY else ""),
        )
        for child, config in runners
    )


def plan_runners(new: Iterable[NewReplica], memory: Memory, machine: Machine) -> list[ChildSpec]:
    """Describe these replicas to the supervisor; threads are divided among all that the memory asks for."""
    total = sum(spec.options.replicas for resolved in memory.models.values() for spec in resolved.specs)
    threads = max(1, machine.cores // max(1, total))
    return [_plan(replica, memory, machine, threads) for replica in new]


def _plan(new: NewReplica, memory: Memory, machine: Machine, threads: int) -> ChildSpec:
    spec = next(spec for spec in memory.models[new.model].specs if spec.version == new.version)
    if spec.options.threads == 0:
        spec = msgspec.structs.replace(spec, options=msgspec.structs.replace(spec.options, threads=threads))
    name = name_replica(new.model, new.version, new.generation, new.index)
    socket = str(name_socket(machine.run_dir, name))
    return describe_runner(RunnerConfig(name, socket, spec, new.generation, new.index))
