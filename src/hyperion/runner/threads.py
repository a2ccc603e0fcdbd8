"""How many CPU threads one runner may use, told to every native library before it is loaded.

Called by `runner/process` first of all, and by the loaders for the libraries that take the number per model. Imports
nothing that starts threads itself.
"""

import contextlib
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

NICE: Final = 5  # a third of a gateway's share of a core that both want

# OpenMP (scikit-learn, XGBoost, LightGBM, PyTorch), the BLAS libraries, numexpr, Polars and Rayon (tokenizers).
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)


def limit_threads(threads: int, environment: MutableMapping[str, str] | None = None) -> int:
    """Sets the thread counts of native libraries to `threads` (0: all cores that this process may use); returns it.

    Works only before numpy and the frameworks are imported: they read the environment once, when they load.
    """
    environment = os.environ if environment is None else environment
    count = resolve_threads(threads)
    for variable in _VARIABLES:
        environment[variable] = str(count)
    # Waiting OpenMP threads would otherwise spin on cores that gateways and other runners need.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("TOKENIZERS_PARALLELISM", "false" if count == 1 else "true")
    return count


def give_way() -> None:
    """Lowers the priority of all threads of this process to `NICE`, once the model is ready.

    Where gateways and runners compete for cores, the gateways must get theirs first: they refuse what is too much, and
    hand the others' results on, which costs little. A runner that waits for a core costs throughput; a gateway that
    does lets every caller wait, also those of other models. Beside other programs of a machine nothing changes as long
    as the kernel shares its cores by session or control group, as it does in containers and services.

    The sandbox does not let a process name threads, so that it cannot slow others down: there its group is named.
    """
    refused = False
    for thread in os.listdir("/proc/self/task"):
        number = int(thread)
        try:
            os.setpriority(os.PRIO_PROCESS, number, max(NICE, os.getpriority(os.PRIO_PROCESS, number)))
        except PermissionError:
            refused = True
        except ProcessLookupError:
            continue  # it ended
    if refused and os.getpgrp() == os.getpid():
        with contextlib.suppress(PermissionError):  # threads with a lower priority keep it
            os.setpriority(os.PRIO_PGRP, 0, NICE)


def resolve_threads(threads: int) -> int:
    """`threads`, or the cores that this process may use where it is 0."""
    return threads or usable_cores()


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores of this process's affinity mask, within the CPU quota of its control group (v2), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
