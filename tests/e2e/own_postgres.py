"""A PostgreSQL server of this test's own, on a port of its own, to be killed and brought back."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.e2e.served import free_ports
from tests.services import needs_module, needs_program

START_S = 30.0


class OwnPostgres:
    """`kill` is SIGKILL for all of it; `start` recovers what it had committed."""

    def __init__(self, directory: Path) -> None:
        self._bin = Path(os.path.realpath(needs_program("postgres", package="postgresql"))).parent
        self._data = directory / "data"
        self.port = free_ports(1)[0]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        if _user() is not None:
            shutil.chown(directory, "postgres")
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync")

    def start(self) -> None:
        """Returns once it takes connections."""
        psycopg = needs_module("psycopg", extra="postgres")
        options = ("-p", str(self.port), "-h", "127.0.0.1", "-k", "")
        command = [str(self._bin / "postgres"), "-D", str(self._data), *options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, user=_user()
        )
        deadline = time.monotonic() + START_S
        while True:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=3).close()
                return
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """All its processes at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, user=_user())


def _user() -> int | None:
    """Whose it is: not root's, as which it refuses to run."""
    return pwd.getpwnam("postgres").pw_uid if os.getuid() == 0 else None


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A running server, gone after the block."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        server = OwnPostgres(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.kill()
