"""Does what each row of its input says, so that a test owns every moment of it.

`hold:NAME` waits at the FIFO `$OBEDIENT_DIR/NAME` until a test has opened and closed it; `raise`, `exit`, `spin`,
`print` and `garbage` are what bad models do; any other text comes back. `rows` says how many rows were computed
together, `turn` when.
"""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def fifo(name: bytes) -> Path:
    return Path(os.environ["OBEDIENT_DIR"]) / name.decode()


def obey(command: bytes) -> None:
    verb, _, name = command.partition(b":")
    if verb == b"hold":
        fifo(name).read_bytes()
    elif verb == b"raise":
        raise ValueError("a secret of the model")
    elif verb == b"exit":
        os._exit(9)
    elif verb == b"spin":
        while True:
            time.sleep(60)
    elif verb == b"print":
        print("\x00HYPERION garbage " * 1000)
    elif verb == b"garbage":
        for entry in os.listdir("/proc/self/fd"):
            if is_connected(int(entry)):
                os.write(int(entry), b"\xff" * 64)


def is_connected(descriptor: int) -> bool:
    """Whether it is a socket that a gateway holds the other end of."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as one:
            return bool(one.getsockname()) and not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return False


class Model:
    inputs = {"command": ("BYTES", [-1, 1])}
    outputs = {"said": ("BYTES", [-1, 1]), "rows": ("INT32", [-1, 1]), "turn": ("INT64", [-1, 1])}

    def __init__(self) -> None:
        self.turn = 0

    def predict(self, inputs: Arrays) -> Arrays:
        self.turn += 1
        commands = inputs["command"]
        for command in commands.ravel():
            obey(command)
        return {
            "said": commands,
            "rows": np.full((len(commands), 1), len(commands), np.int32),
            "turn": np.full((len(commands), 1), self.turn, np.int64),
        }

    def stream(self, inputs: Arrays) -> Iterator[Arrays]:
        """`count:N`; `gated:NAME:N`, each part of which waits at the FIFO; `forever:NAME`, which tells the FIFO of its
        end; `last:COMMAND`, one part and then the command."""
        verb, _, rest = inputs["command"][0, 0].partition(b":")
        if verb == b"count":
            yield from map(part, range(1, int(rest) + 1))
        elif verb == b"gated":
            name, _, count = rest.partition(b":")
            for number in range(1, int(count) + 1):
                fifo(name).read_bytes()
                yield part(number)
        elif verb == b"forever":
            number = 0
            try:
                while True:
                    number += 1
                    yield part(number)
            finally:
                fifo(rest).write_bytes(b"closed")
        elif verb == b"last":
            yield part(1)
            obey(rest)


def part(number: int) -> Arrays:
    return {"said": np.array([[b"%d" % number]], dtype=object)}
