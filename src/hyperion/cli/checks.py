"""What this machine has and lacks, check by check. Called by `hyperion doctor`."""

import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hyperion.cli.check import Check
from hyperion.cli.checks_sandbox import check_sandbox
from hyperion.cli.resolve import Settings
from hyperion.cli.tree import check_redis
from hyperion.fleet.lifeline import die_with_parent
from hyperion.schema.errors import HyperionError, InvalidConfig

# What Hyperion does without until it is asked for: a module -> the extra that brings it.
OPTIONAL = {
    "sklearn": "sklearn",
    "skops": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "torch": "torch",
    "mlflow": "mlflow",
    "pyarrow": "batch",
    "psycopg": "postgres",
    "redis": "redis",
    "joserfc": "oidc",
    "grpc": "grpc",
    "re2": "patterns",
    "nats": "nats",
    "confluent_kafka": "kafka",
    "model_signing": "signing",
    "boto3": "s3",
}
_REQUIRED = ("onnxruntime", "numpy", "uvloop", "httptools", "hpack", "msgspec", "orjson", "fastapi", "uvicorn")
_LEAST_FILES = 4096
_MIB = 1 << 20
_ANSWER_S = 2.0


def run_checks(settings: Settings) -> Iterator[Check]:
    """Yield every finding, one by one."""
    yield _check_python()
    yield _check_compiled()
    yield Check("cores", "ok", f"{len(os.sched_getaffinity(0))} usable")
    yield _check_memory()
    yield _check_files()
    yield from map(_check_kernel, ("memfd", "pidfd", "die with parent", "unix sockets"))
    yield from check_sandbox()
    yield from map(_check_required, _REQUIRED)
    yield from (_check_extra(module, extra) for module, extra in OPTIONAL.items())
    home = Path(settings.text("home")).absolute()
    for key, host in (("port", "host"), ("grpc_port", "host"), ("admin_port", "admin_host")):
        if key != "grpc_port" or settings.flag("grpc"):
            yield _check_port(settings.text(host), settings.integer(key), f"--{key.replace('_', '-')}", home)
    yield _check_home(home)
    if settings.text("redis_url"):
        yield _check_redis(settings.text("redis_url"))
    yield _check_gpu()


def _check_python() -> Check:
    text = sys.version.split()[0]
    if sys.version_info < (3, 11):  # noqa: UP036 - somebody may have forced the installation
        return Check("python", "bad", f"{text}: 3.11 or newer is needed")
    return Check("python", "ok", text)


def is_compiled() -> bool:
    """If the hot path runs as machine code (`setup.py`)."""
    spec = importlib.util.find_spec("hyperion.gateway.http.protocol")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def _check_compiled() -> Check:
    if is_compiled():
        return Check("hot path", "ok", "compiled")
    return Check(
        "hot path", "note", "interpreted, which serves fewer requests: a wheel built beside a C compiler is faster"
    )


def _check_memory() -> Check:
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * size // _MIB
    return Check("memory", "ok", f"{total} MiB, {pages * size // _MIB} MiB of it free")


def _check_files() -> Check:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _LEAST_FILES:
        return Check("open files", "note", f"{soft} (at most {hard}): many connections need more; ulimit -n {hard}")
    return Check("open files", "ok", f"{soft}")


def _check_kernel(name: str) -> Check:
    tries: dict[str, Callable[[], None]] = {
        "memfd": lambda: os.close(os.memfd_create("doctor")),
        "pidfd": lambda: os.close(os.pidfd_open(os.getpid())),
        "die with parent": _try_parent_death,
        "unix sockets": _try_unix_socket,
    }
    try:
        tries[name]()
    except (OSError, AttributeError) as error:
        return Check(name, "bad", f"not available here ({error}): Hyperion needs Linux 5.3 or newer")
    return Check(name, "ok", "works")


def _try_parent_death() -> None:
    pid = os.fork()
    if pid == 0:  # the setting is for life, so it is tried in a child
        try:
            die_with_parent()
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise OSError("prctl is refused")


def _try_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/s")


def _check_required(module: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(module, "bad", "missing; reinstall with: pip install hyperion-inference")
    return Check(module, "ok", "installed")


def _check_extra(module: str, extra: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(module, "note", f"not installed; pip install 'hyperion-inference[{extra}]'")
    return Check(module, "ok", "installed")


def _check_port(host: str, port: int, option: str, home: Path) -> Check:
    from hyperion.fleet.home import find_owner, listen_tcp

    try:
        listen_tcp(host, port, option).close()
    except InvalidConfig as error:
        if owner := find_owner(home):
            return Check(f"port {port}", "note", f"in use, and so is this home: by process {owner}")
        return Check(f"port {port}", "bad", error.message)
    return Check(f"port {port}", "ok", "free")


def _check_home(home: Path) -> Check:
    existing = next(path for path in (home, *home.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Check("home", "bad", f"{existing} cannot be written; choose another with --home")
    free = shutil.disk_usage(existing).free // _MIB
    return Check("home", "ok", f"{home} ({free} MiB free)")


def _check_redis(url: str) -> Check:
    """Whether gateways can share their limits. Without it they serve, but each with a share of them."""
    try:
        check_redis(url)
    except HyperionError as error:
        return Check("redis server", "bad", error.message)
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S) as client:
            client.ping()
    except (RedisError, OSError) as error:
        return Check("redis server", "bad", f"{error}: limits would not be shared; see --redis-url")
    return Check("redis server", "ok", "answers")


def _check_gpu() -> Check:
    import onnxruntime

    providers = [name for name in onnxruntime.get_available_providers() if not name.startswith(("CPU", "Azure"))]
    present = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    if present and not providers:
        return Check(
            "gpu", "note", "an NVIDIA GPU is here, but this onnxruntime has no provider for it: onnxruntime-gpu"
        )
    return Check("gpu", "ok" if present else "note", ", ".join(providers) if present else "none found: the CPU is used")
