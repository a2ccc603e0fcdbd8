"""The acceptance run of batch scoring, short: a run that is killed loses, doubles and changes no row."""

from pathlib import Path

import pytest

from tests.e2e.batch_scoring import kill_often

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow, pytest.mark.chaos]


def test_a_run_that_is_killed_again_and_again_writes_every_row_once(tmp_path: Path) -> None:
    report = kill_often(rows=120_000, chunk_rows=4_000, kills=2, directory=tmp_path)
    assert report.kills > 0, "it came to its end before it was killed"
    assert (report.lost_rows, report.doubled_rows, report.other_answers) == (0, 0, 0)
    assert report.peak_bytes < 1 << 30
