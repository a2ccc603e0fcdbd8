"""Threads and memory of a runner's process, each tried in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperion.runner.threads import NICE, limit_threads, resolve_threads, usable_cores


def run_python(source: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", source]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_native_libraries_take_the_threads_that_were_set_before_their_import() -> None:
    pytest.importorskip("threadpoolctl", reason="needs threadpoolctl")
    source = """
from hyperion.runner.threads import limit_threads
limit_threads(1)
import numpy
from threadpoolctl import threadpool_info
print({(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()})
"""
    assert run_python(source) == "{('blas', 1)}"


def test_zero_threads_means_the_cores_that_this_process_may_use() -> None:
    environment: dict[str, str] = {"OMP_WAIT_POLICY": "ACTIVE"}
    assert limit_threads(0, environment) == resolve_threads(0) == usable_cores()
    assert environment["OMP_NUM_THREADS"] == str(usable_cores())
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("quota", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("99900000 100000", None), ("max 100000", None)]
)
def test_a_container_counts_only_the_cores_of_its_quota(tmp_path: Path, quota: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


def test_resident_memory_grows_with_what_is_written() -> None:
    source = """
import os
from hyperion.runner.memory import resident_bytes
before = resident_bytes()
held = bytearray(os.urandom(1)) * (64 << 20)
print(resident_bytes() - before > 48 << 20, len(held) == 64 << 20)
"""
    assert run_python(source) == "True True"


def test_an_allocation_far_over_the_limit_fails_and_one_under_it_does_not() -> None:
    source = """
from hyperion.runner.memory import HEADROOM_BYTES, limit_memory
limit_memory(256 << 20)
fits = bytearray(128 << 20)
try:
    bytearray((256 << 20) + HEADROOM_BYTES)
except MemoryError:
    print("MemoryError")
"""
    assert run_python(source) == "MemoryError"


def test_a_runner_that_is_ready_gives_way_with_all_its_threads() -> None:
    source = """
import os, threading
from hyperion.runner.threads import give_way
begun, end = threading.Event(), threading.Event()
threading.Thread(target=lambda: (begun.set(), end.wait())).start()
begun.wait()
first = threading.get_native_id()
os.setpriority(os.PRIO_PROCESS, first, 9)
give_way()
print(sorted(os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")))
end.set()
"""
    assert run_python(source) == str([max(NICE, os.getpriority(os.PRIO_PROCESS, 0)), 9])
