"""The acceptance run of batch scoring, short: a run that is killed loses, doubles and changes no row."""

from pathlib import Path

import pytest

from tests.e2e.batch_scoring import run

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow, pytest.mark.chaos]


def test_a_run_that_is_killed_again_and_again_writes_every_row_once(tmp_path: Path) -> None:
    report = run(rows=1_500_000, kills=3, hidden=(512, 256), rounds=1, directory=tmp_path)
    assert report.kills > 0, "it was never killed while it ran"
    assert (report.lost_rows, report.doubled_rows, report.other_answers) == (0, 0, 0)
    assert report.peak_bytes < 1 << 30
