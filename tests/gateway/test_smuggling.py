"""What smuggles: requests that two servers may read differently are refused, and what follows them is never read."""

import pytest

from tests.gateway.wires import Edge, feed

INNER = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"

REFUSED = {
    "both lengths": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way round": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two equal lengths": POST + b"content-length: 0\r\ncontent-length: 0\r\n\r\n",
    "two lengths": POST + b"content-length: 0\r\ncontent-length: 40\r\n\r\n",
    "a list of lengths": POST + b"content-length: 0, 0\r\n\r\n",
    "a length with a plus": POST + b"content-length: +3\r\n\r\nabc",
    "a length with a minus": POST + b"content-length: -1\r\n\r\n",
    "a length in hex": POST + b"content-length: 0x3\r\n\r\nabc",
    "a length with a space": POST + b"content-length: 0 0\r\n\r\n",
    "no length in the length": POST + b"content-length:\r\n\r\n",
    "a length that overflows": POST + b"content-length: 18446744073709551616\r\n\r\n",
    "a huge length": POST + b"content-length: 9223372036854775807\r\n\r\n",
    "a space before the colon": POST + b"content-length : 0\r\n\r\n",
    "a tab before the colon": POST + b"transfer-encoding\t: chunked\r\n\r\n",
    "a folded header": POST + b"x-a: 1\r\n content-length: 40\r\n\r\n",
    "a folded transfer encoding": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a space before the first header": b"GET / HTTP/1.1\r\n host: x\r\n\r\n",
    "a bare line feed after a header": POST + b"x-a: 1\ncontent-length: 0\r\n\r\n",
    "a bare line feed after the request line": b"GET / HTTP/1.1\nhost: x\r\n\r\n",
    "bare line feeds only": b"GET / HTTP/1.1\nhost: x\n\n",
    "a bare carriage return in a value": POST + b"x-a: 1\rcontent-length: 0\r\n\r\n",
    "a zero byte in a value": POST + b"x-a: 1\x002\r\n\r\n",
    "a zero byte in a name": POST + b"x\x00a: 1\r\n\r\n",
    "a zero byte in the path": b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a header without a name": POST + b": 1\r\n\r\n",
    "a header without a colon": POST + b"content-length 0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    "two equal hosts": b"GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two idempotency keys": POST + b"idempotency-key: a\r\nidempotency-key: b\r\ncontent-length: 0\r\n\r\n",
    "two authorizations": POST + b"authorization: a\r\nauthorization: b\r\ncontent-length: 0\r\n\r\n",
    "two header lengths": POST + b"inference-header-content-length: 1\r\n"
    + b"inference-header-content-length: 2\r\ncontent-length: 0\r\n\r\n",
    "identity": POST + b"transfer-encoding: identity\r\n\r\n",
    "a coding before chunked": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding after chunked": POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "something like chunked": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": POST + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size with a plus": CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "a chunk size with a space before it": CHUNKED + b" 1\r\na\r\n0\r\n\r\n",
    "a chunk size with a bare line feed": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "a chunk extension with a bare line feed": CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "a chunk with a bare line feed at its end": CHUNKED + b"1\r\na\n0\r\n\r\n",
    "a chunk size that overflows": CHUNKED + b"10000000000000000\r\na\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n\r\n",
    "an empty chunk size": CHUNKED + b"\r\n\r\n",
    "no chunk size": CHUNKED + b";a\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nhost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\nhost: x\r\n\r\n",
    "http in lower case": b"GET / http/1.1\r\nhost: x\r\n\r\n",
    "a method that there is not": b"SMUGGLE / HTTP/1.1\r\nhost: x\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nhost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "an expectation that there is not": POST + b"expect: 200-ok\r\ncontent-length: 0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("size", [1, 10_000])
def test_it_is_refused_and_what_follows_is_not_read(name: str, size: int) -> None:
    data = REFUSED[name] + INNER
    edge = Edge()
    _, wire = edge.connect()
    feed(wire, [data[start : start + size] for start in range(0, len(data), size)])
    assert edge.seen == []
    assert len(edge.refusals) == 1
    assert wire.written.startswith(b"HTTP/1.1 ")
    assert wire.written[9:12] in (b"400", b"413", b"431")
    assert b"\r\nconnection: close\r\n" in wire.written
    assert wire.written.count(b"x-request-id: ") == 1
    assert wire.ended


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_behind_a_good_request_too(name: str) -> None:
    edge = Edge()
    _, wire = edge.connect()
    good = b"POST /good HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na"
    feed(wire, [good, good + REFUSED[name] + INNER])
    assert [seen.path for seen in edge.seen] == [b"/good", b"/good"]
    assert len(edge.refusals) == 1
    assert wire.written.count(b"HTTP/1.1 200") == 2
    assert wire.ended


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"GET http://x/abs HTTP/1.1\r\nhost: x\r\n\r\n", b"http://x/abs"),  # absolute form: as a proxy sends it
        (b"GET   /three-spaces HTTP/1.1\r\nhost: x\r\n\r\n", b"/three-spaces"),
        (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", b"*"),
        (b"POST /c HTTP/1.1\r\nhost: x\r\nTransfer-Encoding:  Chunked \r\n\r\n0\r\n\r\n", b"/c"),
        (b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0001\r\na\r\n0\r\n\r\n", b"/c"),
        (b"GET /host HTTP/1.1\r\nHost:\r\n\r\n", b"/host"),
        (b"GET /old HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", b"/old"),
        (b"GET /u HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n\r\n", b"/u"),  # not asked for by `connection`
    ],
)
def test_what_is_unusual_but_clear_is_served_and_so_is_what_follows(data: bytes, path: bytes) -> None:
    edge = Edge()
    _, wire = edge.connect()
    feed(wire, [data + INNER])
    assert [seen.path for seen in edge.seen] == [path, b"/smuggled"]
    assert not edge.refusals


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /u HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"POST /u HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nab",
        b"POST /u HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\nab\r\n0\r\n\r\n",
        b"GET /z HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_what_ends_the_connection_is_answered_and_what_follows_is_not_read(data: bytes, size: int) -> None:
    edge = Edge()
    _, wire = edge.connect()
    data += INNER
    feed(wire, [data[start : start + size] for start in range(0, len(data), size)])
    (seen,) = edge.seen
    assert seen.body == (b"ab" if data.startswith(b"POST") else b"")
    assert b"\r\nconnection: close\r\n" in wire.written
    assert wire.written.count(b"HTTP/1.1 200") == 1
    assert wire.closed
