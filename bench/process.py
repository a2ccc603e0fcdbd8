"""Start a server as a process group, account for its whole tree, and leave nothing behind.

Called by ``trial``. Only processes started here are ever signalled: the tree is found by descent (this process adopts
orphans) and by session, never by name.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from bench import client
from bench.peer import Peer, Start
from bench.workloads import Workload

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Server:
    """A running server under test: ``with Server(peer, workload, setting) as server``; ready on entry, gone on exit."""

    def __init__(self, peer: Peer, workload: Workload, setting: dict[str, object]) -> None:
        self.peer, self.workload, self.setting = peer, workload, setting

    def __enter__(self) -> Server:
        # Orphans of a daemonising server must become our children, or their time and their end would be lost.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.directory = Path(tempfile.mkdtemp(prefix="bench-"))
        self.port, self.grpc_port, self.spare_port = _free_ports(3)
        start = Start(self.workload, self.setting, self.port, self.grpc_port, self.spare_port, self.directory)
        command = self.peer.command(start)
        variables = {
            **os.environ,
            **dict.fromkeys(THREADS, "1"),
            **self.peer.variables(start),
        }
        self._log = open(self.directory / "log", "wb")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            command,
            cwd=self.directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_ready(begun + self.peer.start_timeout_s)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.start_s = time.monotonic() - begun
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        known = set(self.pids())
        self._signal({self.process.pid}, signal.SIGTERM)
        deadline = time.monotonic() + 8
        while known and time.monotonic() < deadline:
            known = {pid for pid in known | set(self.pids()) if _alive(pid)}
            time.sleep(0.1)
        while known:
            self._signal(known, signal.SIGKILL)
            time.sleep(0.1)
            known = {pid for pid in known | set(self.pids()) if _alive(pid)}
        self.process.wait()
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def pids(self) -> list[int]:
        """The server's processes: its descendants, and whoever is in its session."""
        parents: dict[int, int] = {}
        session: set[int] = set()
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
            if int(fields[3]) == self.process.pid:
                session.add(int(entry))
        tree = {self.process.pid} | session
        while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
            tree |= more
        return sorted(pid for pid in tree if pid in parents)

    def cpu_s(self) -> float:
        """Processor seconds the tree has used so far, user and system, with what its ended children used."""
        total = 0
        for pid in self.pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += sum(map(int, fields[11:15]))
        return total / _TICKS_PER_S

    def rss_mb(self) -> float:
        """Memory of the tree; shared pages are divided among those who share them (PSS), where the kernel says so."""
        total = 0.0
        for pid in self.pids():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
            except (OSError, StopIteration):
                continue
        return total

    def log_tail(self, size: int = 3000) -> str:
        self._log.flush()
        return (self.directory / "log").read_bytes()[-size:].decode(errors="replace")

    def _wait_ready(self, deadline: float) -> None:
        why = "no answer"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.peer.name} ended with {self.process.returncode}:\n{self.log_tail()}")
            why = client.first_problem(self.peer, self.workload, self.port, self.grpc_port)
            if not why:
                return
            time.sleep(0.2)
        raise RuntimeError(f"{self.peer.name} not ready in {self.peer.start_timeout_s} s ({why}):\n{self.log_tail()}")

    def _signal(self, pids: set[int], number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _alive(pid: int) -> bool:
    """True for a process that runs; zombies of ours are reaped on the way."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    """Ports free right now. Bound together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
