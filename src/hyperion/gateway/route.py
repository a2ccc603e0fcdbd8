"""From names to pools: an immutable table per snapshot, and how one table follows another without losing a request.

Called by `gateway/link` with each new snapshot, and by `gateway/pipeline` for each call.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from hyperion.gateway.pool import VersionPool
from hyperion.schema.errors import NotReady, UnknownModel
from hyperion.schema.snapshot import ModelState, ServedVersion, Snapshot
from hyperion.telemetry.logs import EventLog

CONNECT_S: Final = 10.0

MakePool = Callable[[str, ServedVersion], VersionPool]


class ModelRoute(Struct, frozen=True):
    """One endpoint: its versions' pools, and which of them answers when none is named."""

    default: VersionPool
    versions: dict[str, VersionPool]


class RouteTable(Struct, frozen=True):
    """What is served now. Replaced whole, never changed."""

    version: int = 0
    models: dict[str, ModelRoute] = {}
    index: tuple[ModelState, ...] = ()

    def find(self, model: str, version: str) -> VersionPool:
        """The pool for a name; "" is the default version. Raises UnknownModel, or NotReady while it loads."""
        route = self.models.get(model)
        if route is None:
            for row in self.index:
                if row.name == model and row.state == "LOADING":
                    raise NotReady(f'model "{model}" is loading', retry_after_s=1.0)
                if row.name == model:
                    raise UnknownModel(f'model "{model}" is not loaded: {row.reason or row.state.lower()}')
            raise UnknownModel(f'no model "{model}" is served here; GET /v2/models lists those that are')
        if not version:
            return route.default
        pool = route.versions.get(version)
        if pool is None:
            raise UnknownModel(
                f'model "{model}" has no version "{version}"; it has {", ".join(sorted(route.versions))}'
            )
        return pool

    def pools(self) -> Iterable[VersionPool]:
        for route in self.models.values():
            yield from route.versions.values()


class Router:
    """Holds the current table and moves it to the next snapshot: connect, swap, retire."""

    def __init__(self, make_pool: MakePool, log: EventLog) -> None:
        self.table = RouteTable()
        self._make_pool = make_pool
        self._log = log
        self._retiring: list[VersionPool] = []

    def draining(self) -> tuple[str, ...]:
        """Replicas that are no longer routed to but still held open."""
        self._retiring = [pool for pool in self._retiring if not pool.closed.is_set()]
        return tuple(replica.name for pool in self._retiring for replica in pool.served.replicas)

    def all_pools(self) -> Iterable[VersionPool]:
        yield from self.table.pools()
        yield from self._retiring

    async def apply(self, snapshot: Snapshot) -> None:
        """Follows `snapshot`. A version whose replicas cannot be reached keeps its old pool; the others move on."""
        plans = [(model, version) for model in snapshot.models for version in model.versions]
        pools = await asyncio.gather(*(self._pool_for(model.name, version) for model, version in plans))
        models: dict[str, dict[str, VersionPool]] = {}
        for (model, version), pool in zip(plans, pools, strict=True):
            models.setdefault(model.name, {})[version.version] = pool
        routes = {
            model.name: ModelRoute(models[model.name][model.default_version], models[model.name])
            for model in snapshot.models
            if model.default_version in models.get(model.name, {})
        }
        known = {*self.table.pools(), *pools}
        self.table = RouteTable(snapshot.version, routes, snapshot.index)
        for pool in known.difference(self.table.pools()):
            pool.retire()
            self._retiring.append(pool)

    async def _pool_for(self, model: str, served: ServedVersion) -> VersionPool:
        route = self.table.models.get(model)
        old = route.versions.get(served.version) if route else None
        if old is not None and old.served == served:
            return old
        pool = self._make_pool(model, served)
        if old is not None and not await pool.wait_connected(CONNECT_S):
            self._log.write("error", "replicas not reached; the old ones stay", endpoint=model, version=served.version)
            pool.close()
            return old
        return pool

    def close(self) -> None:
        """Ends every pool."""
        for pool in tuple(self.all_pools()):
            pool.close()
