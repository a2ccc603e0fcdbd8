"""The control process from start to exit. Called by `cli.process`.

The first runners are started before asyncio and everything behind it is imported: the loop then finds them running, as
it would after a restart, so this is a head start and not a second way.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from hyperion.control.plan import Machine, plan_runners, see_replicas, want_models
from hyperion.control.sources import record_sources
from hyperion.control.state import Memory, read_memory, write_memory
from hyperion.fleet.ask import ask
from hyperion.fleet.messages import Children, List, Start
from hyperion.fleet.replicas import read_runners
from hyperion.policy.placement import place
from hyperion.schema.config import ControlConfig
from hyperion.store.desired import DesiredState

if TYPE_CHECKING:
    from hyperion.control.serve import Notify, ServeApi


def run(config: ControlConfig, notify: "Notify", serve_api: "ServeApi") -> int:
    """Keep what is desired true until SIGTERM; returns the exit code.

    READY=1 is sent once every model is either served by all gateways or found broken. Raises `HyperionError` where the
    sources hold nothing that can be served, at the first start only.
    """
    run_dir = Path(config.run_dir)
    desired = DesiredState(Path(config.home) / "hyperion.db")
    memory_path = run_dir / "control.json"
    memory = read_memory(memory_path)
    if memory is None:
        memory = record_sources(config.sources, config.defaults, desired) if config.sources else Memory()
        write_memory(memory_path, memory)
    grace_s = config.drain_s + 5.0
    cores = max(1, config.cores - config.gateway_workers)
    machine = Machine(run_dir, cores, grace_s, config.sandbox, config.home, config.readable)
    _start_early(run_dir / "supervisor.sock", desired, memory, machine)

    import asyncio

    from hyperion.control.serve import Control

    return asyncio.run(Control(config, machine, desired, memory, memory_path).run(notify, serve_api))


def _start_early(supervisor: Path, desired: DesiredState, memory: Memory, machine: Machine) -> None:
    """Start what is missing, with what is known without looking at any source again."""
    listed = ask(supervisor, List())
    runners = read_runners(listed.children) if isinstance(listed, Children) else []
    seen = see_replicas(runners, probed={child.name: True for child, _ in runners})
    placement = place(want_models(desired.list(), memory), seen, served={})
    for child in plan_runners(placement.start, memory, machine):
        ask(supervisor, Start(child))
