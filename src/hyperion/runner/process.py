"""The runner process from start to exit: threads, sandbox, load, warm up, listen, serve, drain.

Called by `cli/process`. It listens only once it is ready, so that "connectable" means "ready". Its socket is made
before the sandbox, in which no other can be made.
Exit codes: 0 drained, 3 the model is refused (a restart cannot help), 4 over its memory limit.
"""

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hyperion.runner.threads import give_way, limit_threads
from hyperion.schema.config import RunnerConfig
from hyperion.schema.errors import HyperionError

if TYPE_CHECKING:
    from hyperion.runner.loop import RunnerLoop

EXIT_REFUSED = 3


def run(config: RunnerConfig, notify: Callable[[str], None]) -> int:
    """Serves `config.spec` on `config.socket` until SIGTERM; returns the exit code. `notify` takes `READY=1`, then
    `WATCHDOG=1` again and again, or `ERROR=…`."""
    wakeup, wakeup_writer = socket.socketpair()
    wakeup_writer.setblocking(False)
    draining: list[int] = []

    def on_term(_number: int, _frame: FrameType | None) -> None:
        draining.append(1)

    signal.signal(signal.SIGTERM, on_term)
    signal.set_wakeup_fd(wakeup_writer.fileno(), warn_on_full_buffer=False)
    limit_threads(config.spec.options.threads)
    listener = bind(Path(config.socket))
    try:
        _confine(config)
        loop = _prepare(config, listener)
    except HyperionError as error:
        notify(f"ERROR={error.message}")
        return EXIT_REFUSED
    signal.signal(signal.SIGTERM, lambda _number, _frame: loop.drain())
    if draining:
        return 0
    # A stuck computation is ended by the kernel; the traceback of where it was stuck goes to the log first.
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    give_way()
    notify("READY=1")
    try:
        return loop.run(wakeup.fileno(), lambda: notify("WATCHDOG=1"))
    finally:
        # From its sandbox a runner cannot remove it: who started the runner does.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.unlink(config.socket)


def _confine(config: RunnerConfig) -> None:
    """Puts the sandbox on, unless it is off. Raises ModelRefused where it is strict and something is missing."""
    from hyperion.runner.sandbox.limits import close_inherited

    close_inherited()
    os.environ.update(config.spec.options.env)
    if config.sandbox == "off":
        return
    from hyperion.runner.sandbox.enter import GROUPS, enter

    missing = enter(config)
    for layer in missing.keys() - {GROUPS}:  # containers rarely have it, and it stops no theft
        sys.stderr.write(f"sandbox: no {layer} here: {missing[layer]}; see hyperion doctor\n")


def _prepare(config: RunnerConfig, listener: socket.socket) -> "RunnerLoop":
    """Loads and warms up the model, then listens. Raises HyperionError where the model cannot be served."""
    from hyperion.runner.load import load_model
    from hyperion.runner.loop import RunnerLoop, log_to_stderr
    from hyperion.runner.memory import limit_memory, resident_bytes
    from hyperion.runner.warmup import warm_up
    from hyperion.wire.frame import PROTOCOL
    from hyperion.wire.frame_headers import Hello

    spec, options = config.spec, config.spec.options
    if options.memory_mb and config.sandbox == "off":
        limit_memory(options.memory_mb << 20)
    if config.root:
        from hyperion.runner.verify import verify_version

        verify_version(config)
    model = load_model(spec)
    shapes = json.loads(spec.settings.get("warmup_shapes", "{}"))
    bucket_seconds = warm_up(model, options, shapes=shapes) if options.warmup else {}
    hello = Hello(
        PROTOCOL,
        config.replica,
        spec.name,
        spec.version,
        spec.digest,
        spec.platform or model.platform,
        model.signature,
        options.max_batch_size if model.signature.batched else 1,
        bucket_seconds,
        resident_bytes(),
        os.getpid(),
    )
    listener.listen(64)
    return RunnerLoop(model, listener, hello, options.deadline_ms / 1000, options.memory_mb << 20, log_to_stderr)


def bind(path: Path) -> socket.socket:
    """A Unix socket at `path`, in place of what a predecessor left there, for this user only. Nobody can connect until
    it listens."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    listener.bind(str(temporary))
    os.chmod(temporary, 0o600)
    os.replace(temporary, path)
    return listener


if __name__ == "__main__":
    sys.exit("start a runner with: hyperion runner")
