"""Carry out a placement: start replicas now, stop those that no gateway uses any more."""

import asyncio
from collections.abc import Callable, Iterable

from hyperion.control.plan import Machine
from hyperion.control.publish import Publisher
from hyperion.fleet.local import LocalFleet
from hyperion.fleet.messages import ChildSpec
from hyperion.schema.errors import HyperionError

_PATIENCE_S = 60.0


class Applier:
    """Starts and stops. What fails is tried again at the next look, because that starts from what is."""

    def __init__(self, fleet: LocalFleet, machine: Machine, log: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._machine = machine
        self._log = log
        self._retired: dict[str, tuple[int, float]] = {}  # replica -> first snapshot without it, and when

    @property
    def machine(self) -> Machine:
        """What the replicas share."""
        return self._machine

    async def start(self, children: Iterable[ChildSpec]) -> None:
        """Start these replicas; those that are there already are left as they are."""
        for child in children:
            try:
                await self._fleet.start(child)
                self._log(f"{child.name}: starting")
            except (OSError, HyperionError) as error:
                self._log(f"{child.name}: cannot be started: {error}")

    async def retire(self, names: tuple[str, ...], publisher: Publisher) -> None:
        """Stop those replicas whose absence every gateway has acknowledged; a runner leaves when its work is done."""
        now_s = asyncio.get_running_loop().time()
        self._retired = {name: self._retired.get(name, (publisher.snapshot.version, now_s)) for name in names}
        held = publisher.draining()
        for name, (version, since_s) in self._retired.items():
            if (publisher.acknowledged() < version or name in held) and now_s - since_s < _PATIENCE_S:
                continue
            try:
                await self._fleet.stop(name, self._machine.grace_s)
                self._log(f"{name}: stopping")
            except (OSError, HyperionError) as error:
                self._log(f"{name}: cannot be stopped: {error}")
