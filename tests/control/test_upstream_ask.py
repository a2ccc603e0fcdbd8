"""Asking another server for metadata: what it may send us, and how it is told. The servers are sockets that send what
they are given; a real one is asked in `test_composed`."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import grpc
import pytest
from msgspec.structs import replace

from hyperion.control.upstream import ask as upstream_ask
from hyperion.control.upstream.ask import ask_upstream, read_headers
from hyperion.control.upstream.upstreams import Finding, Upstreams
from hyperion.schema.errors import InvalidConfig, MissingExtra, UpstreamFailed
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import DeclaredTensor, Upstream
from hyperion.wire.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    frame,
    settings_frame,
)
from hyperion.wire.oip.grpc_metadata import encode_model_metadata as encode_message
from hyperion.wire.oip.metadata import encode_model_metadata
from hyperion.wire.oip.model_metadata import ModelMetadata
from tests.e2e.served import free_ports
from tests.services import needs_installed

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1,)),))
BODY = encode_model_metadata("m", ["1"], "onnx", SIGNATURE)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@asynccontextmanager
async def server(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port that does one thing with each connection."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def sends(data: bytes) -> Serve:
    """Send this and no more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        if writer.can_write_eof():
            writer.write_eof()
            await reader.read()  # a connection that is closed with bytes unread is reset

    return serve


async def reason(port: int, protocol: Literal["oip-http", "oip-grpc"] = "oip-http") -> str:
    scheme = "http" if protocol == "oip-http" else "grpc"
    with pytest.raises(UpstreamFailed) as failed:
        await ask_upstream(Upstream(f"{scheme}://127.0.0.1:{port}", protocol, "m"))
    return failed.value.message


async def test_the_model_is_asked_for_by_path_version_and_headers(tmp_path: Path) -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(BODY))

    key = tmp_path / "key"
    key.write_text("authorization: Bearer abc\n")
    key.chmod(0o600)
    async with server(serve) as port:
        upstream = Upstream(f"http://127.0.0.1:{port}/serving/", "oip-http", "a+b", "2", headers_from=str(key))
        assert (await ask_upstream(upstream, [str(tmp_path)])).inputs == SIGNATURE.inputs
    head = asked[0].decode().split("\r\n")
    assert head[:2] == ["GET /serving/v2/models/a%2Bb/versions/2 HTTP/1.1", f"host: 127.0.0.1:{port}"]
    assert "authorization: Bearer abc" in head


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (answer(b"{}"), "is not as the protocol says"),
        (answer(b"no", b"404 Not Found"), "GET /v2/models/m answered 404, expected 200"),
        (answer(b"", b"302 Found"), "answered 302"),
        (b"SSH-2.0-OpenSSH\r\n", "is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", "at most 1048576 are allowed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf", "closed the connection before its answer was there"),
        (b"", "closed the connection before its answer was there"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 5_000, "more than 100 headers"),
    ],
)
async def test_an_answer_that_is_none_is_told(data: bytes, message: str) -> None:
    async with server(sends(data)) as port:
        assert message in await reason(port)


async def test_a_server_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_ask, "ASK_S", 0.2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n")
        while not writer.is_closing() and not reader.at_eof():
            writer.write(b"{")
            await asyncio.sleep(0.02)

    async with server(serve) as port:
        assert "did not answer within 0.2 s" in await reason(port)


async def test_nobody_there_is_told() -> None:
    async with server(sends(b"")) as port:
        pass
    assert "cannot be reached" in await reason(port)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read_headers(str(key), [str(tmp_path)])
    key.write_text("a: b\n")
    key.chmod(0o640)
    with pytest.raises(InvalidConfig, match=r"mode 640\): chmod 600 it"):
        read_headers(str(key), [str(tmp_path)])
    key.chmod(0o400)
    assert read_headers(str(key), [str(tmp_path)]) == {b"a": b"b"}


def test_a_pipe_in_place_of_the_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(InvalidConfig, match="expected a regular file"):
        read_headers(str(tmp_path / "key"), [str(tmp_path)])


async def test_a_certificate_counts_only_if_it_is_trusted(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, made, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with server(sends(answer(BODY)), context) as port:
        trusting = Upstream(f"https://localhost:{port}", "oip-http", "m", ca_file=str(certificate))
        assert (await ask_upstream(trusting)).name == "m"
        with pytest.raises(UpstreamFailed, match=r"(?i)certificate verify failed"):
            await ask_upstream(Upstream(f"https://localhost:{port}", "oip-http", "m"))
        with pytest.raises(InvalidConfig, match="its ca_file: holds no certificates"):
            await ask_upstream(Upstream(f"https://localhost:{port}", "oip-http", "m", ca_file=str(tmp_path / "no.pem")))
        with pytest.raises(InvalidConfig, match="its ca_file: holds no certificates"):
            await ask_upstream(Upstream(f"https://localhost:{port}", "oip-http", "m", ca_file=str(key)))


class Described(grpc.GenericRpcHandler):
    """A model called m, for gRPC's own server; its platform is the header that came."""

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        async def describe(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            if b"m" not in request:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
            said = dict(context.invocation_metadata() or ())
            return encode_message("m", ["1"], str(said.get("x-key", "")), SIGNATURE)

        return grpc.unary_unary_rpc_method_handler(describe) if call.method.endswith("/ModelMetadata") else None


async def test_grpcs_own_server_is_understood(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("x-key: abc\n")
    key.chmod(0o600)
    serving = grpc.aio.server()
    serving.add_generic_rpc_handlers([Described()])
    port = serving.add_insecure_port("127.0.0.1:0")
    await serving.start()
    try:
        upstream = Upstream(f"grpc://127.0.0.1:{port}", "oip-grpc", "m", headers_from=str(key))
        expected = ModelMetadata("m", SIGNATURE.inputs, SIGNATURE.outputs, ("1",), "abc")
        assert await ask_upstream(upstream, [str(tmp_path)]) == expected
        with pytest.raises(UpstreamFailed, match="gRPC status 5: no such model"):
            await ask_upstream(Upstream(f"grpc://127.0.0.1:{port}", "oip-grpc", "k"))
    finally:
        await serving.stop(None)


@pytest.mark.slow
async def test_kserves_own_server_is_understood(tmp_path: Path) -> None:
    needs_installed("kserve", extra="clients")
    http, rpc = free_ports(2)
    with (tmp_path / "log").open("wb") as log:
        serving = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("kserve_tiny.py")), str(http), str(rpc), stdout=log, stderr=log
        )
        try:
            found = [
                await ask_until_it_answers(Upstream(f"http://127.0.0.1:{http}", model="tiny")),
                await ask_until_it_answers(Upstream(f"grpc://127.0.0.1:{rpc}", "oip-grpc", "tiny")),
            ]
        finally:
            serving.terminate()
            await serving.wait()
    assert found == [ModelMetadata("tiny", SIGNATURE.inputs, SIGNATURE.outputs)] * 2


async def ask_until_it_answers(upstream: Upstream) -> ModelMetadata:
    """Its answer, once the server is up."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask_upstream(upstream)
            except UpstreamFailed:
                await asyncio.sleep(0.1)


def fields(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in pairs)


OK = fields((b":status", b"200"))
END = fields((b"grpc-status", b"0"))
MESSAGE = encode_message("m", ["1"], "", SIGNATURE)
FRAMED = b"\0" + len(MESSAGE).to_bytes(4) + MESSAGE
SETTLED = settings_frame({})


def call(*parts: bytes) -> bytes:
    return SETTLED + b"".join(parts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not HTTP/2"),
        (call(), "closed the connection before its answer was there"),
        (call(frame(RST_STREAM, 0, 1, (8).to_bytes(4))), "ended the call with HTTP/2 error 8"),
        (call(frame(GOAWAY, 0, 0, bytes(4) + (11).to_bytes(4))), "ended the call with HTTP/2 error 11"),
        (call(frame(GOAWAY, 0, 0, bytes(8))), "ended the call with HTTP/2 error 0"),
        (call(frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff")), "its headers cannot be read"),
        (call(frame(HEADERS, END_HEADERS | END_STREAM, 1, fields((b":status", b"502")))), "answered HTTP 502"),
        (call(frame(HEADERS, END_HEADERS | END_STREAM, 1, OK)), "ended with gRPC status none"),
        (call(frame(HEADERS, END_HEADERS | END_STREAM, 1, OK + END)), "answered 0 messages"),
        (
            call(
                frame(HEADERS, END_HEADERS, 1, OK),
                frame(DATA, 0, 1, b"\x07" + FRAMED[1:]),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, END),
            ),
            "a message begins with 7",
        ),
        (
            call(
                frame(HEADERS, END_HEADERS, 1, OK),
                frame(DATA, 0, 1, b"\x01" + FRAMED[1:]),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, END),
            ),
            "expected one that is not compressed",
        ),
        (call(frame(DATA, 8, 1, b"\x09aa")), "its padding is longer than the frame"),
        (call(*[frame(PING, 1, 0, bytes(8))] * 70_000), "more than 1048576 bytes"),
    ],
)
async def test_what_is_no_answer_over_http2_is_told(data: bytes, message: str) -> None:
    async with server(sends(data)) as port:
        assert message in await reason(port, "oip-grpc")


async def test_pings_padding_priorities_and_blocks_in_pieces_are_understood() -> None:
    parts = call(
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 1, 0),
        frame(GOAWAY, 0, 0, (1).to_bytes(4) + bytes(4)),  # which finishes what it has begun
        frame(HEADERS, 0x8 | 0x20, 1, b"\x02" + bytes(5) + OK[:4] + b"\0\0"),
        frame(9, END_HEADERS, 1, OK[4:]),
        frame(DATA, 0x8, 1, b"\x03" + FRAMED[:5] + bytes(3)),
        frame(DATA, 0, 3, b"of another stream"),
        frame(DATA, 0, 1, FRAMED[5:]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, END),
    )
    heard, over = bytearray(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(parts)
        while data := await reader.read(1 << 16):
            heard.extend(data)
        over.set()

    async with server(serve) as port:
        found = await ask_upstream(Upstream(f"grpc://127.0.0.1:{port}", "oip-grpc", "m"))
        await asyncio.wait_for(over.wait(), 60)
    assert found.inputs == SIGNATURE.inputs
    assert frame(PING, 1, 0, b"12345678") in heard


class Far:
    """A server of whose answers the test disposes, and that says how often it was asked."""

    def __init__(self) -> None:
        self.answer: ModelMetadata | Exception = UpstreamFailed("it is not up")
        self.asked = 0

    async def ask(self, _: Upstream) -> ModelMetadata:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_what_was_known_stays_when_a_server_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperion.control.upstream.upstreams.pause_s", lambda _: 0.001)
    far, news, said = Far(), asyncio.Event(), list[str]()
    upstreams = Upstreams(news.set, lambda _, message: said.append(message), far.ask)
    here = Upstream("http://127.0.0.1:9", model="m")

    async def next_finding() -> Finding:
        await asyncio.wait_for(news.wait(), 60)
        news.clear()
        return upstreams.find("far")

    upstreams.follow({"far": here})
    assert upstreams.find("far").known is None
    assert (await next_finding()).reason == "it is not up"
    far.answer = ModelMetadata("m", SIGNATURE.inputs, SIGNATURE.outputs, (), "onnx")
    first = await next_finding()
    assert first.known is not None
    assert (first.known.signature, first.reason) == (SIGNATURE, "")
    far.answer = RuntimeError("a bug of ours")
    gone = await next_finding()
    assert (gone.known, gone.reason) == (first.known, "RuntimeError: a bug of ours")
    far.answer = ModelMetadata("m", SIGNATURE.inputs, SIGNATURE.inputs)
    changed = await next_finding()
    assert changed.known is not None
    assert changed.known.digest != first.known.digest

    asked = far.asked
    upstreams.follow({})
    await asyncio.sleep(0.01)
    assert far.asked == asked
    with pytest.raises(KeyError):
        upstreams.find("far")
    assert len(said) == 4


async def test_one_over_grpc_is_not_called_ready_where_gateways_cannot_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_ask, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"hyperion-inference\[grpc\]"):
        await ask_upstream(Upstream("grpc://127.0.0.1:9", protocol="oip-grpc", model="m"))


async def test_an_upstream_that_describes_nothing_is_served_as_its_resource_declares_it() -> None:
    far, news = Far(), asyncio.Event()
    far.answer = ModelMetadata("m", (), ())
    upstreams = Upstreams(news.set, lambda *_: None, far.ask)
    bare = Upstream("http://127.0.0.1:9", model="m")
    x, y = DeclaredTensor("x", "FP32", (-1, 4)), DeclaredTensor("y", "FP32", (-1,))

    async def found(upstream: Upstream) -> Finding:
        news.clear()
        upstreams.follow({"far": upstream})
        await asyncio.wait_for(news.wait(), 60)
        return upstreams.find("far")

    assert (await found(bare)).reason == "its metadata names no inputs: say them in spec.upstream.inputs"
    assert (await found(replace(bare, inputs=(x,)))).reason.endswith("say them in spec.upstream.outputs")
    whole = await found(replace(bare, inputs=(x,), outputs=(y,)))
    assert whole.known is not None
    assert (whole.known.signature, whole.reason) == (SIGNATURE, "")
    # Nor need it be there: so its fallbacks answer from the start.
    far.answer = UpstreamFailed("it is not up")
    away = await found(replace(bare, inputs=(x,), outputs=(y,), concurrency=2))
    assert away.known is not None
    assert (away.known.signature, away.reason) == (SIGNATURE, "it is not up")
    upstreams.follow({})
