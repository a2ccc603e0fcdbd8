"""Open the store and put what stands on it into the running control process: releases, the desk, leadership.

Imported in a thread once the first models run: SQLAlchemy takes longer to import than a small model to load.
"""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

from hyperion.control.desk import Desk
from hyperion.control.evidence import Evidence
from hyperion.control.loop import ControlLoop
from hyperion.control.management import Management
from hyperion.control.probes import Probes
from hyperion.control.release_book import Book
from hyperion.control.releases import Releases
from hyperion.control.trust import read_trust
from hyperion.schema.config import ControlConfig
from hyperion.schema.errors import HyperionError
from hyperion.store.blobs import LocalBlobs
from hyperion.store.database import Database, open_home
from hyperion.store.leadership import Leadership

RENEW_S = 1.0


class Store:
    """The open store of one control process, and whether this process leads. Only the leader decides; the others answer
    reads, and carry on serving what was published."""

    def __init__(self, database: Database, blobs: LocalBlobs, config: ControlConfig, run_dir: Path) -> None:
        self.database = database
        self._blobs = blobs
        self._config = config
        self._run_dir = run_dir
        self._releases: Releases | None = None
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
        self._releases = Releases(book, evidence, probes, lambda: secrets.token_hex(6), log, wake)
        running = asyncio.get_running_loop()

        def written() -> None:  # from the API's threads
            if self._releases is not None:
                running.call_soon_threadsafe(self._releases.invalidate)

        counts = evidence.counts
        management.desk = Desk(self.database, self._blobs, written, lambda endpoint: counts(endpoint, 0), trust)

    async def lead(self, loop: ControlLoop) -> None:
        """Take the lead and keep it for ever; whoever loses it stops deciding at once."""
        if self.database.is_sqlite:
            loop.releases = self._releases  # the home's lock is the leadership
            self._wake()
            await asyncio.Event().wait()
        leadership = Leadership(self.database, "control")
        try:
            while True:
                await self._look(loop, leadership)
                await asyncio.sleep(RENEW_S)
        finally:
            loop.releases = None
            await asyncio.to_thread(leadership.resign)

    async def _look(self, loop: ControlLoop, leadership: Leadership) -> None:
        releases = self._releases
        assert releases is not None, "attached before it leads"
        try:
            if loop.releases is None:
                fence = await asyncio.to_thread(leadership.try_lead)
                if fence is not None:
                    self._log(f"this process leads, as number {fence}")
                    releases.fence = fence
                    loop.releases = releases
                    releases.invalidate()
            elif not await asyncio.to_thread(leadership.renew):
                self._log("another control process leads now")
                loop.releases = None
        except HyperionError as error:
            self._log(f"leadership cannot be kept ({error.message}); nothing is decided until it can")
            loop.releases = None


def open_store(config: ControlConfig, run_dir: Path) -> Store:
    """Open the home's database, or the one that the configuration names. Raises `InvalidConfig` or `MissingExtra`."""
    home = Path(config.home)
    return Store(open_home(home, config.database_url), LocalBlobs(home / "blobs"), config, run_dir)
