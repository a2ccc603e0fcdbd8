"""The control process as it is, but that a test may kill it at a point of a write.

Every fault point that it passes becomes a line of `passed` in the directory that HYPERION_TEST_FAULTS names. When the
file `kill` there says `POINT NUMBER`, the process removes the file and kills itself at that pass of that point, counted
from when the file was there. Production knows nothing of either.
"""

import functools
import os
import signal
import sys
from pathlib import Path

from hyperion.cli.process import main
from hyperion.store import database

VARIABLE = "HYPERION_TEST_FAULTS"


class Faults:
    """Called with each point, by whoever writes; writers are serial."""

    def __init__(self, directory: Path) -> None:
        self._kill = directory / "kill"
        self._passed = os.open(directory / "passed", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._wanted = ""
        self._count = 0

    def __call__(self, point: str) -> None:
        os.write(self._passed, f"{point}\n".encode())
        wanted = self._kill.read_text() if self._kill.exists() else ""
        if wanted != self._wanted:
            self._wanted, self._count = wanted, 0
        name, _, number = wanted.partition(" ")
        if name != point:
            return
        self._count += 1
        if self._count == int(number):
            self._kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    faults = Faults(Path(os.environ[VARIABLE]))
    database.open_home = functools.partial(database.open_home, fault=faults)
    sys.exit(main())
