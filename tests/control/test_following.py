"""Who does not lead serves what the leader decided, and decides nothing; and a store that fails takes nothing away."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperion.schema.errors import StorageFailed
from hyperion.schema.resource import Endpoint, EndpointSpec, Metadata, Rollout
from hyperion.store.database import no_fault
from hyperion.store.versions.push import Details, prepare_push, put_files
from tests.e2e.crash_history import BROKEN, NAME, Life, World

AT_ONCE = Rollout("all-at-once", standby_s=0.0)


class Platform(Life):
    """A life with a world of its own on the store that all platforms of a test share."""

    def __init__(self, home: Path, name: str, fault: Callable[[str], None] = no_fault) -> None:
        super().__init__(home, "", fault)
        self.path, self.world = home / f"{name}.json", World()

    def look_for(self, looks: int) -> None:
        async def looking() -> None:
            for _ in range(looks):
                await self.look()

        asyncio.run(looking())

    def release(self, version: str) -> None:
        """What a leader is told, and what it makes of it."""
        folder = self.home / f"v{version}"
        folder.mkdir()
        (folder / "model.py").write_text(f"class Model:\n    number = {version}\n")
        pushed = prepare_push(NAME, version, folder, Details(git_commit="", created_at=1.0))
        put_files(self.blobs, pushed.sources)
        self.desk.models.put(pushed.manifest, actor="ann")
        self.desk.apply([Endpoint(Metadata(NAME), EndpointSpec(f"{NAME}@{version}", rollout=AT_ONCE))], actor="ann")
        self.look_for(6)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return home


def test_a_follower_serves_what_the_leader_decided_and_writes_no_decision(home: Path) -> None:
    written: list[str] = []
    leader, follower = Platform(home, "leader"), Platform(home, "follower", written.append)
    leader.releases.lead(None)
    leader.release("1")
    follower.look_for(8)
    assert follower.world.serving == leader.world.serving == {"1": 1}
    leader.release("2")
    follower.look_for(8)
    assert follower.world.serving == leader.world.serving == {"2": 1}
    assert sorted(one.version for one in follower.world.replicas.values()) == ["2"]
    leader.desk.delete_endpoint(NAME, actor="ann")
    leader.look_for(4)
    follower.look_for(8)
    assert (follower.world.serving, follower.world.replicas) == ({}, {})
    assert not {"rollout.put", "ledger.entry"} & set(written)  # it keeps what its own gateways sampled


def test_a_follower_that_is_behind_serves_on_what_it_has_until_the_new_version_is_ready(home: Path) -> None:
    leader, follower = Platform(home, "leader"), Platform(home, "follower")
    leader.releases.lead(None)
    leader.release("1")
    follower.look_for(8)
    leader.release("2")  # without a warm standby: the leader runs version 1 no more
    served = []
    for _ in range(10):
        follower.look_for(1)
        served.append(sorted(follower.world.serving))
    assert [] not in served
    assert served[-1] == ["2"]


def test_a_follower_does_not_serve_a_version_that_was_halted_elsewhere(home: Path) -> None:
    leader, follower = Platform(home, "leader"), Platform(home, "follower")
    leader.releases.lead(None)
    leader.release("1")
    leader.release(BROKEN)
    assert leader.state() == ("halted", BROKEN)
    follower.look_for(8)
    assert follower.world.serving == {"1": 1}


def test_who_takes_the_lead_decides_from_what_the_store_has(home: Path) -> None:
    first, second = Platform(home, "first"), Platform(home, "second")
    first.releases.lead(None)
    first.release("1")
    second.look_for(4)
    first.releases.follow()
    second.releases.lead(None)
    second.release("2")
    first.look_for(8)
    assert second.state() == ("promoted", "2")
    assert first.world.serving == second.world.serving == {"2": 1}


def test_as_long_as_the_store_was_never_read_nobody_knows_what_is_to_be(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform(home, "one")
    platform.releases.lead(None)
    read = platform.releases.book.read

    def fail() -> None:
        raise StorageFailed("the database cannot be used now")

    monkeypatch.setattr(platform.releases.book, "read", fail)
    assert asyncio.run(platform.releases.look((), {}, {})) is None
    monkeypatch.setattr(platform.releases.book, "read", read)
    platform.now += 1.0
    assert asyncio.run(platform.releases.look((), {}, {})) == ()


def test_where_a_decision_cannot_be_saved_the_last_one_goes_on(home: Path) -> None:
    failing = [False]

    def fault(point: str) -> None:
        if failing[0] and point == "rollout.put":
            raise StorageFailed("the disk is full")

    platform = Platform(home, "one", fault)
    platform.releases.lead(None)
    platform.release("1")
    failing[0] = True
    platform.release("2")
    assert platform.world.serving == {"1": 1}
    assert platform.state() == ("promoted", "1")
    assert any("the disk is full" in line for line in platform.log)
    failing[0] = False
    platform.look_for(6)
    assert platform.state() == ("promoted", "2")
    assert platform.world.serving == {"2": 1}
