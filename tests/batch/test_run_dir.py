"""Directories of runs that were killed go with the next run; those in use stay."""

import signal
import subprocess
import sys
from pathlib import Path

from hyperion.batch.run_dir import open_run_dir

_HOLD = """
import sys, time
from pathlib import Path
from hyperion.batch.run_dir import open_run_dir
with open_run_dir(Path(sys.argv[1])) as path:
    (path / "b.sock").touch()
    print(path, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        held = Path(other.stdout.readline().strip())
        with open_run_dir(tmp_path) as mine:
            assert held.is_dir()
            assert mine.is_dir()
        assert not mine.exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
    with open_run_dir(tmp_path):
        assert not held.exists()
    assert not list(tmp_path.iterdir())
