"""Hostile HTTP: heads, lengths, chunks, orders and times. Run by `hostile_bytes`."""

import json

from tests.e2e.hostile_attack import SHOUT, SUMS, Attack, Random, damage, good_request, post, sums_body

ODD_HEADERS = (
    *("x-request-timeout-ms", "x-hyperion-priority", "x-hyperion-tenant", "x-request-id", "idempotency-key"),
    *("content-encoding", "content-type", "inference-header-content-length", "expect", "traceparent", "authorization"),
)


def huge_head(chance: Random) -> Attack:
    size = chance.choice((8_000, 20_000, 200_000))
    how = chance.randrange(4)
    if how == 0:
        return Attack("", (post("/" + "p" * size, b""),))
    if how == 1:
        return Attack("", (post(SUMS, b"{}", "x-huge: " + "h" * size),))
    if how == 2:
        return Attack("", (post(SUMS, b"{}", "h" * size + ": x"),))
    return Attack("", (post(SUMS, b"{}", *[f"x-{number}: 1" for number in range(size // 50)]),))


def both_lengths(chance: Random) -> Attack:
    body = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    coding = chance.choice(
        ("chunked", "Chunked", "chunked, chunked", "identity", "gzip, chunked", "xchunked", " chunked", "chunked ")
    )
    name = chance.choice(("transfer-encoding", "Transfer-Encoding", "transfer-encoding ", "transfer_encoding"))
    data = post(
        SUMS, body, f"{name}: {coding}", length=chance.choice((5, len(body), 0, "+5", "5, 5", "0x5", "5 5", -5))
    )
    return Attack("", (data,), "close")


def bad_chunks(chance: Random) -> Attack:
    start = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % SUMS.encode()
    body = sums_body([1, 2], [3, 4])
    sizes = (
        b"%x",
        b"%X",
        b"+%x",
        b"0x%x",
        b"%x;a=b",
        b"%x ",
        b" %x",
        b"-%x",
        b"00000%x",
        b"%x" * 20,
        b"",
        b"g",
        b"%x\x00",
    )
    size = chance.choice(sizes)
    wrong = chance.choice((0, 0, 1, -1))
    line = size % ((len(body) + wrong,) * size.count(b"%")) if b"%" in size else size
    ends = (b"\r\n0\r\n\r\n", b"\n0\r\n\r\n", b"0\r\n\r\n", b"\r\n0\r\nx: y\r\n\r\n", b"\r\n", b"")
    return Attack("", (start + line + b"\r\n" + body + chance.choice(ends),), "close")


def many_chunks(chance: Random) -> Attack:
    start = b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % SUMS.encode()
    body = sums_body([1, 2], [3, 4])
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    return Attack("", (start + chunks,))


def damaged_http(chance: Random) -> Attack:
    good = good_request() * chance.randrange(1, 4)
    data = damage(chance, good)
    cut = chance.randrange(len(data) + 1)
    return Attack("", chance.choice(((data,), (data[:cut], data[cut:]))), "close")


def odd_requests(chance: Random) -> Attack:
    method = chance.choice(
        ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "PRI", "get", "BREW", "")
    )
    path = chance.choice(
        (
            "/",
            "*",
            "//",
            "/../../etc/passwd",
            "/%00",
            "/\xff",
            "http://x/v2",
            "x:80",
            "/v2/models/%2e%2e",
            "",
            "/?" + "q" * 999,
        )
    )
    version = chance.choice(("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/9.9", "http/1.1", "", "HTTP/1.1 "))
    lines = chance.choice(
        (
            "host: x\r\n",
            "",
            "host: x\r\nhost: y\r\n",
            "host: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n",
            "host: x\r\n folded\r\n",
        )
    )
    end = chance.choice(("\r\n", "\n", "\r\n\r\n"))
    return Attack("", (f"{method} {path} {version}\r\n{lines}{end}".encode("latin-1"),), "close")


def odd_headers(chance: Random) -> Attack:
    name = chance.choice(ODD_HEADERS)
    value = chance.choice(
        ("", "0", "-1", "9" * 30, "x" * 500, "\x80\xff", "1e9", "abc, def", '"', "100-continue", "null")
    )
    return Attack("", (post(SUMS, sums_body([1, 2], [3, 4]), f"{name}: {value}"),))


def pipelined(chance: Random) -> Attack:
    count = chance.randrange(2, 80)
    bodies = [chance.choice((sums_body([1, 2], [3, 4]), b"{", b"", b"[]")) for _ in range(count)]
    return Attack("", (b"".join(post(SUMS, body) for body in bodies),), "wait", count)


def pipelined_and_gone(chance: Random) -> Attack:
    return Attack("", (good_request() * chance.randrange(2, 200),), chance.choice(("abort", "close")))


def early_closer(chance: Random) -> Attack:
    data = chance.choice(
        (good_request(), post(SHOUT, b'{"inputs":'), post("/v2/models/countdown/generate_stream", b'{"start": 100000}'))
    )
    return Attack("", (data[: chance.randrange(1, len(data) + 1)],), chance.choice(("abort", "close")))


def slow_sender(chance: Random) -> Attack:
    data = good_request()
    places = sorted(chance.sample(range(1, len(data)), 8))
    pieces = [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]
    if chance.random() < 0.5:
        return Attack("", tuple(pieces[:-1]), chance.choice(("abort", "close")))
    return Attack("", tuple(pieces))


def stream_and_leave(chance: Random) -> Attack:
    body = json.dumps({"start": chance.choice((0, 1, 5, 1000, 10**9))}).encode()
    return Attack("", (post("/v2/models/countdown/generate_stream", body), b""), "abort", pause_s=0.005)
