"""The `main` of every child process: tie it to its supervisor, read its configuration, run its role.

Imports as little as possible, because each of these imports delays the first answer of `hyperion serve`.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from hyperion.fleet.lifeline import CONFIG_VARIABLE, open_notify, tie_to_parent
from hyperion.schema.config import EXIT_REFUSED, ControlConfig, GatewayConfig, RunnerConfig
from hyperion.schema.errors import HyperionError

if TYPE_CHECKING:
    from hyperion.control.management import Management

EXIT_FAILED = 1
FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
Notify = Callable[[str], None]


def main() -> int:
    """Run the role that the command line names, with the configuration in the environment; returns the exit code."""
    role, *titles = sys.argv[1:]
    tie_to_parent(os.environ)
    notify = open_notify(os.environ)
    raw = os.environ.pop(CONFIG_VARIABLE)
    title = " ".join(("hyperion", role, *titles))

    def announce(line: str) -> None:
        notify(line)
        if line == "READY=1":
            set_title(title)

    return run_role(role, raw, announce)


def run_role(role: str, raw: str, notify: Notify) -> int:
    """Run one process of the tree; `raw` is its configuration as JSON. Errors become one `ERROR=` line."""
    try:
        return _ROLES[role](raw, notify)
    except HyperionError as error:
        notify(f"ERROR={error.message}")
        return EXIT_REFUSED if error.blame == "caller" else EXIT_FAILED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:  # no bug of ours, whose trace would help
            notify(f"ERROR={error.strerror}: free some in the home, or choose another with --home")
            return EXIT_FAILED
        notify(f"ERROR={type(error).__name__}: {error}")
        raise


def set_title(title: str) -> None:
    """Show `title` in `ps`. Only once ready: the import alone takes as long as a small model."""
    from setproctitle import setproctitle

    setproctitle(title)


def _run_runner(raw: str, notify: Notify) -> int:
    from hyperion.runner.process import run

    return run(msgspec.json.decode(raw, type=RunnerConfig), notify)


def _run_gateway(raw: str, notify: Notify) -> int:
    from hyperion.gateway.process import run

    return run(msgspec.json.decode(raw, type=GatewayConfig), notify)


def _run_control(raw: str, notify: Notify) -> int:
    from hyperion.control.process import run

    async def serve_api(management: "Management") -> None:
        import asyncio

        # In a thread: these imports take a second, and the control loop must not stand still for it.
        await asyncio.to_thread(_import_api)
        from hyperion.api.serve import serve

        await serve(management, config)

    config = msgspec.json.decode(raw, type=ControlConfig)
    return run(config, notify, serve_api)


def _run_batch(raw: str, notify: Notify) -> int:
    from hyperion.batch.process import run
    from hyperion.schema.batch import BatchConfig

    return run(msgspec.json.decode(raw, type=BatchConfig), notify)


def _import_api() -> None:
    import hyperion.api.serve  # noqa: F401


_ROLES: dict[str, Callable[[str, Notify], int]] = {
    "runner": _run_runner,
    "gateway": _run_gateway,
    "control": _run_control,
    "batch": _run_batch,
}

if __name__ == "__main__":
    sys.exit(main())
