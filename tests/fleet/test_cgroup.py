"""Control groups: in the kernel's own where this machine allows it, and by the files of version 2 elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperion.fleet.cgroup import HEADROOM_BYTES, MOST_TASKS, Parents, find_parents, make_groups

MIB = 1 << 20


@pytest.fixture
def parents() -> Parents:
    try:
        return find_parents()
    except OSError as error:
        pytest.skip(f"hardware: no control groups can be made here: {error}")


def run_in(paths: tuple[Path, ...], source: str) -> subprocess.CompletedProcess[str]:
    join = "".join(f"open({str(path / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n" for path in paths)
    command = [sys.executable, "-c", f"import os\n{join}{source}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_threads_in_a_group_are_counted(parents: Parents) -> None:
    groups = make_groups(parents, f"hyperion-test-{os.getpid()}", 0)
    try:
        source = f"""
import threading
threading.stack_size(64 << 10)
end, started = threading.Event(), 0
try:
    for started in range({2 * MOST_TASKS}):
        threading.Thread(target=end.wait).start()
except RuntimeError:
    print(started)
end.set()
"""
        assert 0 < int(run_in(groups.paths, source).stdout) < MOST_TASKS
    finally:
        groups.remove()


def test_shared_memory_in_a_group_counts_and_ends_who_takes_too_much(parents: Parents) -> None:
    groups = make_groups(parents, f"hyperion-test-{os.getpid()}", 64 * MIB)
    try:
        source = f"""
import mmap
area = mmap.mmap(-1, {1024 * MIB})
for at in range(0, len(area), 4096):
    area[at] = 1
"""
        assert run_in(groups.paths, source).returncode == -9
    finally:
        groups.remove()
    assert not any(path.exists() for path in groups.paths)


def test_groups_tell_the_child_of_themselves(parents: Parents) -> None:
    groups = make_groups(parents, f"hyperion-test-{os.getpid()}", 0)
    try:
        (told,) = groups.variable().values()
        assert tuple(map(Path, told.split(os.pathsep))) == groups.paths
    finally:
        groups.remove()


def make_version_2(root: Path, controllers: str, enabled: str) -> Path:
    group = root / "system.slice" / "hyperion.service"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text(controllers)
    (group / "cgroup.subtree_control").write_text(enabled)
    membership = root / "membership"
    membership.write_text("0::/system.slice/hyperion.service\n")
    return membership


def test_version_2_makes_room_below_its_own_group(tmp_path: Path) -> None:
    membership = make_version_2(tmp_path, "cpu memory pids\n", "\n")
    group = tmp_path / "system.slice" / "hyperion.service"
    assert find_parents(tmp_path, membership) == Parents(group, group, 2)
    assert (group / "hyperion-supervisor" / "cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_version_2_finds_what_a_predecessor_prepared(tmp_path: Path) -> None:
    membership = make_version_2(tmp_path, "memory pids\n", "memory pids\n")
    group = tmp_path / "system.slice" / "hyperion.service"
    (group / "hyperion-supervisor").mkdir()
    membership.write_text("0::/system.slice/hyperion.service/hyperion-supervisor\n")
    parents = find_parents(tmp_path, membership)
    assert parents == Parents(group, group, 2)
    groups = make_groups(parents, "one", 100 * MIB)
    assert (group / "one" / "pids.max").read_text() == str(MOST_TASKS)
    assert (group / "one" / "memory.max").read_text() == str(100 * MIB + HEADROOM_BYTES)
    assert (group / "one" / "memory.swap.max").read_text() == "0"
    assert groups.paths == (group / "one",)


def test_a_group_that_was_not_delegated_is_left_as_it_is(tmp_path: Path) -> None:
    membership = make_version_2(tmp_path, "cpu\n", "\n")
    with pytest.raises(OSError, match="not delegated here: memory, pids"):
        find_parents(tmp_path, membership)


def test_a_process_without_a_group_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("3:cpu:/\n")
    with pytest.raises(OSError, match="no control group"):
        find_parents(tmp_path, tmp_path / "membership")


def test_groups_of_a_killed_supervisor_are_removed_by_the_next(parents: Parents) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (gone.pid, os.getpid()):
        (parents.tasks / f"hyperion-{pid}-test-1").mkdir()
    find_parents()
    assert not (parents.tasks / f"hyperion-{gone.pid}-test-1").exists()
    (parents.tasks / f"hyperion-{os.getpid()}-test-1").rmdir()
