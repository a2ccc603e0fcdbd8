"""Who decides on batch jobs: a leader, and under its fence."""

from pathlib import Path

import pytest

from hyperion.control.jobs.batches import Batches
from hyperion.fleet.local import LocalFleet
from hyperion.fleet.messages import Children
from hyperion.schema.config import ControlConfig
from hyperion.schema.errors import Fenced
from hyperion.schema.resource import BatchJob, BatchJobSpec, Metadata
from hyperion.store import batch_runs, resources
from hyperion.store.database import open_home
from hyperion.store.leadership import Leadership

JOB = BatchJob(Metadata("score"), BatchJobSpec("/in.csv", "/out.csv", model="m@1"))


class NoChildren(LocalFleet):
    """A supervisor that nothing runs under."""

    async def watch(self, since: int = -1, wait_s: float = 0.0) -> Children:
        return Children(1, ())


async def test_a_leader_that_was_followed_by_another_writes_nothing_more(tmp_path: Path) -> None:
    database = open_home(tmp_path)
    try:
        first, second = Leadership(database, "control"), Leadership(database, "control")
        fence = first.try_lead()
        first.resign()
        newer = second.try_lead()
        assert fence is not None
        assert newer is not None
        with database.write() as tx:
            resources.put(tx, JOB, actor="ada")
        standing: list[tuple[bool, int | None]] = [(True, fence)]  # it has not heard of it yet
        config = ControlConfig(str(tmp_path), str(tmp_path))
        batches = Batches(database, config, NoChildren(tmp_path / "none"), lambda: standing[0], lambda _: None)
        with pytest.raises(Fenced):
            await batches.look()
        with database.read() as tx:
            assert batch_runs.all_of(tx) == {}
        standing[0] = (False, None)
        await batches.look()
        with database.read() as tx:
            assert batch_runs.all_of(tx) == {}
        standing[0] = (True, newer)
        await batches.look()
        with database.read() as tx:
            assert batch_runs.all_of(tx)["score"].state == "queued"
        second.resign()
    finally:
        database.close()
