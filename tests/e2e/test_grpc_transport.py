"""gRPC's transport in a whole platform: a worker that dies, and the tools that others test HTTP/2 with."""

import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.served import Served
from tests.services import needs_program
from tests.wire.http2_bytes import HELLO, MESSAGE, PATH, read_frames, request

DATA = 0
LIVE = b"\0\0\0\0\x02\x08\x01"  # ServerLiveResponse{live: true} behind its prefix


@pytest.mark.chaos
def test_a_killed_gateway_worker_loses_no_grpc_connection_that_waits(serve: Any) -> None:
    served = serve(Path(__file__).parent / "chaos_models" / "fragile")
    (gateway,) = served.pids("gateway")
    os.kill(gateway, signal.SIGSTOP)  # it accepts nobody any more
    with socket.create_connection(("127.0.0.1", served.grpc_port), timeout=30) as waiting:
        waiting.sendall(HELLO + request())
        os.kill(gateway, signal.SIGKILL)
        found = b""
        while DATA not in [kind for kind, *_ in read_frames(found)]:
            more = waiting.recv(4096)
            assert more, served.tail()
            found += more
    assert [payload for kind, _, _, payload in read_frames(found) if kind == DATA] == [LIVE]


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout


@pytest.mark.parametrize("window_bits", ["10", "24"])
def test_h2load_gets_an_answer_to_every_call(clients: Served, tmp_path: Path, window_bits: str) -> None:
    h2load = needs_program("h2load", package="nghttp2-client")
    (tmp_path / "message").write_bytes(MESSAGE)
    out = run(
        *(h2load, "-n2000", "-c4", "-m32", f"-w{window_bits}", f"-W{window_bits}", "-d", str(tmp_path / "message")),
        *("-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{clients.grpc}{PATH.decode()}"),
    )
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in out
    assert re.search(rf"\({2000 * len(LIVE)}\) data", out), out


def test_nghttp_understands_the_settings_and_the_answer(clients: Served, tmp_path: Path) -> None:
    nghttp = needs_program("nghttp", package="nghttp2-client")
    (tmp_path / "message").write_bytes(MESSAGE)
    out = run(
        *(nghttp, "-v", "-d", str(tmp_path / "message"), "-H", "content-type: application/grpc"),
        *("-H", "te: trailers", f"http://{clients.grpc}{PATH.decode()}"),
    )
    for line in ("[SETTINGS_MAX_CONCURRENT_STREAMS(0x03):1024]", ":status: 200", "grpc-status: 0"):
        assert line in out, out
    assert "INVALID" not in out
