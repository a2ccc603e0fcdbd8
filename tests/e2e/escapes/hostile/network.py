"""Attempts to reach others by sockets."""

import ctypes
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from .files import Around, Stopped


def connect(family: int, kind: int, address: Any) -> str:
    with socket.socket(family, kind) as out:
        out.settimeout(5)
        out.connect(address)
        out.send(b"hello")
    return f"connected to {address!r}"


def command_supervisor(around: Around) -> str:
    child = {"name": "evil", "argv": ["/bin/true"]}
    body = json.dumps({"type": "start", "child": child}).encode()
    with socket.socket(socket.AF_UNIX) as out:
        out.connect(f"{around['run']}/supervisor.sock")
        out.sendall(len(body).to_bytes(4, "little") + body)
        return f"the supervisor answered {out.recv(100)!r}"


def send_datagram(around: Around) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        return f"{out.sendto(b'hello', ('127.0.0.1', around['udp']))} bytes sent"


def send_from_pair(around: Around) -> str:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        return f"{left.sendto(b'hello', around['datagrams'])} bytes sent"


def ask_kernel(around: Around) -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as out:
        out.bind((0, 0))
        return "netlink socket bound"


def send_raw(around: Around) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        return f"raw socket {out.fileno()}"


def listen(around: Around) -> str:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()
        return f"listens on {own.getsockname()}"


def resolve(around: Around) -> str:
    return str(socket.getaddrinfo("hyperion-exfiltration.example.com", 80))


def use_ring(around: Around) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(425, 8, ctypes.create_string_buffer(120)) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    return "made an io_uring, whose operations no filter sees"


def use_inherited(around: Around) -> str:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if "hyperion-leak" in target:
            found.append(target)
    if not found:
        raise Stopped("no descriptor of others")
    return str(found)


def connect_postgres(around: Around) -> str:
    return connect(socket.AF_UNIX, socket.SOCK_STREAM, around["postgres"])


ATTEMPTS: dict[str, Callable[[Around], str]] = {
    "TCP": lambda around: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", around["tcp"])),
    "TCP over IPv6": lambda around: connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", around["tcp"])),
    "the management API": lambda around: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", around["admin"])),
    "listen on TCP": listen,
    "UDP": send_datagram,
    "a name server": resolve,
    "netlink": ask_kernel,
    "a raw socket": send_raw,
    "a Unix socket": lambda around: connect(socket.AF_UNIX, socket.SOCK_STREAM, around["stream"]),
    "an abstract socket": lambda around: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + around["abstract"]),
    "a datagram from a pair": send_from_pair,
    "command the supervisor": command_supervisor,
    "control's socket": lambda around: connect(socket.AF_UNIX, socket.SOCK_STREAM, f"{around['run']}/control.sock"),
    "PostgreSQL's socket": connect_postgres,
    "io_uring": use_ring,
    "an inherited descriptor": use_inherited,
}
