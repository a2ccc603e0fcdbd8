"""What may be asked of control from outside: load, unload, and what there is.

Called by the link's server (for gateways) and by `api`.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hyperion.control.loop import ControlLoop
from hyperion.control.release.look import HIDDEN
from hyperion.control.sources import find_in_repositories
from hyperion.fleet.messages import Child
from hyperion.policy.placement import BROKEN, LOADING, SERVED, UNLOADED
from hyperion.schema.config import ControlConfig
from hyperion.schema.errors import HyperionError, ModelRefused, NotReady, UnknownModel, Unsupported
from hyperion.schema.model import Signature
from hyperion.schema.snapshot import Snapshot
from hyperion.wire import link

if TYPE_CHECKING:  # it brings the store
    from hyperion.control.desk.desk import Desk

LOAD_TIMEOUT_S = 600.0
SETTLE_S = 10.0


class Management:
    """The verbs. They write desired state, wake the loop, and wait until it has come true."""

    def __init__(self, config: ControlConfig, loop: ControlLoop) -> None:
        self.config = config
        self.desk: Desk | None = None  # until the store is open
        self.count_jobs: Callable[[], dict[tuple[str, ...], float]] = dict
        self._loop = loop
        self._was_ready = False

    async def load(self, model: str, parameters: dict[str, Any]) -> None:
        """Load the model, or load it again from its source, and wait until every gateway serves it.

        Raises `UnknownModel`, `ModelRefused` with the reason (what served before goes on serving), `Unsupported` for a
        parameter that we do not do, `NotReady` where it takes too long.
        """
        for name in parameters:
            raise Unsupported(f'load of "{model}": the parameter "{name}" is not supported; load takes none')
        desired = self._loop.desired
        row = desired.get(model)
        if row is None:
            folder, options, pinned = find_in_repositories(model, self.config.sources, self.config.defaults)
            row = desired.put(model, folder, options, pinned=pinned)
        else:
            desired.set_serving(model, True)
            row = desired.bump_generation(model)
        await self._until(model, row.generation, (SERVED,))

    async def unload(self, model: str) -> None:
        """Stop serving the model, and wait until no gateway routes to it. Raises `UnknownModel`."""
        row = self._loop.desired.set_serving(model, False)
        await self._until(model, row.generation, (UNLOADED,))

    async def command(self, message: link.Load | link.Unload | link.UnknownKey) -> link.Done:
        """A gateway's wish: the same verbs, with the error as data."""
        try:
            if isinstance(message, link.Load):
                await self.load(message.model, message.parameters)
            elif isinstance(message, link.Unload):
                await self.unload(message.model)
            elif self._loop.people is not None:
                self._loop.people.refresh_soon(message.issuer)
        except HyperionError as error:
            return link.Done(error.message, error.code)
        return link.Done(version=self._loop.publisher.snapshot.version)

    def snapshot(self) -> Snapshot:
        """What the gateways are told to serve."""
        return self._loop.publisher.snapshot

    def signature_of(self, digest: str) -> Signature | None:
        """What a version of that digest takes and gives, if one is served. Safe to call from any thread."""
        for model in self.snapshot().models:
            for version in model.versions:
                if version.digest == digest:
                    return version.signature
        return None

    def children(self) -> tuple[Child, ...]:
        """Every child of the supervisor as last seen."""
        return self._loop.observer.see().children

    def workers(self) -> dict[int, int]:
        """Connected gateway workers, and the snapshot version that each runs."""
        return self._loop.publisher.workers()

    def rejected(self) -> dict[str, str]:
        """Endpoints whose part of the snapshot a gateway could not follow, and why."""
        return self._loop.publisher.rejected()

    def member_reasons(self) -> dict[str, str]:
        """Why endpoints do not answer, by name: internal ones (steps of graphs, links of fallback chains), and those in
        whose place a PATH is served."""
        hidden = dict.fromkeys(self._loop.hidden, HIDDEN)
        return hidden | (self._loop.releases.explain_members() if self._loop.releases is not None else {})

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """What only control knows of metrics: the shares of versions, and how long its own work takes."""
        weights: dict[tuple[str, ...], float] = {}
        for model in self.snapshot().models:
            shares = {track.version: track.share for track in model.split.tracks} if model.split else {}
            for version in model.versions:
                alone = 0.0 if shares else float(version.version == model.default_version)
                weights[(model.name, version.version)] = shares.get(version.version, alone)
        return {
            "hyperion_rollout_weight": weights,
            "hyperion_jobs": self.count_jobs(),
            "hyperion_control_look_seconds": {(): self._loop.look_s},
            "hyperion_snapshot_spread_seconds": {(): self._loop.publisher.spread_s},
        }

    def is_ready(self) -> bool:
        """True once no model is loading and every gateway worker has run the current snapshot. A later snapshot that
        the gateways are about to take changes nothing, unless they take long."""
        publisher = self._loop.publisher
        behind = publisher.acknowledged() < publisher.snapshot.version
        ready = (
            self._loop.looked_once
            and publisher.snapshot.version > 0
            and len(publisher.workers()) >= self.config.gateway_workers
            and not (behind and (not self._was_ready or publisher.pending_s() > SETTLE_S))
            and all(outcome.verdict != LOADING for outcome in self._loop.outcomes.values())
            and not self._loop.is_releasing()
        )
        self._was_ready = self._was_ready or ready
        return ready

    async def _until(self, model: str, generation: int, wanted: tuple[str, ...]) -> None:
        """Wait for the outcome of this generation, then until the gateways have heard of it."""
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                self._loop.wake()
                while True:
                    await self._loop.looked.wait()
                    outcome = self._loop.outcomes.get(model)
                    if outcome is None:
                        raise UnknownModel(f'model "{model}" is not known here')
                    if outcome.generation > generation:
                        raise NotReady(f'model "{model}": a later load has taken over')
                    if outcome.verdict in wanted:
                        break
                    if outcome.verdict == BROKEN:
                        raise ModelRefused(f'model "{model}" cannot be loaded: {outcome.reason}')
                    if outcome.verdict != LOADING:
                        raise NotReady(f'model "{model}": a later command has taken over')
        except TimeoutError:
            raise NotReady(f'model "{model}" is still not ready after {LOAD_TIMEOUT_S:.0f} s; it goes on') from None
        publisher = self._loop.publisher
        version = publisher.snapshot.version
        await self._settle(lambda: publisher.acknowledged() >= version)

    async def follow(self, endpoint: str) -> None:
        """Wait until every gateway runs what was decided last for the endpoint, at most `SETTLE_S`."""
        await self._settle(lambda: self._loop.is_followed(endpoint))

    async def follow_writes(self) -> None:
        """Wait until every gateway runs what the store has now and knows who may call, at most `SETTLE_S`. A rollout
        that begins goes on."""
        releases, people = self._loop.releases, self._loop.people
        if releases is not None:
            written = releases.written
            await self._settle(lambda: self._loop.has_reached(written))
        if people is not None:
            writes = people.wanted
            await self._settle(lambda: self._loop.is_directory_followed(writes))

    async def _settle(self, settled: Callable[[], bool]) -> None:
        # A gateway that hangs is the supervisor's business, not the caller's.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while not settled():
                    await self._loop.looked.wait()
