"""Which layers of the sandbox hold here: each is put on for real, in a child that is then thrown away.

Called by `checks`.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from hyperion.cli.check import Check
from hyperion.fleet.cgroup import GROUPS_VARIABLE, Groups, find_parents, make_groups
from hyperion.schema.config import RunnerConfig
from hyperion.schema.model import ModelSpec

_REMEDIES = {
    "privileges": "needs Linux 3.5 or newer on x86_64 or aarch64",
    "limits": "something around this process keeps it from limiting itself: look at its container",
    "files": "needs Linux 5.13 or newer with Landlock: CONFIG_SECURITY_LANDLOCK, and landlock in the boot option lsm=",
    "system calls": "needs CONFIG_SECCOMP_FILTER on x86_64 or aarch64, and a container that allows seccomp(2)",
    "control group": "run it as a systemd unit with Delegate=yes, or in a container with a writable /sys/fs/cgroup",
}
_OLD_LANDLOCK = (
    (3, "Linux 6.2 or newer also keeps files from being emptied"),
    (4, "Linux 6.7 or newer also stops TCP"),
    (6, "Linux 6.12 or newer also stops signals and abstract sockets"),
)


class Trial(Struct, frozen=True):
    """What came of it in the child."""

    missing: dict[str, str]
    abi: int
    groups: tuple[str, ...]


def check_sandbox() -> Iterator[Check]:
    """One finding for each layer, and one that lists what is not covered here."""
    from hyperion.runner.sandbox.cover import Held, gaps_of
    from hyperion.runner.sandbox.enter import CALLS, FILES, GROUPS, LAYERS, LIMITS

    trial = _try_layers()
    for layer in LAYERS:
        if layer in trial.missing:
            yield Check(f"sandbox: {layer}", "note", f"missing ({trial.missing[layer]}): {_REMEDIES[layer]}")
        else:
            yield Check(f"sandbox: {layer}", "ok", _describe(layer == FILES, trial.abi))
    held = Held(
        files=FILES not in trial.missing,
        calls=CALLS not in trial.missing,
        limits=LIMITS not in trial.missing,
        groups=GROUPS not in trial.missing,
        abi=trial.abi,
    )
    gaps = gaps_of(held)
    yield Check("sandbox: not covered", "note", "; ".join(gaps.values()), tuple(gaps))


def _describe(landlock: bool, abi: int) -> str:
    if not landlock:
        return "holds"
    return "; ".join((f"holds (Landlock {abi})", *(text for least, text in _OLD_LANDLOCK if abi < least)))


def _try_layers() -> Trial:
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory(prefix="hyperion-doctor-") as scratch:
        pid = os.fork()
        if pid == 0:  # a sandbox is for life
            status = 1
            try:
                os.write(writing, msgspec.json.encode(_enter(scratch)))
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with open(reading, "rb") as answer:
            told = answer.read()
        os.waitpid(pid, 0)
    if not told:
        nothing = "the trial ended before it could tell"
        return Trial(dict.fromkeys(_REMEDIES, nothing), 0, ())
    trial = msgspec.json.decode(told, type=Trial)
    Groups(tuple(map(Path, trial.groups))).remove()
    return trial


def _enter(scratch: str) -> Trial:
    from hyperion.runner.sandbox.enter import GROUPS, enter
    from hyperion.runner.sandbox.landlock import landlock_abi

    why, groups = "", Groups()
    try:
        groups = make_groups(find_parents(), f"hyperion-doctor-{os.getpid()}", 0)
        os.environ[GROUPS_VARIABLE] = next(iter(groups.variable().values()))
    except OSError as error:
        why = error.strerror or str(error)
    spec = ModelSpec("doctor", "1", "python", scratch)
    missing = enter(RunnerConfig("doctor@1", f"{scratch}/socket", spec, scratch=scratch))
    if why:
        missing[GROUPS] = why
    return Trial(missing, landlock_abi(), tuple(map(str, groups.paths)))
