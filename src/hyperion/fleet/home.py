"""The home directory and the listening sockets: made once, by the process that will be the supervisor.

Never here: what lies in the home (that is `store`), children.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from msgspec import Struct

from hyperion.fleet.scratch import remove_tree
from hyperion.schema.errors import InvalidConfig

# A Unix socket's path has 107 bytes; the longest name in the run directory is "r-" + 16 + ".sock" + ".1234567".
_MAX_RUN_DIR_BYTES = 107 - 32
BACKLOG = 4096


class Home(Struct, frozen=True):
    """A home that this process owns: `lock_fd` is locked for as long as it stays open."""

    path: Path
    run_dir: Path
    lock_fd: int


def claim_home(path: Path) -> Home:
    """Make the home and its run directory (both 0700), take its lock, and remove what a dead predecessor left in there.

    Raises `InvalidConfig` where another process owns this home or where it cannot be made.
    """
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        (path / "credentials").mkdir(mode=0o700, exist_ok=True)  # for people: nothing writes there
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InvalidConfig(f"home {path}: {error.strerror}; choose another with --home") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock_fd, 32).decode("ascii", "replace").strip()
        os.close(lock_fd)
        raise InvalidConfig(
            f"home {path} is in use by process {owner or '?'}: stop it, or choose another home with --home"
        ) from None
    os.ftruncate(lock_fd, 0)
    os.write(lock_fd, b"%d\n" % os.getpid())
    return Home(path, _make_run_dir(path), lock_fd)


def find_owner(path: Path) -> str:
    """The process that owns the home now, "" where none does."""
    try:
        lock_fd = os.open(path / "lock", os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        return os.read(lock_fd, 32).decode("ascii", "replace").strip() or "?"
    finally:
        os.close(lock_fd)


def find_run_dir(home: Path) -> Path:
    """Return where the sockets of a home are: `HOME/run`, or, where that is too long for a Unix socket, a private
    directory among the temporary files."""
    run_dir = home.absolute() / "run"
    if len(os.fsencode(run_dir)) <= _MAX_RUN_DIR_BYTES:
        return run_dir
    import hashlib  # both are slow to import, and rarely needed
    import tempfile

    digest = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"hyperion-{os.getuid()}-{digest}"


def _make_run_dir(home: Path) -> Path:
    run_dir = find_run_dir(home)
    with contextlib.suppress(FileExistsError):
        run_dir.mkdir(mode=0o700)
    found = run_dir.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InvalidConfig(f"{run_dir} is not a directory of this user; remove it, or choose another --home")
    run_dir.chmod(0o700)
    for leftover in run_dir.iterdir():
        remove_tree(leftover)  # sockets, and the private directories of runners
    return run_dir


def listen_tcp(host: str, port: int, option: str) -> socket.socket:
    """Return a listening TCP socket; port 0 takes any free one. `option` is the flag that the error message names.

    Raises `InvalidConfig`.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, OverflowError) as error:
        raise InvalidConfig(f"{host}:{port} is no address to listen on ({error}); see {option}") from error
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise InvalidConfig(f"port {port} on {host} is in use: choose another with {option}") from error
        raise InvalidConfig(f"cannot listen on {host}:{port}: {error.strerror}; see {option}") from error
    return bound


def listen_unix(path: Path) -> socket.socket:
    """Return a listening Unix socket that only this user can open, in place of whatever was there.

    It gets its name only when it listens: whoever finds the name can connect.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(temporary))
    temporary.chmod(0o600)
    bound.listen(128)
    os.replace(temporary, path)
    return bound
