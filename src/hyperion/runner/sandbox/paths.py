"""Which paths a runner has to reach: its model, Python and its libraries, and a little of the system.

Called by `enter`. What the platform keeps (its home, with keys and other models) is cut out of whatever lies around
it.
"""

import glob
import os
import site
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import hyperion
from hyperion.runner.sandbox.landlock import Grant
from hyperion.runner.sandbox.shm import SHARED_MEMORY
from hyperion.schema.config import RunnerConfig

LIST_SUFFIX = ".files"
_LIBRARIES = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store", "/run/opengl-driver")
_SYSTEM = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/os-release", "/etc/mime.types", "/etc/fonts"),
    *("/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/version"),
    *("/proc/filesystems", "/proc/sys/vm", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/random"),
    *("/sys/devices", "/sys/bus", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/sys/kernel/mm/hugepages"),
)
_NETWORK = ("/etc/hosts", "/etc/resolv.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols")
_NETWORK_MORE = ("/run/systemd/resolve", "/run/resolvconf", "/proc/sys/net")  # where resolv.conf often points to
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPU_READ = ("/sys", "/proc/driver/nvidia", "/proc/modules", "/proc/devices", "/etc/OpenCL", "/etc/vulkan")
_GPU_DEVICES = ("/dev/nvidia*", "/dev/dri", "/dev/kfd")
GPU_CONTROL = Path("/dev/nvidiactl")


def choose_grants(config: RunnerConfig, scratch: Path) -> list[Grant]:
    """Everything that the runner of `config` may reach; `scratch` is its private directory."""
    options = config.spec.options
    keep = "run" if options.processes else "read"
    hidden = _hidden(config)
    grants = [Grant(path) for path in map(Path, _SYSTEM)]
    grants += [Grant(path, keep) for path in map(Path, _LIBRARIES)]
    grants += [Grant(path, keep) for base in python_paths() for path in carve(base, hidden)]
    grants += [Grant(path, keep) for base in model_paths(config) for path in carve(base, hidden)]
    grants += [Grant(path, keep) for base in config.readable for path in carve(Path(base).resolve(), hidden)]
    grants += [Grant(path, "use") for path in map(Path, _DEVICES)]
    grants.append(Grant(scratch, "own"))
    if options.network:
        grants += [Grant(Path(path)) for path in (*_NETWORK, *_NETWORK_MORE)]
    if options.processes:
        grants.append(Grant(Path(SHARED_MEMORY), "own"))
    if wants_gpu(options.device):
        grants += [Grant(Path(path)) for path in _GPU_READ]
        grants += [Grant(Path(path), "device") for pattern in _GPU_DEVICES for path in glob.glob(pattern)]
    return grants


def wants_gpu(device: str) -> bool:
    """If the model may compute on a GPU: where it says so, or where one is here and it does not say otherwise."""
    return device.startswith("cuda") or (device == "auto" and GPU_CONTROL.exists())


def python_paths() -> list[Path]:
    """Where this interpreter, its packages and their shared libraries lie. The directory in which the platform was
    started is on the path, too, but belongs to whoever started it."""
    here = os.getcwd()
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    named += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    found = [entry for entry in sys.path if entry and (entry != here or entry in site.getsitepackages())]
    found += [entry for entry in named if entry]
    found += [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, str(Path(hyperion.__file__).parent)]
    # Editable installations of other packages, found by a finder of setuptools rather than on the path.
    for finder in sys.meta_path:
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", None)
        if isinstance(mapping, dict):
            found += [str(path) for path in mapping.values()]
    paths = {Path(os.path.realpath(entry)) for entry in found}
    return sorted(path for path in paths if path.exists() and path != Path("/"))


def model_paths(config: RunnerConfig) -> list[Path]:
    """Where the files of the model lie: the directory of a registered version and its list, a model's directory, or
    one file. An ONNX file may have others beside it, and runs no code of its own."""
    path = Path(os.path.realpath(config.spec.path))
    if config.root:
        root = Path(os.path.realpath(config.root))
        return [root, root.with_name(root.name + LIST_SUFFIX)]
    if config.spec.format == "onnx" and not path.is_dir():
        return [path.parent]
    return [path]


def carve(path: Path, hidden: Sequence[Path]) -> Iterator[Path]:
    """Paths that together are all below `path` but what is hidden: `path` itself where nothing is."""
    inside = [other for other in hidden if other == path or path in other.parents]
    if not inside:
        yield path
    elif path not in inside:
        for entry in _entries(path):
            yield from carve(Path(entry.path), inside)


def _entries(path: Path) -> Iterable["os.DirEntry[str]"]:
    # A link here would grant what it points to.
    with os.scandir(path) as entries:
        return [entry for entry in entries if not entry.is_symlink()]


def _hidden(config: RunnerConfig) -> list[Path]:
    """What belongs to the platform: its home, and the sockets of its processes."""
    places = (config.home, os.path.dirname(config.socket))
    return [Path(os.path.realpath(place)) for place in places if place]
