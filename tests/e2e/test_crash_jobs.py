"""Whatever dies, every job ends once, and no idempotent call runs again after it was acknowledged.

Samples; `python -m tests.e2e.crash_jobs` runs for minutes with ten thousand jobs, `crash_postgres` kills the database.
"""

from pathlib import Path

import pytest

from tests.e2e.crash_jobs import run_drill
from tests.e2e.crash_postgres import run_postgres_drill
from tests.services import needs_postgres

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(240)]


def test_processes_that_run_jobs_and_idempotent_calls_are_killed(tmp_path: Path) -> None:
    seen = run_drill(tmp_path, 60, 2.0, 7, victims=("gateway", "runner", "control", "runner"))
    assert seen["problems"] == []
    assert seen["jobs"] == 60
    assert seen["calls"] > 20
    assert seen["kills"] == {"gateway": 1, "runner": 2, "control": 1}
    assert seen["ran_after_acknowledged"] == 0


def test_the_database_is_killed_and_nobody_but_those_who_wait_for_it_notices(tmp_path: Path) -> None:
    needs_postgres()
    seen = run_postgres_drill(tmp_path, 80, 2, counted=True)
    assert seen["problems"] == []
    assert seen["jobs"] == 80
    assert seen["kills"]["postgresql"] == 2
