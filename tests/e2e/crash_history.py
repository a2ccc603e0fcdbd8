"""A control process without gateways and runners, and a history that it lives through; it is killed in the middle.

The desk, the releases, the book, the leadership and the store are the real ones; what is seen of the fleet and of the
gateways is a `World` that outlives the process, as a supervisor and its other children do. Run by `crash_control` in a
child process, so it imports little.
"""

import asyncio
import itertools
import os
import secrets
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from hyperion.control.desk.desk import Desk
from hyperion.control.opening import take_lead
from hyperion.control.release.book import Book
from hyperion.control.release.evidence import Evidence
from hyperion.control.release.probes import Probes
from hyperion.control.release.releases import Releases
from hyperion.control.release.view import ReleaseView
from hyperion.policy.placement import SeenReplica
from hyperion.schema.release import GatewayReport, PredictionRow, TrackCounts
from hyperion.schema.resource import Endpoint, EndpointSpec, Halt, Metadata, Rollout
from hyperion.schema.resource import Step as RolloutStep
from hyperion.store import ledger
from hyperion.store.blobs.directory import LocalBlobs
from hyperion.store.database import open_home
from hyperion.store.leadership import Leadership
from hyperion.store.versions.push import Details, prepare_push, put_files
from hyperion.store.versions.signing import Trust

NAME: Final = "digits"
BROKEN: Final = "3"
STEPS_OF_CANARY: Final = tuple(RolloutStep(percent=share, hold_s=1.0, min_requests=50) for share in (50.0, 100.0))
ROLLOUT: Final = Rollout(steps=STEPS_OF_CANARY, halt=Halt(slow=None), standby_s=36_000.0)
LOOK_S: Final = 0.5
LOOKS_MAX: Final = 60  # the longest step takes about ten


class World(Struct):
    """What lives on while control is dead: replicas by name, what gateways serve and how far they are, what they
    counted, by epoch and version."""

    replicas: dict[str, SeenReplica] = {}
    serving: dict[str, int] = {}
    epoch: int = 0
    counts: list[TrackCounts] = []
    lives: int = 0
    looks: int = 0

    def obey(self, views: tuple[ReleaseView, ...]) -> None:
        """What supervisor, runners and gateways do in the time between two looks."""
        for view in views:
            for new in view.placement.start:
                name = f"{new.model}@{new.version}.g{new.generation}.{new.index}"
                state, reason = ("failed", "no such weights") if new.version == BROKEN else ("ready", "")
                self.replicas[name] = SeenReplica(
                    name, new.model, new.version, new.generation, new.index, state, not reason, reason
                )
            for name in view.placement.retire:
                self.replicas.pop(name, None)
            self.serving = {part.version: part.generation for part in view.placement.serve}
            self.epoch = view.epoch
            shares = {track.version: track.share for track in view.split.tracks} if view.split else {}
            self.counts = [one for one in self.counts if one.epoch != view.epoch] + [
                TrackCounts(NAME, view.epoch, version, requests=self._counted(view.epoch, version) + int(1_000 * share))
                for version, share in shares.items()
            ]
        if not views:
            self.serving, self.replicas = {}, {}

    def _counted(self, epoch: int, version: str) -> int:
        return sum(one.requests for one in self.counts if (one.epoch, one.version) == (epoch, version))


class Life:
    """One life of the control process, from its start to its end or its death."""

    def __init__(self, home: Path, url: str, fault: Callable[[str], None]) -> None:
        self.path = home / "world.json"
        self.world = msgspec.json.decode(self.path.read_bytes(), type=World) if self.path.exists() else World()
        self.world.lives += 1
        ticks = itertools.count()
        self.now = 1_000_000.0 + 1_000.0 * self.world.lives
        self.database = open_home(home, url, lambda: self.now + 1e-6 * next(ticks), fault)
        self.leadership = None if self.database.is_sqlite else Leadership(self.database, "control")
        blobs = LocalBlobs(home / "blobs")
        book = Book(self.database, blobs, home / "artifacts", Trust())
        self.evidence = Evidence(lambda: None)
        self.log: list[str] = []
        self.releases = Releases(
            book,
            self.evidence,
            Probes(home, lambda: None),
            lambda: secrets.token_hex(6),
            self.log.append,
            lambda: None,
            lambda: self.now,
        )
        self.desk = Desk(self.database, blobs, self.releases.invalidate)
        self.home, self.blobs = home, blobs

    def lead(self) -> int | None:
        """Leads once whoever led before is known to be dead; returns the fence."""
        fence = None
        if self.leadership is not None:
            while (fence := take_lead(self.database, self.leadership)) is None:
                time.sleep(0.005)
        self.releases.lead(fence)
        return fence

    async def look(self) -> None:
        """One look of the loop, and what the world does then."""
        self.world.looks += 1
        self.evidence.take(GatewayReport("gateway", 0, tuple(self.world.counts), predictions=self._predictions()))
        serving = {NAME: self.world.serving} if self.world.serving else {}
        seen = tuple(self.world.replicas.values())
        views = await self.releases.look(seen, serving, {NAME: self.world.epoch})
        self.world.obey(views or ())
        self.path.write_bytes(msgspec.json.encode(self.world))
        self.now += LOOK_S
        # What is laid out in threads is ready for the next look: every history then has the same writes.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    def _predictions(self) -> tuple[PredictionRow, ...]:
        if self.world.looks % 4:
            return ()
        name = f"p{self.world.looks}-{self.world.lives}"
        return (PredictionRow(name, NAME, "1", "sha256:1", self.world.epoch, "ok", self.now, 1.0),)

    def told(self, reason: str) -> bool:
        """Whether the ledger has this command: who got no answer looks before asking again."""
        return any(entry.reason == reason for entry in ledger.entries(self.database, limit=1_000))

    def state(self) -> tuple[str, str]:
        """State and target of the rollout, as the API says it."""
        found = self.desk.get_rollout(NAME).state
        return ("", "") if found is None else (found.state, found.to_version)


class Step(Struct, frozen=True):
    """A command, and what holds some looks after it; `reason` is how the ledger shows it."""

    reason: str
    act: Callable[[Life, str], Any]
    holds: Callable[[Life], bool] = lambda _: True


def _push(version: str) -> Callable[[Life, str], Any]:
    def act(life: Life, reason: str) -> None:
        pushed = prepare_push(NAME, version, life.home / f"v{version}", Details(git_commit="", created_at=1.0))
        put_files(life.blobs, pushed.sources)
        life.desk.models.put(pushed.manifest, actor="ann", reason=reason)

    return act


def _apply(life: Life, reason: str) -> None:
    resource = Endpoint(Metadata(NAME), EndpointSpec(f"{NAME}@1", rollout=ROLLOUT))
    life.desk.apply([resource], actor="ann", reason=reason)


def _deploy(version: str) -> Callable[[Life, str], Any]:
    def act(life: Life, reason: str) -> None:
        life.desk.deploy(NAME, f"{NAME}@{version}", actor="ann", reason=reason)

    return act


def _undo(life: Life, reason: str) -> None:
    if not life.told(reason):  # to ask twice is to go back and forth
        life.desk.command(NAME, "undo", actor="ann", reason=reason)


def _key(life: Life, _: str) -> None:
    life.desk.audit.create_key("shop", ["infer"], None, actor="ann")


def _alias(life: Life, reason: str) -> None:
    if not life.told(reason):
        life.desk.models.set_alias(NAME, "champion", "2", actor="ann", reason=reason)


def _revoke(life: Life, reason: str) -> None:
    for key in life.desk.audit.list_keys():
        if key.revoked_at is None:
            life.desk.audit.revoke_key(key.id, actor="ann", reason=reason)


def _delete(life: Life, reason: str) -> None:
    if not life.told(reason):
        life.desk.delete_endpoint(NAME, actor="ann", reason=reason)


HISTORY: Final = (
    Step("push 1", _push("1")),
    Step("apply", _apply, lambda life: life.state() == ("promoted", "1")),
    Step("push 2", _push("2")),
    Step("deploy 2", _deploy("2"), lambda life: life.state() == ("promoted", "2")),
    Step("undo", _undo, lambda life: life.state() == ("promoted", "1")),
    Step("alias", _alias),
    Step("push 3", _push("3")),
    Step("deploy 3", _deploy("3"), lambda life: life.state() == ("halted", "3")),
    Step("", _key),
    Step("revoke", _revoke),
    Step("delete", _delete, lambda life: not life.desk.list_endpoints() and not life.world.replicas),
)


async def live(life: Life, first: int, acknowledged: bool, tell: Callable[[tuple[str, int]], None]) -> None:
    """The history from step `first` on, whose command was `acknowledged` before or not."""
    for number, step in tuple(enumerate(HISTORY))[first:]:
        if number > first or not acknowledged:
            step.act(life, step.reason)
            tell(("acknowledged", number))
        for _ in range(LOOKS_MAX):
            if step.holds(life):
                break
            await life.look()
        else:
            raise AssertionError(
                f"{step.reason}: {life.desk.get_rollout(NAME).state} after {LOOKS_MAX} looks: {life.log[-5:]}"
            )
        tell(("held", number))


def run(home: Path, url: str, first: int, acknowledged: bool, kill_at: int, pipe: Pipe) -> None:
    """In a child process: live, and die at fault point number `kill_at` (never, if negative). Tells what was
    acknowledged and what held, and in the end every point that was passed."""
    points: list[str] = []

    def fault(point: str) -> None:
        points.append(point)
        if len(points) - 1 == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    life = Life(home, url, fault)
    fence = life.lead()
    pipe.send(("leads", fence or 0))
    asyncio.run(live(life, first, acknowledged, pipe.send))
    pipe.send(("points", points))
