"""Open the store and put what stands on it into the running control process: releases, the desk, leadership.

Imported in a thread once the first models run: SQLAlchemy takes longer to import than a small model to load.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hyperion.control.callers.directory import DirectoryKeeper
from hyperion.control.callers.usage_book import UsageBook
from hyperion.control.desk.batches import BatchDesk
from hyperion.control.desk.desk import Desk
from hyperion.control.desk.jobs import Jobs
from hyperion.control.jobs.batches import Batches
from hyperion.control.jobs.callbacks import Callbacks, read_master
from hyperion.control.jobs.desk import JobDesk
from hyperion.control.jobs.stream_source import read_source
from hyperion.control.jobs.streams import Streams
from hyperion.control.loop import ControlLoop
from hyperion.control.management import Management
from hyperion.control.release.book import Book
from hyperion.control.release.evidence import Evidence
from hyperion.control.release.probes import Probes
from hyperion.control.release.releases import Releases
from hyperion.control.trust import read_trust
from hyperion.control.upstream.ask import ask_upstream
from hyperion.fleet.local import LocalFleet
from hyperion.schema.config import ControlConfig
from hyperion.schema.errors import HyperionError
from hyperion.store import ledger
from hyperion.store.blobs.directory import Blobs
from hyperion.store.blobs.opening import open_blobs
from hyperion.store.database import Database, open_home
from hyperion.store.leadership import Leadership

RENEW_S = 1.0
LED = "it leads: no other process decides from here on"


class Store:
    """The open store of one control process, and whether this process leads. Only the leader decides; the others answer
    reads and take wishes, and serve what it decided."""

    def __init__(self, database: Database, blobs: Blobs, config: ControlConfig, run_dir: Path) -> None:
        self.database = database
        self.jobs = JobDesk(database)
        self.usage = UsageBook(database)
        self.callbacks: Callbacks | None = None
        self.streams: Streams | None = None
        self.batches: Batches | None = None
        self._blobs = blobs
        self._config = config
        self._run_dir = run_dir
        self._releases: Releases | None = None
        self._people: DirectoryKeeper | None = None
        self._fence: int | None = None  # of a leader
        self._log: Callable[[str], None] = lambda _: None
        self._wake: Callable[[], None] = lambda: None

    def attach(
        self,
        evidence: Evidence,
        management: Management,
        log: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        """Give the management its desk, and make the releases that this process will decide on when it leads."""
        self._log, self._wake = log, wake
        home = Path(self._config.home)
        trust, trust_pickle = read_trust(self._config), self._config.defaults.trust_pickle
        book = Book(self.database, self._blobs, home / "artifacts", trust, trust_pickle)
        probes = Probes(self._run_dir, wake)
        ask = partial(ask_upstream, credential_dirs=self._config.credential_dirs)
        self._releases = Releases(book, evidence, probes, lambda: secrets.token_hex(6), log, wake, ask=ask)
        self._people = DirectoryKeeper(self.database, home / "directory.json", log, wake)
        running = asyncio.get_running_loop()
        releases, people = self._releases, self._people

        def written() -> None:  # from the API's threads
            running.call_soon_threadsafe(releases.invalidate)

        def written_batches() -> None:
            running.call_soon_threadsafe(batches.wake)

        def welcomed() -> None:
            running.call_soon_threadsafe(people.invalidate)

        batches = self.batches = Batches(
            self.database, self._config, LocalFleet(self._run_dir / "supervisor.sock"), self.standing, log
        )
        master = read_master(home)
        allowed = self._config.callback_hosts
        sources = [read_source(url) for url in self._config.streams]
        self.streams = Streams(self.database, sources, self.jobs.queued, log)
        self.callbacks = Callbacks(
            self.database, master, allowed, lambda: self.jobs.callbacks_due, log, self.streams.publish
        )
        management.count_jobs = lambda: self.jobs.counts
        counts = evidence.counts
        management.desk = Desk(
            self.database,
            self._blobs,
            written,
            lambda endpoint: counts(endpoint, 0),
            trust,
            welcomed,
            people.state,
            Jobs(self.database, master),
            BatchDesk(self.database, self._config, written_batches),
            self._config.credential_dirs,
            management.signature_of,
        )

    def standing(self) -> tuple[bool, int | None]:
        """Whether this process decides, and under which fence. A home has one control process, which its lock sees to:
        it needs none."""
        return self.database.is_sqlite or self._fence is not None, self._fence

    async def lead(self, loop: ControlLoop) -> None:
        """Take the lead and keep it for ever; whoever loses it stops deciding at once."""
        releases = self._releases
        assert releases is not None, "attached before it leads"
        loop.releases, loop.people = releases, self._people
        if self.database.is_sqlite:
            releases.lead(None)  # the home's lock is the leadership
            await asyncio.Event().wait()
        releases.follow()
        leadership = Leadership(self.database, "control")
        try:
            while True:
                await self._look(releases, leadership)
                await asyncio.sleep(RENEW_S)
        finally:
            releases.follow()
            await asyncio.to_thread(leadership.resign)

    async def _look(self, releases: Releases, leadership: Leadership) -> None:
        try:
            if self._fence is None:
                fence = await asyncio.to_thread(take_lead, self.database, leadership)
                if fence is not None:
                    self._log(f"this process leads, as number {fence}")
                    self._fence = fence
                    releases.lead(fence)
            elif not await asyncio.to_thread(leadership.renew):
                self._log("another control process leads now")
                self._fence = None
                releases.follow()
        except HyperionError as error:
            self._log(f"leadership cannot be kept ({error.message}); nothing is decided until it can")
            self._fence = None
            releases.follow()


def take_lead(database: Database, leadership: Leadership) -> int | None:
    """Take the lead if nobody has it, and return its number. Slow. That it leads is the first that a leader writes,
    under its fence. Raises `HyperionError`."""
    fence = leadership.try_lead()
    if fence is not None:
        with database.write(fence) as tx:
            detail = {"leader": fence, "process": os.getpid(), "host": socket.gethostname()}
            ledger.append(tx, "control.led", "control", actor="control", reason=LED, detail=detail)
    return fence


def open_store(config: ControlConfig, run_dir: Path) -> Store:
    """Open the home's database and blobs, or those that the configuration names. Raises `InvalidConfig`,
    `MissingExtra` or `StorageFailed`."""
    home = Path(config.home)
    blobs = open_blobs(config.blobs_url, home)
    key = Path(config.ledger_key) if config.ledger_key else None
    return Store(open_home(home, config.database_url, key=key), blobs, config, run_dir)
