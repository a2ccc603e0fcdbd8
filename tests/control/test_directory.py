"""Who may call, from the store and from real issuers of tokens: what gateways are told, and what an issuer that fails
takes away (nothing)."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperion.control.callers.directory import SOON_S, DirectoryKeeper
from hyperion.control.desk.audit import Audit
from hyperion.control.desk.tenants import Tenants
from hyperion.control.state import read_directory
from hyperion.schema.protect import Directory, Limits
from hyperion.schema.resource import Issuer, IssuerSpec, Metadata, Tenant, TenantSpec
from hyperion.store import resources
from hyperion.store.database import Database
from tests.oidc_issuer import JWKS, Given, OidcIssuer
from tests.store.places import Place, place  # noqa: F401


class People:
    """A keeper, and the looks that the control loop would take. `now` is the time that it goes by."""

    def __init__(self, database: Database, kept_at: Path) -> None:
        self.now = 1_000.0
        self.said: list[str] = []
        self.woken = asyncio.Event()
        self.keeper = DirectoryKeeper(database, kept_at, self.said.append, self.woken.set, lambda: self.now)
        self.database = database

    def apply(self, *given: Tenant | Issuer) -> None:
        with self.database.write() as tx:
            for resource in given:
                resources.put(tx, resource, actor="ann")
        self.keeper.invalidate()

    async def until(self, is_true: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not is_true():
                self.keeper.look()
                try:
                    async with asyncio.timeout(0.05):
                        await self.woken.wait()
                except TimeoutError:
                    continue
                self.woken.clear()

    async def heed(self) -> Directory:
        """Look until all writes are known, and return the directory."""
        wanted = self.keeper.wanted
        await self.until(lambda: self.keeper.known >= wanted)
        assert self.keeper.directory is not None
        return self.keeper.directory

    def kids(self) -> list[str]:
        directory = self.keeper.directory or Directory()
        return [key["kid"] for issuer in directory.issuers for key in issuer.keys]


@asynccontextmanager
async def looking(place: Place) -> AsyncIterator[People]:  # noqa: F811
    people = People(place.open(), place.home / "directory.json")
    yield people
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.fixture
def oidc() -> Iterator[OidcIssuer]:
    with OidcIssuer() as issuer:
        yield issuer


def trusting(oidc: OidcIssuer, name: str = "corp", **spec: Any) -> Issuer:
    return Issuer(Metadata(name), IssuerSpec(oidc.url, "hyperion", **spec))


async def test_gateways_learn_tenants_keys_by_their_hashes_and_issuers(place: Place, oidc: OidcIssuer) -> None:  # noqa: F811
    async with looking(place) as people:
        audit = Audit(people.database, people.keeper.invalidate)
        row, secret = audit.create_key("acme", ["infer"], None, actor="ann")
        gone, _ = audit.create_key("acme", ["infer"], None, actor="ann")
        audit.revoke_key(gone.id, actor="ann")
        people.apply(Tenant(Metadata("acme"), TenantSpec(Limits(5.0), priority=3)), trusting(oidc, tenant="acme"))
        directory = await people.heed()
        assert [(tenant.name, tenant.limits, tenant.priority) for tenant in directory.tenants] == [
            ("acme", Limits(5.0), 3)
        ]
        assert [(key.id, key.tenant, key.scopes) for key in directory.keys] == [(row.id, "acme", ("infer",))]
        (issuer,) = directory.issuers
        assert (issuer.issuer, issuer.audience, issuer.tenant) == (oidc.url, "hyperion", "acme")
        await people.until(people.kids)
        assert people.kids() == ["rsa-1", "ec-1"]
        kept = place.home / "directory.json"
        await people.until(lambda: read_directory(kept) == people.keeper.directory)
        assert secret not in kept.read_text()
        assert kept.stat().st_mode & 0o777 == 0o600


async def test_a_key_that_is_rotated_or_revoked_is_another_directory(place: Place) -> None:  # noqa: F811
    async with looking(place) as people:
        audit = Audit(people.database, people.keeper.invalidate)
        old, _ = audit.create_key("acme", ["infer"], None, actor="ann")
        new, _, ending = audit.rotate_key(old.id, 60.0, actor="ann")
        assert {key.id: key.expires_at for key in (await people.heed()).keys} == {
            old.id: ending.expires_at,
            new.id: 0.0,
        }
        audit.revoke_key(old.id, actor="ann")
        directory = await people.heed()
        assert [key.id for key in directory.keys] == [new.id]
        assert read_directory(place.home / "directory.json") == directory, "the next life begins with the revoked key"


async def test_an_unknown_key_makes_control_ask_again_and_never_twice_within_ten_seconds(
    place: Place,  # noqa: F811
    oidc: OidcIssuer,
) -> None:
    async with looking(place) as people:
        people.apply(trusting(oidc))
        await people.until(people.kids)
        assert oidc.asked() == 1
        oidc.rotate(keep=False)
        people.now += SOON_S - 1
        for _ in range(100):
            people.keeper.refresh_soon(oidc.url)
            people.keeper.refresh_soon("https://other.example.com")
            people.keeper.look()
        await people.heed()
        assert (people.kids(), oidc.asked()) == (["rsa-1", "ec-1"], 1)
        people.now += 1
        await people.until(lambda: "rsa-2" in people.kids())
        assert (people.kids(), oidc.asked()) == (["rsa-2", "ec-2"], 2)
        people.now += SOON_S
        oidc.rotate()
        people.keeper.refresh_soon(oidc.url)
        await people.until(lambda: "rsa-3" in people.kids())
        assert people.kids() == ["rsa-2", "ec-2", "rsa-3", "ec-3"]


async def test_keys_are_read_again_at_the_issuers_interval(place: Place, oidc: OidcIssuer) -> None:  # noqa: F811
    async with looking(place) as people:
        people.apply(trusting(oidc, refresh_s=60.0))
        await people.until(people.kids)
        assert people.keeper.wait_s() <= 60
        oidc.rotate()
        people.now += 60
        assert people.keeper.wait_s() == 0
        await people.until(lambda: "ec-2" in people.kids())


@pytest.mark.parametrize("fault", ["stopped", "garbage", "no keys", "broken off"])
async def test_an_issuer_that_fails_leaves_its_last_keys_even_to_a_new_control_process(
    place: Place,  # noqa: F811
    oidc: OidcIssuer,
    fault: str,
) -> None:
    async with looking(place) as people:
        people.apply(trusting(oidc))
        await people.until(people.kids)
        state = people.keeper.state("corp")
        assert (state.kids, state.problem, state.read_at > 0) == (("rsa-1", "ec-1"), "", True)
        if fault == "stopped":
            oidc.stop()
        else:
            given = {"garbage": Given(200, b"\x00<html>"), "no keys": Given(200, b'{"keys":[]}')}
            oidc.given[JWKS] = given.get(fault, Given(200, b"", {"content-length": "900"}))
        people.now += SOON_S
        people.keeper.refresh_soon(oidc.url)
        await people.until(lambda: people.keeper.state("corp").problem)
        assert people.kids() == ["rsa-1", "ec-1"]
        assert len([line for line in people.said if "its last keys hold" in line]) == 1
        people.database.close()
    async with looking(place) as reborn:
        await reborn.heed()
        assert reborn.kids() == ["rsa-1", "ec-1"]
        await reborn.until(lambda: reborn.keeper.state("corp").problem)
        assert reborn.kids() == ["rsa-1", "ec-1"]
        if fault == "stopped":
            oidc.start()
        oidc.given.clear()
        oidc.rotate()
        reborn.now += SOON_S
        await reborn.until(lambda: "ec-2" in reborn.kids())
        assert reborn.keeper.state("corp").problem == ""


async def test_an_issuer_that_hangs_keeps_nobody_waiting(place: Place, oidc: OidcIssuer) -> None:  # noqa: F811
    oidc.pause_s = 600.0
    async with looking(place) as people:
        people.apply(*(trusting(oidc, f"slow-{number}", jwks_url=f"{oidc.url}/{number}") for number in range(12)))
        await people.heed()
        people.keeper.look()
        for number in range(12):
            await asyncio.to_thread(oidc.wait_asked, 1, f"/{number}")
        people.apply(Tenant(Metadata("late")))  # while twelve of them hang
        assert [tenant.name for tenant in (await people.heed()).tenants] == ["late"]
        assert people.keeper.directory is not None
        assert all(issuer.keys == () for issuer in people.keeper.directory.issuers)


async def test_keys_of_another_source_do_not_count(place: Place, oidc: OidcIssuer) -> None:  # noqa: F811
    async with looking(place) as people:
        people.apply(trusting(oidc))
        await people.until(people.kids)
        oidc.given["/elsewhere"] = Given(500, b"")
        people.apply(trusting(oidc, jwks_url=f"{oidc.url}/elsewhere"))
        await people.heed()
        assert people.kids() == []
        await people.until(lambda: "500" in people.keeper.state("corp").problem)
        people.apply(trusting(oidc))
        await people.until(people.kids)
        Tenants(people.database, people.keeper.invalidate, people.keeper.state).delete_issuer("corp", actor="ann")
        assert (await people.heed()).issuers == ()
        assert people.keeper.state("corp").kids == ()


async def test_nothing_private_is_told_or_kept(place: Place, oidc: OidcIssuer) -> None:  # noqa: F811
    keys = [*(key.private_jwk() for key in oidc.keys), {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}]
    oidc.given[JWKS] = Given(200, msgspec.json.encode({"keys": keys}))
    async with looking(place) as people:
        people.apply(trusting(oidc))
        await people.until(people.kids)
        assert people.kids() == ["rsa-1", "ec-1"]
        told = {name for issuer in people.keeper.directory.issuers for key in issuer.keys for name in key}  # type: ignore[union-attr]
        assert told == {"kty", "kid", "alg", "use", "n", "e", "crv", "x", "y"}


async def test_a_store_that_cannot_be_read_leaves_what_was_read_last(place: Place, monkeypatch: Any) -> None:  # noqa: F811
    async with looking(place) as people:
        people.apply(Tenant(Metadata("acme")))
        before = await people.heed()
        people.apply(Tenant(Metadata("other")))
        with monkeypatch.context() as broken:
            broken.setattr(people.database, "read", _fail)
            await people.until(lambda: people.said)
            assert people.keeper.directory is before
        people.now += 5
        assert [tenant.name for tenant in (await people.heed()).tenants] == ["acme", "other"]


def _fail() -> None:
    from hyperion.schema.errors import StorageFailed

    raise StorageFailed("the database cannot be used now")


def test_a_directory_that_cannot_be_read_is_nobodys(tmp_path: Path) -> None:
    assert read_directory(tmp_path / "nothing") == Directory()
    (tmp_path / "broken").write_text("{")
    assert read_directory(tmp_path / "broken") == Directory()
    os.mkdir(tmp_path / "folder")
    assert read_directory(tmp_path / "folder") == Directory()
