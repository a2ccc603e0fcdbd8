"""What is: the fleet's replicas, followed by long poll, and what each said of itself when probed."""

import asyncio
from collections.abc import Callable

from msgspec import Struct

from hyperion.control.plan import see_replicas
from hyperion.control.probe import probe
from hyperion.fleet.local import LocalFleet
from hyperion.fleet.messages import READY, Child
from hyperion.fleet.replicas import read_runners
from hyperion.policy.placement import SeenReplica
from hyperion.schema.config import RunnerConfig
from hyperion.schema.errors import HyperionError, NotReady
from hyperion.wire.frame_headers import Hello

_WATCH_S = 30.0
_RETRY_S = 0.2
_PROBE_S = 5.0


class Seen(Struct, frozen=True):
    """One observation. `runners` and `hellos` are by replica name; `children` is everything the fleet has."""

    replicas: tuple[SeenReplica, ...]
    runners: dict[str, RunnerConfig]
    hellos: dict[str, Hello]
    children: tuple[Child, ...]


class Observer:
    """Follows the fleet and probes each replica once it is ready. `changed` is called when there is something new."""

    def __init__(self, fleet: LocalFleet, changed: Callable[[], None], log: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._changed = changed
        self._log = log
        self._children: tuple[Child, ...] = ()
        self._hellos: dict[str, Hello] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}

    def see(self) -> Seen:
        """The last observation. Probes what is ready and was not reached yet."""
        self._probe_ready()
        runners = read_runners(self._children)
        names = {config.replica for _, config in runners}
        self._hellos = {name: hello for name, hello in self._hellos.items() if name in names}
        return Seen(
            see_replicas(runners, self._hellos),
            {config.replica: config for _, config in runners},
            self._hellos,
            self._children,
        )

    async def refresh(self) -> int:
        """Take one observation now, with every ready replica probed; returns its revision."""
        listed = await self._fleet.watch()
        self._children = listed.children
        self._probe_ready()
        await asyncio.gather(*self._probing.values())
        return listed.revision

    async def follow(self, since: int) -> None:
        """Follow the fleet for ever. While the supervisor cannot be reached, the last observation stands."""
        while True:
            try:
                listed = await self._fleet.watch(since, _WATCH_S)
            except (OSError, HyperionError) as error:
                self._log(f"the supervisor cannot be reached: {error}")
                since = -1
                await asyncio.sleep(_RETRY_S)
                continue
            if listed.revision != since:
                since = listed.revision
                self._children = listed.children
                self._probe_ready()
                self._changed()

    def _probe_ready(self) -> None:
        for child, config in read_runners(self._children):
            name = config.replica
            if child.state == READY and name not in self._hellos and name not in self._probing:
                self._probing[name] = asyncio.ensure_future(self._probe(config))

    async def _probe(self, config: RunnerConfig) -> None:
        try:
            self._hellos[config.replica] = await probe(config.socket, _PROBE_S)
        except NotReady as error:
            self._log(error.message)
            await asyncio.sleep(_RETRY_S)  # the next look tries again
        finally:
            del self._probing[config.replica]
            self._changed()
