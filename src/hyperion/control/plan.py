"""Between the records of the store and the fleet and those of the placement policy. Pure, and free of asyncio: control
starts its first runners with this before it imports anything slow."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from hyperion.control.state import Memory
from hyperion.fleet.messages import READY, Child, ChildSpec
from hyperion.fleet.replicas import describe_runner, name_replica, name_scratch, name_socket
from hyperion.policy.placement import NewReplica, SeenReplica, WantedModel, WantedVersion
from hyperion.schema.config import RunnerConfig, SandboxMode
from hyperion.schema.model import ModelSpec
from hyperion.schema.registry import VerifiedSpec
from hyperion.store.desired import DesiredModel
from hyperion.wire.frame_headers import Hello

LISTED_FILES = 100


class Machine(Struct, frozen=True):
    """What the replicas share: the run directory, the `cores` that the gateways leave them, the time to drain, and
    their sandbox, `home` and `readable` paths as in `RunnerConfig`."""

    run_dir: Path
    cores: int
    grace_s: float
    sandbox: SandboxMode = "auto"
    home: str = ""
    readable: tuple[str, ...] = ()


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
    """Return the fleet's runners as the policy wants them; `probed` holds the names of those that were reached, and
    what they said."""
    said = {name: hello.signature for name, hello in probed.items() if isinstance(hello, Hello)}
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
            signature=said.get(config.replica),
        )
        for child, config in runners
    )


def plan_runners(new: Iterable[NewReplica], memory: Memory, machine: Machine, others: int = 0) -> list[ChildSpec]:
    """Describe these replicas to the supervisor; threads are divided among all that the memory asks for, and `others`
    that are to run beside them."""
    total = sum(spec.options.replicas for resolved in memory.models.values() for spec in resolved.specs) + others
    return [_plan(replica, VerifiedSpec(_spec_of(replica, memory), "", ()), machine, total) for replica in new]


def plan_release(
    new: Iterable[NewReplica], specs: Mapping[str, VerifiedSpec], machine: Machine, total: int
) -> list[ChildSpec]:
    """Describe replicas of one endpoint under release, by `specs` of its versions; `total` replicas share the cores."""
    return [_plan(replica, specs[replica.version], machine, total) for replica in new]


def _spec_of(new: NewReplica, memory: Memory) -> ModelSpec:
    return next(spec for spec in memory.models[new.model].specs if spec.version == new.version)


def _plan(new: NewReplica, verified: VerifiedSpec, machine: Machine, total: int) -> ChildSpec:
    spec = msgspec.structs.replace(verified.spec, version=new.version)
    if spec.options.threads == 0:
        threads = max(1, machine.cores // max(1, total))
        spec = msgspec.structs.replace(spec, options=msgspec.structs.replace(spec.options, threads=threads))
    name = name_replica(new.model, new.version, new.generation, new.index)
    socket = str(name_socket(machine.run_dir, name))
    # A long list does not fit into the environment, in which this travels: the runner then reads the one on disk.
    files = verified.files if len(verified.files) <= LISTED_FILES else ()
    return describe_runner(
        RunnerConfig(
            name,
            socket,
            spec,
            new.generation,
            new.index,
            root=verified.root,
            verified=files,
            sandbox=machine.sandbox,
            home=machine.home,
            readable=machine.readable,
            scratch=str(name_scratch(machine.run_dir, name)),
        )
    )
