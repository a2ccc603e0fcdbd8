"""Put the sandbox around this process, layer by layer, before it reads a model: from then on a model's code can use
what its options name, and nothing else.

Called by `runner/process` while there is one thread; by `cli/checks` in a child that only tries it. Each layer that
this machine cannot do is missing, and named; none is ever taken off again. What the supervisor adds from outside
(environment, directory, control groups, disk) is in `fleet/walls`.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Final

from hyperion.fleet.cgroup import GROUPS_VARIABLE
from hyperion.runner.memory import limit_memory
from hyperion.runner.sandbox.calls import AUDIT_ARCH
from hyperion.runner.sandbox.cleaner import leave_cleaner
from hyperion.runner.sandbox.filter import assemble, install
from hyperion.runner.sandbox.landlock import landlock_abi, restrict
from hyperion.runner.sandbox.limits import drop_privileges, set_limits
from hyperion.runner.sandbox.paths import choose_grants, wants_gpu
from hyperion.runner.sandbox.rules import choose_rules
from hyperion.runner.sandbox.semaphores import keep_semaphores_here
from hyperion.runner.sandbox.shm import make_private
from hyperion.schema.config import MIB, RunnerConfig
from hyperion.schema.errors import ModelRefused

PRIVILEGES, LIMITS, FILES, CALLS, GROUPS = "privileges", "limits", "files", "system calls", "control group"
LAYERS: Final = (GROUPS, LIMITS, PRIVILEGES, FILES, CALLS)


def enter(config: RunnerConfig) -> dict[str, str]:
    """Put on all layers that hold here; returns why each other one does not, by its name.

    Raises ModelRefused where one is missing and `config.sandbox` is strict.
    """
    machine = platform.machine()
    scratch = _choose_scratch(config)
    missing: dict[str, str] = {}
    abi = landlock_abi()
    # Stays open: once forgotten by the kernel, /proc/self would come back as another inode than the granted one.
    os.open("/proc/self", os.O_PATH | os.O_CLOEXEC)
    if not config.spec.options.processes:
        keep_semaphores_here()
    elif machine in AUDIT_ARCH:
        make_private(machine, config.spec.options.scratch_mb * MIB)
    grants = choose_grants(config, scratch)

    def join_groups() -> None:
        enter_groups(os.environ.pop(GROUPS_VARIABLE, ""))

    def limit() -> None:
        set_limits(config.spec.options.scratch_mb * MIB)
        _limit_memory(config)

    def restrict_files() -> None:
        if not abi:
            raise OSError("Landlock is not in this kernel, or turned off")
        restrict(grants, abi, config.spec.options.network)

    def filter_calls() -> None:
        if machine not in AUDIT_ARCH or sys.byteorder != "little" or sys.maxsize < 1 << 32:
            raise OSError(f"the system calls of {machine} are not known here")
        options = config.spec.options
        install(assemble(choose_rules(os.getpid(), options.network, options.processes), machine), machine)

    steps = {
        GROUPS: join_groups,
        LIMITS: limit,
        PRIVILEGES: lambda: drop_privileges(machine, keep_reading=abi > 0),
        FILES: restrict_files,
        CALLS: filter_calls,
    }
    for layer in LAYERS:
        try:
            steps[layer]()
        except OSError as error:
            missing[layer] = error.strerror or str(error)
    if missing and config.sandbox == "strict":
        layer = next(iter(missing))
        raise ModelRefused(
            f"{config.spec.name}: the sandbox is strict, and its layer {layer!r} is missing here ({missing[layer]}); "
            "hyperion doctor says how to get it, --sandbox auto does without"
        )
    return missing


def enter_groups(paths: str) -> None:
    """Move this process into the control groups that its supervisor made. Raises OSError."""
    if not paths:
        raise OSError("the supervisor may make none here")
    for path in paths.split(os.pathsep):
        (Path(path) / "cgroup.procs").write_text(str(os.getpid()))


def _limit_memory(config: RunnerConfig) -> None:
    """The limit that was set, or what the machine has: an allocation beyond that can only end badly. Drivers of GPUs
    map more than there is."""
    options = config.spec.options
    if options.memory_mb:
        limit_memory(options.memory_mb * MIB)
    elif not wants_gpu(options.device):
        limit_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _choose_scratch(config: RunnerConfig) -> Path:
    """The private directory: whoever asks for temporary files or for a home gets it."""
    scratch = Path(config.scratch or tempfile.mkdtemp(prefix="hyperion-runner-"))
    if not config.scratch:
        leave_cleaner(scratch, Path(config.socket))
    for variable in ("TMPDIR", "TEMP", "TMP", "HOME"):
        os.environ[variable] = str(scratch)
    tempfile.tempdir = None  # found again when it is asked for
    sys.dont_write_bytecode = True
    return scratch
