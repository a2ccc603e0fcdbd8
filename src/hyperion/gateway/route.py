"""From one snapshot to the next: how one table of pools follows another without losing a request.

Called by `gateway/link` with each new snapshot; `gateway/pipeline` looks into the `table` for each call.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec import Struct

from hyperion.gateway.front.door import Door
from hyperion.gateway.front.rules import Rules
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.recovery.plan import make_recovery
from hyperion.gateway.release.counts import Counts
from hyperion.gateway.release.split import SplitRoute, Watch
from hyperion.gateway.release.watches import is_live, make_watch
from hyperion.gateway.table import ModelRoute, RouteTable
from hyperion.policy.constraints import explain_misfit
from hyperion.policy.redact import Redaction, explain_unknown_fields
from hyperion.schema.errors import UnknownModel
from hyperion.schema.model import Signature
from hyperion.schema.snapshot import ServedModel, ServedVersion, Snapshot
from hyperion.telemetry.logs import EventLog

CONNECT_S: Final = 10.0
FIRST_CONNECT_S: Final = 0.5  # control has reached them, so they are there; who asked for a load may then call at once

MakePool = Callable[[str, ServedVersion], VersionPool]


class Joining(Struct, frozen=True):
    """A pool that takes an older one's place as soon as a replica of it answers, and the task that waits for that."""

    pool: VersionPool
    task: "asyncio.Task[None]"


class Router:
    """Holds the current table and moves it to the next snapshot: connect, swap, retire.

    `rejected` says of which endpoints the newest snapshot could not be followed in full, and why. `counts` is where
    requests of endpoints with a split or a log are counted; `draw` gives random numbers in [0, 1). `door` makes the
    endpoints' guards. `drained()` is called when a pool that was replaced holds its replicas no more.
    """

    def __init__(
        self,
        make_pool: MakePool,
        log: EventLog,
        counts: Counts | None = None,
        draw: Callable[[], float] = random.random,
        door: Door | None = None,
    ) -> None:
        self.table = RouteTable()
        self.rejected: dict[str, str] = {}
        self._make_pool = make_pool
        self._log = log
        self._counts = counts
        self._draw = draw
        self._door = door
        self.drained: Callable[[], None] = _nobody
        self._retiring: list[VersionPool] = []
        self._watching: set[asyncio.Task[None]] = set()
        self._joining: dict[tuple[str, str], Joining] = {}

    def draining(self) -> tuple[str, ...]:
        """Replicas that the snapshot does not list but that are still held open, routed to or not."""
        self._retiring = [pool for pool in self._retiring if not pool.closed.is_set()]
        held = list(self._retiring)
        for route in (*self.table.models.values(), *self.table.members.values()):
            if route.served is not None:
                held += [pool for pool in route.versions.values() if pool.served not in route.served.versions]
        return tuple([replica.name for pool in held for replica in pool.served.replicas])

    def all_pools(self) -> Iterable[VersionPool]:
        yield from self.table.pools()
        yield from self._retiring
        for joining in self._joining.values():
            yield joining.pool

    async def apply(self, snapshot: Snapshot) -> None:
        """Follows `snapshot`: at once, but for versions that were loaded again, whose old replicas answer until a new
        one does. Returns when all do, or have had `CONNECT_S`, and those that are new `FIRST_CONNECT_S`; the next
        snapshot may be applied before that."""
        first = self._follow(snapshot)
        waits: list[asyncio.Future[Any]] = [joining.task for joining in self._joining.values()]
        waits += [asyncio.ensure_future(pool.wait_connected(FIRST_CONNECT_S)) for pool in first if not pool.ready]
        if waits:
            await asyncio.wait(waits)

    def _follow(self, snapshot: Snapshot) -> list[VersionPool]:
        """Everything that needs no waiting. Returns the pools of versions that were not served before."""
        before = self.table
        rejected: dict[str, str] = {}
        models: dict[str, ModelRoute] = {}
        members: dict[str, ModelRoute] = {}
        made: list[VersionPool] = []
        if self._door is not None:
            self._door.follow(snapshot)
        for model in snapshot.models:
            routes = members if model.internal else models
            old = before.any_route(model.name)
            if old is not None and old.served == model and model.name not in self.rejected and self._is_guarded(old):
                routes[model.name] = old
                continue
            versions = {version.version: self._pool_now(model.name, version, old) for version in model.versions}
            made += versions.values()
            if model.default_version in versions:
                routes[model.name] = self._make_route(model, versions, rejected)
                continue
            rejected[model.name] = f'version "{model.default_version}" is to answer, but is not among its versions'
            if old is not None:
                routes[model.name] = old
        self.table = RouteTable(snapshot.version, models, members, snapshot.index)
        for name, route in models.items():  # now that it is known who else is served
            if name not in rejected and route.guard is not None and route.guard.recovery is not None:
                self._say(name, route.guard.recovery.explain_misfit(), rejected)
        self.rejected = rejected
        kept = set(self.table.pools())
        self._give_up({(pool.model, pool.served.version) for pool in kept})
        for pool in {*before.pools(), *made}.difference(kept):
            self._retire(pool)
        if self._counts is not None:
            self._counts.endpoints = frozenset(models)
            self._counts.live = any(is_live(model.split) for model in snapshot.models)
        known = set(before.pools())
        return [pool for pool in kept if pool not in known]

    def _is_guarded(self, route: ModelRoute) -> bool:
        """Whether the route has the guard that it is to have."""
        return self._door is None or route.served is None or self._door.guard_of(route.served) is route.guard

    def _pool_now(self, model: str, served: ServedVersion, route: ModelRoute | None) -> VersionPool:
        """The pool that answers for a version now. Where it is another one than was there, that is still the old one,
        until the new one's replicas answer."""
        key = (model, served.version)
        old = route.versions.get(served.version) if route is not None else None
        joining = self._joining.get(key)
        if joining is not None and (old is None or joining.pool.served != served):
            self._stop_joining(key)
            joining = None
        if old is None:
            return self._make_pool(model, served)
        if old.served != served and joining is None:
            pool = self._make_pool(model, served)
            task = asyncio.get_running_loop().create_task(self._join(key, pool))
            self._joining[key] = Joining(pool, task)
        return old

    def _make_route(self, model: ServedModel, versions: dict[str, VersionPool], rejected: dict[str, str]) -> ModelRoute:
        default = versions[model.default_version]
        split, route = model.split, None
        if split is not None and split.tracks:
            route = SplitRoute(split, versions, default, self._draw)
            named = [track.version for track in split.tracks] + ([split.shadow] if split.shadow else [])
            missing = [name for name in named if name not in versions]
            if missing:
                rejected[model.name] = f'its split names version "{missing[0]}", which is not among its versions'
        redaction = Redaction(model.redact)
        for pool in versions.values():
            pool.redaction = redaction
        watch = None
        counts = self._counts
        if counts is not None and (route is not None or model.log_sample > 0):
            watch = make_watch(model, versions, route, counts)
        elif route is not None:
            watch = Watch(route, {}, {}, is_live(split))
        guard = self._door.guard_of(model) if self._door is not None else None
        if guard is not None:
            guard.recovery = make_recovery(
                model, default.signature, self.find_any, guard.last_good, self._draw, guard.recovery
            )
            rules = model.protection.rules
            guard.rules = None if rules is None else Rules(rules, default.signature, model.redact)
        self._say(model.name, self._problem_of(model, default.signature), rejected)
        for pool in versions.values():
            pool.follow_breaker(model.protection.breaker)
            pool.guard = guard
            pool.nulls = None if guard is None or guard.rules is None else guard.rules.nulls
            pool.watch = watch
            if watch is not None:
                pool.counts = counts
        return ModelRoute(default, versions, route, model, guard)

    def _say(self, endpoint: str, problem: str, rejected: dict[str, str]) -> None:
        """Keeps for control what is wrong with an endpoint, and logs it when it is new; "" is nothing."""
        if problem:
            if self.rejected.get(endpoint) != problem:
                self._log.write("error", "endpoint is not as its resource says", endpoint=endpoint, error=problem)
            rejected[endpoint] = problem

    def _problem_of(self, model: ServedModel, signature: Signature) -> str:
        """What the endpoint asks for and cannot get, for control; "" where all is well."""
        rules = model.protection.rules
        misfit = "" if rules is None else explain_misfit(rules, signature)
        lacking = "" if self._door is None else self._door.problems.get(model.name, "")
        return misfit or lacking or explain_unknown_fields(model.redact, signature)

    def find_any(self, model: str, version: str) -> VersionPool:
        """The pool of an endpoint or a member. Raises UnknownModel."""
        route = self.table.any_route(model)
        pool = None if route is None else route.versions.get(version) if version else route.default
        if pool is None:
            raise UnknownModel(f'"{model}" is not served here')
        return pool

    async def _join(self, key: tuple[str, str], pool: VersionPool) -> None:
        """Puts the pool in its place once it answers; leaves the old one there if it does not."""
        model, version = key
        reached = await pool.wait_connected(CONNECT_S)
        self._joining.pop(key, None)
        route = self.table.any_route(model)
        if not reached or route is None or route.served is None:
            self._log.write("error", "replicas not reached; the old ones stay", endpoint=model, version=version)
            self.rejected[model] = f'no replica of version "{version}" could be reached'
            pool.close()
            return
        old = route.versions[version]
        versions = {**route.versions, version: pool}
        made = {model: self._make_route(route.served, versions, self.rejected)}
        models, members = self.table.models, self.table.members
        if route.served.internal:
            members = {**members, **made}
        else:
            models = {**models, **made}
        self.table = RouteTable(self.table.version, models, members, self.table.index)
        self._retire(old)

    def _retire(self, pool: VersionPool) -> None:
        pool.retire()
        self._retiring.append(pool)
        watching = asyncio.get_running_loop().create_task(self._watch_to_end(pool))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _watch_to_end(self, pool: VersionPool) -> None:
        await pool.closed.wait()
        self.drained()

    def _give_up(self, wanted: set[tuple[str, str]]) -> None:
        """Ends the waits for pools whose place is gone."""
        for key in [key for key in self._joining if key not in wanted]:
            self._stop_joining(key)

    def _stop_joining(self, key: tuple[str, str]) -> None:
        joining = self._joining.pop(key)
        joining.task.cancel()
        joining.pool.close()

    def close(self) -> None:
        """Ends every pool."""
        for key in tuple(self._joining):
            self._stop_joining(key)
        for pool in tuple(self.all_pools()):
            pool.close()


def _nobody() -> None:
    """Nobody waits for the replicas of old versions."""
