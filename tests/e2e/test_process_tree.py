"""Who is who in `ps`, and that everything goes with the supervisor."""

import os
import signal
import time
from pathlib import Path
from typing import Any

SUMS = Path(__file__).parent / "models" / "sums"


def test_each_process_says_its_role_in_its_command_line(serve: Any) -> None:
    served = serve(SUMS, options=("--gateway-workers", "2", "--replicas", "2"))
    assert len(served.pids("control")) == 1
    assert len(served.pids("gateway")) == 2
    assert len(served.pids("runner")) == 2
    assert len(served.processes()) == 6


def test_nothing_outlives_a_killed_supervisor(serve: Any) -> None:
    served = serve(SUMS)
    before = served.processes()
    assert len(before) == 4
    os.kill(served.process.pid, signal.SIGKILL)
    served.process.wait()
    deadline = time.monotonic() + 50
    while served.processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert served.processes() == []


def test_sigterm_ends_it_with_exit_code_0(serve: Any) -> None:
    served = serve(SUMS)
    assert served.stop() == []
    assert served.process.returncode == 0
