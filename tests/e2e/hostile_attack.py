"""What a hostile request is, and the good ones that most of them are made of."""

import json
import random
from typing import Any, NamedTuple

Random = random.Random
SUMS = "/v2/models/sums/infer"
EVERYTHING = "/v2/models/everything/infer"
SHOUT = "/v2/models/shout/infer"
DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES"),
)
ODD_NUMBERS = (
    *(0, -1, 1, 2, 3, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63) - 1),
    *(1.5, 1e308),
)


class GrpcAttack(NamedTuple):
    """A call with these bytes as its messages; `cancel_s` 0 waits for the answer."""

    method: str
    messages: tuple[bytes, ...]
    streaming: bool
    cancel_s: float
    metadata: tuple[tuple[str, str], ...] = ()


class Attack(NamedTuple):
    """`pieces` are sent with a pause between them. Then: `answers` answers must come (`end` "wait"), our side is closed
    ("close": whatever comes until the server closes too), or the connection is cut ("abort")."""

    kind: str
    pieces: tuple[bytes, ...] = ()
    end: str = "wait"
    answers: int = 1
    pause_s: float = 0.002
    grpc: GrpcAttack | None = None


def good_request() -> bytes:
    """Which must be answered with the sum [4, 6]."""
    return post(SUMS, sums_body([1, 2], [3, 4]))


def sums_body(a: list[float], b: list[float]) -> bytes:
    return json.dumps({"inputs": [tensor("a", [1, 2], "FP32", a), tensor("b", [1, 2], "FP32", b)]}).encode()


def tensor(name: Any, shape: Any, datatype: Any, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def post(path: str, body: bytes, *headers: str, length: int | str | None = None) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {size}\r\n\r\n".encode("latin-1") + body


def damage(chance: Random, data: bytes) -> bytes:
    """A few bytes changed, dropped, doubled, or the end cut off."""
    out = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        place = chance.randrange(len(out) + 1)
        how = chance.randrange(4)
        if how == 0:
            out[place : place + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            del out[place : place + chance.randrange(1, 9)]
        elif how == 2:
            out[place:place] = out[place : place + chance.randrange(1, 30)]
        elif chance.random() < 0.3:
            del out[place:]
    return bytes(out)
