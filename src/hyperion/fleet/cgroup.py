"""A control group for each runner, where this process may make one: bounds on memory and on threads that the kernel
keeps for the whole of it, shared memory included.

Called by the supervisor; the runner enters its groups itself, before it reads its model. Version 2 needs a group that
was delegated to Hyperion (systemd: `Delegate=yes`) or a container of its own; version 1 needs write permission in its
hierarchies. Without either nothing is made, and `hyperion doctor` says so.
"""

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

GROUPS_VARIABLE: Final = "HYPERION_GROUPS"
MOST_TASKS: Final = 1024
HEADROOM_BYTES: Final = 256 << 20  # as for RLIMIT_DATA: what is resident besides the model
_MOUNT: Final = Path("/sys/fs/cgroup")
_TRIES, _PAUSE_S = 40, 0.05
_OWN_LEAF: Final = "hyperion-supervisor"


class Parents(Struct, frozen=True):
    """Where groups for runners are made: the directory that limits memory and the one that limits tasks (the same one
    in version 2)."""

    memory: Path
    tasks: Path
    version: int


class Groups(Struct, frozen=True):
    """The directories of one runner's groups; () where there are none."""

    paths: tuple[Path, ...] = ()

    def variable(self) -> Mapping[str, str]:
        """How the runner is told, as environment variables."""
        return {GROUPS_VARIABLE: os.pathsep.join(map(str, self.paths))} if self.paths else {}

    def remove(self) -> None:
        """End what is left in them and remove them, within a second or two: the dying have to be gone first. Blocks."""
        for path in self.paths:
            with contextlib.suppress(OSError):
                (path / "cgroup.kill").write_text("1")
            for _ in range(_TRIES):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(_PAUSE_S)
                else:
                    break


def find_parents(mount: Path = _MOUNT, membership: Path = Path("/proc/self/cgroup")) -> Parents:
    """Where this process may make groups. Version 2 moves this process into a leaf of its group first, because a group
    with processes of its own cannot limit those below it. Raises OSError, saying why not."""
    lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    own = {name: path for _, names, path in lines for name in names.split(",")}
    if {"memory", "pids"} <= own.keys():
        memory, tasks = (_inside(mount / name, own[name]) for name in ("memory", "pids"))
        for path in (memory, tasks):
            _try_group(path)
        return Parents(memory, tasks, 1)
    if "" not in own:
        raise OSError(errno.ENOENT, "this process is in no control group")
    group = _inside(mount, own[""])
    if group.name == _OWN_LEAF:
        group = group.parent
    _delegate(group)
    return Parents(group, group, 2)


def _inside(mount: Path, path: str) -> Path:
    """The group's directory; in a container the path may be the host's, and then what is mounted is the group."""
    found = mount / path.lstrip("/")
    return found if found.is_dir() else mount


def _try_group(parent: Path) -> None:
    """Make a group and remove it, and those that nobody will remove. Raises OSError."""
    trial = parent / f"hyperion-trial-{os.getpid()}"
    trial.mkdir()
    trial.rmdir()
    for left in parent.glob("hyperion-[0-9]*-*"):
        # Of a supervisor that was killed. A group that is still in use cannot be removed.
        if not Path(f"/proc/{left.name.split('-')[1]}").exists():
            with contextlib.suppress(OSError):
                left.rmdir()


def _delegate(group: Path) -> None:
    """Let groups below `group` limit memory and tasks. Raises OSError; then everything is as it was."""
    wanted = {"memory", "pids"}
    missing = wanted - set((group / "cgroup.controllers").read_text().split())
    if missing:
        raise OSError(errno.ENOENT, f"controllers not delegated here: {', '.join(sorted(missing))}")
    if wanted <= set((group / "cgroup.subtree_control").read_text().split()):
        _try_group(group)
        return
    leaf = group / _OWN_LEAF
    leaf.mkdir(exist_ok=True)
    try:
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
        (group / "cgroup.subtree_control").write_text("+memory +pids")
    except OSError:
        with contextlib.suppress(OSError):
            (group / "cgroup.procs").write_text(str(os.getpid()))
            leaf.rmdir()
        raise


def make_groups(parents: Parents, name: str, memory_bytes: int) -> Groups:
    """Groups of this name with at most `memory_bytes` and the headroom (0: no limit) and `MOST_TASKS`.

    Raises OSError."""
    paths = tuple(dict.fromkeys(parent / name for parent in (parents.memory, parents.tasks)))
    for path in paths:
        path.mkdir(exist_ok=True)
    memory, tasks = paths[0], paths[-1]
    (tasks / "pids.max").write_text(str(MOST_TASKS))
    if memory_bytes:
        most = memory_bytes + HEADROOM_BYTES
        limit, swap, most_swap = (
            ("memory.max", "memory.swap.max", 0)
            if parents.version == 2
            else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", most)  # of both together
        )
        (memory / limit).write_text(str(most))
        with contextlib.suppress(OSError):  # not there where the kernel does not count it
            (memory / swap).write_text(str(most_swap))
    return Groups(paths)
