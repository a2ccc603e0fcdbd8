"""A real `hyperion serve` on free ports: started, waited for, asked, and stopped without a trace."""

import contextlib
import fcntl
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

ROLES = ("supervisor", "control", "gateway", "runner")
ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
LOOK_S = 0.02


class Process(NamedTuple):
    """A process as /proc knows it. Pids are used again; together with its start it is itself."""

    pid: int
    started_ticks: int
    parent: int
    session: int


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to outgoing connections. No other process of
    these tests is given them before this one has ended: they are bound later."""
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), 4_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if not _claim(port):
            continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError("no free ports between 20000 and 32000")


def _claim(port: int) -> bool:
    """Whether the port is this process's: a lock on a file of its number, until the process ends."""
    directory = Path(tempfile.gettempdir(), f"hyperion-test-ports-{os.getuid()}")
    directory.mkdir(exist_ok=True)
    file = os.open(directory / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return False
    _claimed.append(file)
    return True


_claimed: list[int] = []


class Served:
    """`hyperion serve PATHS… OPTIONS…` with a home of its own: ready once entered, gone once exited. `program` is a
    module of the tests that does the same and more."""

    def __init__(
        self,
        home: Path,
        *paths: Path | str,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        program: str = "hyperion",
    ):
        self.home = home
        self.port, self.grpc_port, self.admin_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self.grpc = f"127.0.0.1:{self.grpc_port}"
        self.log = home.parent / f"{home.name}.log"
        self._seen: set[tuple[int, int]] = set()
        self._command = [
            *(sys.executable, "-m", program, "serve", *map(str, paths), *options),
            *("--home", str(home), "--port", str(self.port), "--grpc-port", str(self.grpc_port)),
            *("--admin-port", str(self.admin_port)),
        ]
        self._env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        left = self.stop()
        if error is None:
            assert not left, f"these outlived SIGTERM: {left}\n{self.tail()}"

    def wait_until_ready(self) -> None:
        """Return once /v2/health/ready answers 200; raise with the log if the process ends or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"hyperion serve ended with {self.process.returncode}:\n{self.tail()}")
            try:
                if self.get("/v2/health/ready").status == 200:
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(LOOK_S)
        raise TimeoutError(f"not ready after {START_TIMEOUT_S} s:\n{self.tail()}")

    def wait_for_line(self, start: str) -> str:
        """The first line of the terminal's output that begins with `start`, once it is there."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for line in self.log.read_text(errors="replace").splitlines():
                if line.strip().startswith(start):
                    return line.strip()
            time.sleep(LOOK_S)
        raise TimeoutError(f"no line {start!r}…:\n{self.tail()}")

    def stop(self) -> list[str]:
        """SIGTERM to the supervisor; the command lines of what is left when it has ended, having killed them."""
        self.processes()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        left = []
        for process in self.processes():
            left.append(f"{process.pid} {command_line(process.pid)}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.process.wait()
        return left

    def processes(self) -> list[Process]:
        """Every living process of this server: of its session, a child of one of its own, or once seen as such."""
        living = {process for pid in all_pids() if (process := look_at(pid)) is not None}
        ours = {one for one in living if one.session == self.process.pid or (one.pid, one.started_ticks) in self._seen}
        while grown := {one for one in living - ours if one.parent in {of.pid for of in ours}}:
            ours |= grown
        self._seen |= {(one.pid, one.started_ticks) for one in ours}
        return sorted(ours)

    def pids(self, role: str) -> list[int]:
        """The processes of that role, by their command lines, as `ps` shows them."""
        assert role in ROLES, role
        return [one.pid for one in self.processes() if role in command_line(one.pid).split()]

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str, headers: dict[str, str] | None = None, port: int | None = None) -> Answer:
        return self.ask("GET", path, None, headers, port)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None, port: int | None = None) -> Answer:
        """POST bytes as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, content, {"content-type": "application/json", **(headers or {})}, port)

    def ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None, port: int | None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def look_at(pid: int) -> Process | None:
    """The process, or None if it has ended (a zombie has)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent, _, session, *rest = text[text.rindex(")") + 2 :].split()
    return None if state in "ZX" else Process(pid, int(rest[15]), int(parent), int(session))


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
