"""Attempts to use up what all share. Those that succeed would hurt the machine, so each stops at a bound that is far
beyond what it is allowed."""

import mmap
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from .files import Around, Stopped, scratch

MIB = 1 << 20


def bomb(around: Around) -> str:
    children = 0
    for _ in range(2_000):
        try:
            pid = os.fork()
        except OSError:
            continue
        if pid == 0:
            signal.pause()
        children += 1
    if not children:
        raise Stopped("not one of 2,000 forks")
    return f"{children} children"


def many_threads(around: Around) -> str:
    end = threading.Event()
    threading.stack_size(64 << 10)
    started = []
    try:
        for _ in range(3_000):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    finally:
        end.set()
        threading.stack_size(0)
        for thread in started:
            thread.join()
    return f"{len(started)} threads"


def hold_memory(around: Around) -> str:
    held = []
    while len(held) < 64:
        held.append(bytearray(os.urandom(1)) * (64 * MIB))
    return f"{len(held) * 64} MiB"


def hold_shared_memory(around: Around) -> str:
    area = mmap.mmap(-1, 3072 * MIB)
    for at in range(0, len(area), 4096):
        area[at] = 1
    return "3 GiB"


def one_large_file(around: Around) -> str:
    path = scratch() / "large"
    try:
        with path.open("wb") as file:
            for _ in range(256):
                file.write(bytes(MIB))
        return "256 MiB in one file"
    finally:
        path.unlink(missing_ok=True)


def many_large_files(around: Around) -> str:
    for number in range(8):
        (scratch() / f"part{number}").write_bytes(bytes(32 * MIB))
    threading.Event().wait(15)
    return "256 MiB in eight files, for 15 s"


def many_small_files(around: Around) -> str:
    for number in range(40_000):
        (scratch() / str(number)).touch()
    threading.Event().wait(15)
    return "40,000 files, for 15 s"


def deep_directories(around: Around) -> str:
    """Nothing is to be stopped: a path too long to name must not keep the supervisor from cleaning up."""
    home = os.getcwd()
    try:
        os.chdir(scratch())
        for _ in range(3_000):
            os.mkdir("d")
            os.chdir("d")
        Path("last").touch()
    finally:
        os.chdir(home)
    raise Stopped("3,000 directories deep, within its own")


def many_descriptors(around: Around) -> str:
    held = []
    try:
        while len(held) < 20_000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in held:
            os.close(descriptor)
    return f"{len(held)} descriptors"


def deleted_but_open(around: Around) -> str:
    held = []
    for number in range(4):
        path = scratch() / f"gone{number}"
        file = path.open("wb")
        path.unlink()
        file.write(bytes(32 * MIB))
        file.flush()
        held.append(file)
    threading.Event().wait(3)
    for file in held:
        file.close()
    return "128 MiB in deleted files, for 3 s"


ATTEMPTS: dict[str, Callable[[Around], str]] = {
    "a fork bomb": bomb,
    "3,000 threads": many_threads,
    "allocate 100 GB": lambda around: str(len(bytearray(100 << 30))),
    "hold 4 GB": hold_memory,
    "hold 3 GB of shared memory": hold_shared_memory,
    "one large file": one_large_file,
    "many large files": many_large_files,
    "many small files": many_small_files,
    "deep directories": deep_directories,
    "20,000 descriptors": many_descriptors,
    "fill the disk with deleted files": deleted_but_open,
}
