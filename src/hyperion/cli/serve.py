"""`hyperion serve`: claim the home, bind the sockets, spawn the tree, and become its supervisor.

In this order, because the first answer waits for it: control is spawned before asyncio is imported.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from hyperion.cli.resolve import Settings, find_files, resolve
from hyperion.cli.tree import check_settings, choose_log_format, plan_control, plan_gateways, whom_to_answer
from hyperion.fleet.cgroup import Parents, find_parents
from hyperion.fleet.home import claim_home, listen_tcp, listen_unix
from hyperion.fleet.replicas import describe_control, describe_gateway
from hyperion.fleet.spawn import spawn

CONTROL_GRACE_S, RUNNER_GRACE_S = 5.0, 10.0


def serve_here(paths: Sequence[str], given: Mapping[str, object]) -> int:
    """Serve with what was given on the command line, in this process's environment and directory."""
    settings = resolve(given, os.environ, find_files(os.environ, Path.cwd()))
    return serve(settings, paths, dict(os.environ))


def serve(settings: Settings, paths: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises `InvalidConfig` before anything is started."""
    check_settings(settings, paths)
    home = claim_home(Path(settings.text("home")))
    (home.path / "snapshot.json").unlink(missing_ok=True)  # it names the sockets of replicas that are gone
    host, admin_host = settings.text("host"), settings.text("admin_host")
    http = listen_tcp(host, settings.integer("port"), "--port")
    admin = listen_tcp(admin_host, settings.integer("admin_port"), "--admin-port")
    grpc = listen_tcp(host, settings.integer("grpc_port"), "--grpc-port") if settings.flag("grpc") else None
    listener = listen_unix(home.run_dir / "supervisor.sock")
    port, admin_port = http.getsockname()[1], admin.getsockname()[1]
    grpc_port = grpc.getsockname()[1] if grpc else 0
    url = f"{'https' if settings.text('tls_cert') else 'http'}://{_reachable(host)}:{port}"
    log_format = choose_log_format(settings, sys.stderr)
    control = plan_control(settings, home.path, home.run_dir, paths, admin.fileno(), admin_port, url, log_format)
    gateways = plan_gateways(settings, home.path, home.run_dir, port, grpc_port, log_format)
    grpc_fd = grpc.fileno() if grpc else None
    gateways = [replace(gateway, http_fd=http.fileno(), grpc_fd=grpc_fd) for gateway in gateways]
    # Before any child is there: in version 2 a group with processes of its own cannot have limited ones below it.
    parents = _open_parents(settings)
    first = [(spec, spawn(spec, environ)) for spec in [describe_control(control)]]

    import asyncio

    from hyperion.api.token import ensure_token
    from hyperion.cli.process import set_title
    from hyperion.cli.watch import Addresses, Watch
    from hyperion.fleet.output import LogWriter
    from hyperion.fleet.supervisor import Supervisor

    ensure_token(home.path)
    addresses = Addresses(
        url=url,
        grpc=f"{_reachable(host)}:{grpc_port}" if grpc_port else "",
        admin_url=f"http://{_reachable(admin_host)}:{admin_port}/",
        home=home.path,
        paths=tuple(paths),
        callers=whom_to_answer(settings),
    )
    writer = LogWriter(sys.stderr.fileno())
    graces_s = (settings.number("drain_s") + 1.0, CONTROL_GRACE_S, RUNNER_GRACE_S)

    async def supervise() -> int:
        supervisor = Supervisor(environ, writer, log_format, graces_s, parents)
        watch = Watch(addresses, len(gateways), supervisor.end, sys.stdout, sys.stderr)
        supervisor.on_change = watch.look
        set_title("hyperion supervisor")
        await supervisor.run(listener, first)
        return watch.exit_code

    # After our own imports: the first answer waits for control, which finds the model, longer than for a gateway.
    first += [(spec, spawn(spec, environ)) for spec in map(describe_gateway, gateways)]
    # From here on each listening socket lives in the processes that accept on it, and here, for their successors.
    try:
        return asyncio.run(supervise())
    finally:
        writer.close(1.0)
        os.close(home.lock_fd)


def _open_parents(settings: Settings) -> Parents | None:
    """Where control groups for runners can be made; None where that is not allowed here, as `hyperion doctor` says."""
    if settings.text("sandbox") == "off":
        return None
    try:
        return find_parents()
    except OSError:
        return None


def _reachable(host: str) -> str:
    """An address that a client on this machine can use."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
