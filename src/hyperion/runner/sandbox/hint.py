"""When something failed because of the sandbox: which rule it was, and how to loosen it. Called where errors of a model
are written to the log, never on the way of a request that works.
"""

import errno
import os
import resource
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

from hyperion.fleet.cgroup import MOST_TASKS
from hyperion.runner.sandbox.kernel import control
from hyperion.runner.sandbox.shm import SHARED_MEMORY

_PR_GET_NO_NEW_PRIVS = 39
_NETWORK = "the sandbox does not allow network; set resources.network: true (network: true in hyperion.yaml)"
_PROCESSES = "the sandbox does not allow processes; set resources.processes: true (processes: true in hyperion.yaml)"
_SHARED_MEMORY = "the sandbox does not allow shared memory between processes; set resources.processes: true"
_UNIX_SOCKETS = (
    "the sandbox allows no Unix sockets, which managers and the start method forkserver need; use spawn or fork, and "
    "queues or pipes"
)
_FILES = (
    "the sandbox lets a model read its own directory and what --model-paths names, and write to its private TMPDIR only"
)
_THREADS = f"the sandbox allows a replica {MOST_TASKS:,} threads and processes, whose stacks count against memory_mb"
_OTHER = "the sandbox does not allow this call; see docs/sandbox.md"
_NETWORK_FILES = frozenset(("socket.py", "ssl.py", "connection.py", "client.py", "_socket.py"))
_PROCESS_FILES = frozenset(("subprocess.py", "popen_fork.py", "popen_spawn_posix.py", "util.py", "fork_exec.py"))
_UNIX_SOCKET_FILES = frozenset(("forkserver.py", "managers.py"))


def explain_denial(error: BaseException) -> str:
    """What to add to the message of `error`: "; " and a hint where the sandbox is the likely reason, else ""."""
    if control(_PR_GET_NO_NEW_PRIVS) != 1:
        return ""
    for one in _chain(error):
        hint = _hint_for(one)
        if hint:
            return f"; {hint}"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that led to it: libraries wrap what the system told them."""
    for _ in range(16):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _hint_for(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    files = [Path(frame.filename).name for frame in frames]
    file = files[-1] if files else ""
    if isinstance(error, socket.gaierror):
        return "" if _has_network() else _NETWORK
    if isinstance(error, ModuleNotFoundError) and error.name and _lies_here(error.name):
        return (
            f"{error.name} lies where the platform was started, which the sandbox does not let models read; put it "
            "beside model.py, install it, or name its directory with --model-paths"
        )
    if isinstance(error, KeyError) and file in ("os.py", "<frozen os>"):
        return "the sandbox passes on no variables that could hold secrets; set this one under env in hyperion.yaml"
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _THREADS
    if isinstance(error, MemoryError):
        return _explain_memory()
    if isinstance(error, EOFError) and _UNIX_SOCKET_FILES.intersection(files):  # the other side could make none
        return _UNIX_SOCKETS
    return _hint_for_call(error, files, frames[-1].line or "" if frames else "") if isinstance(error, OSError) else ""


def _hint_for_call(error: OSError, files: list[str], line: str) -> str:
    file = files[-1] if files else ""
    if error.errno in (errno.EFBIG, errno.EMFILE):
        return _explain_limit(error.errno)
    if error.errno not in (errno.EPERM, errno.EACCES, errno.EXDEV):
        return ""
    if file == "shared_memory.py" or str(error.filename).startswith(SHARED_MEMORY):
        return _SHARED_MEMORY
    if error.filename is not None and error.errno != errno.EPERM:
        return _FILES
    if _UNIX_SOCKET_FILES.intersection(files) and _has_processes():
        return _UNIX_SOCKETS
    if file in _NETWORK_FILES or "socket" in line or "connect" in line:
        return _UNIX_SOCKETS if _has_network() else _NETWORK
    if file in _PROCESS_FILES or any(word in line for word in ("fork", "exec", "spawn", "Popen", "subprocess")):
        return _OTHER if _has_processes() else _PROCESSES
    return _OTHER


def _explain_memory() -> str:
    most = resource.getrlimit(resource.RLIMIT_DATA)[0]
    none = most == resource.RLIM_INFINITY
    return "" if none else f"a replica may have {most >> 20:,} MiB here; see resources.memory_mb"


def _explain_limit(code: int) -> str:
    if code == errno.EMFILE:
        return f"the sandbox allows {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} open files"
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return f"the sandbox allows files of {most >> 20} MiB; resources.scratch_mb allows more"


def _has_network() -> bool:
    """Asks for what the model asked for: it alone knows what it was given."""
    try:
        socket.socket(socket.AF_INET).close()
    except OSError:
        return False
    return True


def _has_processes() -> bool:
    """A program without a name: refused where there are to be none, else not found."""
    try:
        os.execv("", ["-"])  # noqa: S606, S607
    except OSError as error:
        return error.errno == errno.ENOENT


def _lies_here(name: str) -> bool:
    """Names can be looked up where nothing can be read."""
    top = name.partition(".")[0]
    return Path(top).is_dir() or Path(f"{top}.py").exists()
