"""The runner's loop by itself; with gateways and real models it is tested in `tests/gateway` and `tests/e2e`."""

import signal
import socket
from pathlib import Path

from hyperion.runner.loop import RunnerLoop
from hyperion.runner.model import Arrays, Unary
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.frame_headers import Hello

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("x", "FP32", (-1, 1)),))


class Echo(Unary):
    """Gives back what it gets."""

    platform = "python"
    signature = SIGNATURE

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        return inputs


def test_a_signal_on_the_wakeup_descriptor_drains_an_idle_runner_without_its_handler(tmp_path: Path) -> None:
    hello = Hello(1, "r", "m", "1", "", "python", SIGNATURE, 1, {}, 1, 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        loop = RunnerLoop(Echo(), listener, hello, 30.0, 0, print)
        wakeup, writer = socket.socketpair()
        with wakeup, writer:
            writer.send(bytes((signal.SIGCHLD, signal.SIGTERM)))
            assert loop.run(wakeup.fileno()) == 0
