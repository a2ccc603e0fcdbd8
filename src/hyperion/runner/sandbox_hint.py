"""When something failed because of the sandbox: which rule it was, and how to loosen it. Called where errors of a model
are written to the log, never on the way of a request that works.
"""

import errno
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

from hyperion.runner.sandbox_kernel import control

_PR_GET_NO_NEW_PRIVS = 39
_NETWORK = "the sandbox does not allow network; set resources.network: true (network: true in hyperion.yaml)"
_PROCESSES = "the sandbox does not allow processes; set resources.processes: true (processes: true in hyperion.yaml)"
_OTHER = "the sandbox does not allow this call; see docs/sandbox.md"
_NETWORK_FILES = frozenset(("socket.py", "ssl.py", "connection.py", "client.py", "_socket.py"))
_PROCESS_FILES = frozenset(("subprocess.py", "popen_fork.py", "popen_spawn_posix.py", "util.py", "fork_exec.py"))


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
    file = Path(frames[-1].filename).name if frames else ""
    if isinstance(error, socket.gaierror):
        return _NETWORK
    if isinstance(error, ModuleNotFoundError) and error.name and _lies_here(error.name):
        return (
            f"{error.name} lies where the platform was started, which the sandbox does not let models read; put it "
            "beside model.py, install it, or name its directory with --model-paths"
        )
    if isinstance(error, KeyError) and file in ("os.py", "<frozen os>"):
        return "the sandbox passes on no variables that could hold secrets; set this one under env in hyperion.yaml"
    if not isinstance(error, OSError) or error.errno not in (errno.EPERM, errno.EACCES, errno.EXDEV):
        return ""
    if error.filename is not None and error.errno != errno.EPERM:
        return (
            "the sandbox lets a model read its own directory and what --model-paths names, and write to its private "
            "TMPDIR only"
        )
    line = (frames[-1].line or "") if frames else ""
    if file in _NETWORK_FILES or "socket" in line or "connect" in line:
        return _NETWORK
    if file in _PROCESS_FILES or any(word in line for word in ("fork", "exec", "spawn", "Popen", "subprocess")):
        return _PROCESSES
    return _OTHER


def _lies_here(name: str) -> bool:
    """Names can be looked up where nothing can be read."""
    top = name.partition(".")[0]
    return Path(top).is_dir() or Path(f"{top}.py").exists()
