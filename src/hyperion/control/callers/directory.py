"""Everybody whom gateways are to know: built from tenants, API keys and issuers, whose public keys it keeps fresh.

Part of the control loop (`control/loop`), which publishes what is here. Neither the store nor an issuer makes it wait:
both are asked beside the looks, and what was known last holds until they have answered.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hyperion.control.callers.jwks import fetch_keys, source_of
from hyperion.control.errands import Errands, run_beside
from hyperion.control.state import replace_file
from hyperion.schema.errors import HyperionError
from hyperion.schema.protect import Directory, IssuerRecord, TenantRecord
from hyperion.schema.resource import Issuer, IssuerSpec, Tenant
from hyperion.store import access, issuer_keys
from hyperion.store.access import AccessPage
from hyperion.store.database import Database
from hyperion.store.issuer_keys import IssuerKeys
from hyperion.store.views import IssuerState

SOON_S: Final = 10.0  # an issuer is asked again this late at the earliest, however many unknown keys are met
RETRY_S: Final = 5.0  # after a failure; doubles up to the issuer's own interval
REREAD_S: Final = 1.0  # what another control process has written is found this late


class Watched(msgspec.Struct):
    """One issuer between looks. Times are the keeper's `clock`; `began_s` is when it was last asked."""

    spec: IssuerSpec
    due_s: float
    began_s: float = float("-inf")
    failures: int = 0
    problem: str = ""


class DirectoryKeeper:
    """Owns the directory. All methods but `state` run on the event loop's thread.

    `directory` is None until the store was read once. `wanted` counts the writes that this process knows of, `known`
    how many of them are in `directory`. `kept_at` is where it is written down, so that gateways know everybody before
    the store of the next life is open. `clock` is monotonic.
    """

    def __init__(
        self,
        database: Database,
        kept_at: Path,
        log: Callable[[str], None],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory: Directory | None = None
        self.wanted = 1
        self.known = 0
        self._database = database
        self._kept_at = kept_at
        self._kept: Directory | None = None
        self._keeping = asyncio.Lock()
        self._log = log
        self._wake = wake
        self._clock = clock
        self._page = AccessPage(-1)
        self._keys: dict[str, IssuerKeys] = {}
        self._watched: dict[str, Watched] = {}
        self._read_due_s = float("-inf")
        self._said = ""
        self._errands = Errands()

    def invalidate(self) -> None:
        """Somebody wrote to the store: read it again, and look soon."""
        self.wanted += 1
        self._read_due_s = float("-inf")
        self._wake()

    def refresh_soon(self, issuer: str) -> None:
        """A gateway met a token of this issuer (its `iss`) with a key that is not known: ask for its keys now, or as
        soon as SOON_S allow."""
        for watched in self._watched.values():
            if watched.spec.issuer == issuer:
                watched.due_s = min(watched.due_s, watched.began_s + SOON_S)
                self._wake()

    def look(self) -> None:
        """Start what is due; never waits. What comes of it wakes the loop."""
        now_s = self._clock()
        if now_s >= self._read_due_s:
            self._errands.start("read", self._read())
        for name, watched in self._watched.items():
            if now_s >= watched.due_s:
                self._errands.start(("issuer", name), self._refresh(name, watched))
        if self.directory is not None and self.directory is not self._kept:  # an issuer has other keys
            self._errands.start("keep", self._keep(self.directory))

    def wait_s(self) -> float:
        """How long nothing is due."""
        dues = (self._read_due_s, *(watched.due_s for watched in self._watched.values()))
        return max(0.0, min(dues) - self._clock())

    def state(self, name: str) -> IssuerState:
        """What is known of an issuer's keys. From any thread."""
        keys, watched = self._keys.get(name), self._watched.get(name)
        kids = tuple(str(key.get("kid", "")) for key in keys.keys) if keys is not None else ()
        read_at = keys.read_at if keys is not None else 0.0
        return IssuerState(kids, read_at, watched.problem if watched is not None else "")

    async def _read(self) -> None:
        wanted, self._read_due_s = self.wanted, float("inf")
        try:
            page = await asyncio.to_thread(self._read_page)
        except HyperionError as error:
            self._say(f"who may call cannot be read; what was read last holds: {error.message}")
            self._read_due_s = min(self._read_due_s, self._clock() + REREAD_S)
            return
        if not self._database.is_sqlite:  # others write there, too
            self._read_due_s = min(self._read_due_s, self._clock() + REREAD_S)
        if page is not self._page:
            self._page = page
            self._watch()
            self._build()
        if self.directory is not None:
            await self._keep(self.directory)  # first: a key that is said to be revoked counts in no later life
        if self.known < wanted:
            self.known = wanted
            self._wake()

    def _read_page(self) -> AccessPage:
        with self._database.read() as tx:
            return self._page if access.mark_of(tx) == self._page.mark else access.read_page(tx)

    def _watch(self) -> None:
        """Follow the issuers that there are now. One that is new or another is asked at once."""
        old, now_s = self._watched, self._clock()
        self._watched = {}
        for issuer in self._page.issuers:
            name, known = issuer.metadata.name, old.get(issuer.metadata.name)
            same = known is not None and known.spec == issuer.spec
            self._watched[name] = known if same and known is not None else Watched(issuer.spec, now_s)
            stored = self._page.read.get(name)
            if name not in self._keys and stored is not None:
                self._keys[name] = stored
        self._keys = {
            name: keys
            for name, keys in self._keys.items()
            if name in self._watched and keys.source == source_of(self._watched[name].spec)
        }

    async def _refresh(self, name: str, watched: Watched) -> None:
        spec = watched.spec
        watched.began_s = self._clock()
        watched.due_s = watched.began_s + spec.refresh_s
        try:
            keys = await run_beside(lambda: fetch_keys(spec))
        except HyperionError as error:
            watched.failures += 1
            watched.due_s = self._clock() + min(spec.refresh_s, RETRY_S * 2.0 ** (watched.failures - 1))
            if watched.problem != error.message:
                held = "its last keys hold" if name in self._keys else "nobody comes in with its tokens"
                self._log(f"issuer {name}: its keys cannot be read ({error.message}); {held}")
            watched.problem = error.message
        else:
            watched.failures, watched.problem = 0, ""
            row = await asyncio.to_thread(self._store_keys, name, source_of(spec), keys)
            if self._watched.get(name) is watched:  # else it was changed or deleted meanwhile
                self._keys[name] = row
                self._build()
        self._wake()

    def _store_keys(self, name: str, source: str, keys: tuple[dict[str, Any], ...]) -> IssuerKeys:
        try:
            with self._database.write() as tx:
                return issuer_keys.put(tx, name, source, keys)
        except HyperionError as error:
            self._log(f"issuer {name}: its keys count, but are not kept: {error.message}")
            return IssuerKeys(name, source, keys, time.time())

    def _build(self) -> None:
        new = build_directory(self._page, self._keys)
        if new != self.directory:
            self.directory = new

    async def _keep(self, directory: Directory) -> None:
        async with self._keeping:
            if directory is self._kept:
                return
            try:
                await asyncio.to_thread(replace_file, self._kept_at, msgspec.json.encode(directory))
            except OSError as error:
                self._say(f"{self._kept_at.name} cannot be written: {(error.strerror or 'error').lower()}")
            self._kept = directory

    def _say(self, message: str) -> None:
        if message != self._said:
            self._said = message
            self._log(message)


def build_directory(page: AccessPage, keys: Mapping[str, IssuerKeys]) -> Directory:
    """Return the directory of what the store holds, with these keys by the issuer's name. An issuer without any is in
    it, too: its tokens are refused for the right reason."""
    return Directory(
        tuple(_tenant(tenant) for tenant in page.tenants),
        page.keys,
        tuple(_issuer(issuer, keys.get(issuer.metadata.name)) for issuer in page.issuers),
    )


def _tenant(tenant: Tenant) -> TenantRecord:
    spec = tenant.spec
    return TenantRecord(
        tenant.metadata.name, spec.limits, spec.key_limits, spec.quotas, spec.priority, spec.weight, spec.certificates
    )


def _issuer(issuer: Issuer, keys: IssuerKeys | None) -> IssuerRecord:
    spec = issuer.spec
    return IssuerRecord(
        spec.issuer,
        spec.audience,
        spec.algorithms,
        spec.tenant,
        spec.tenant_claim,
        spec.scope_claim,
        spec.leeway_s,
        keys.keys if keys is not None else (),
    )
