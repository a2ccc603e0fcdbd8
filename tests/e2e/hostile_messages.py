"""Hostile gRPC messages, written by hand as protocol buffers. Run by `hostile_bytes`."""

from tests.e2e.hostile_attack import ODD_NUMBERS, Attack, GrpcAttack, Random, damage

METHODS = (
    "ModelInfer",
    "ModelInfer",
    "ModelInfer",
    "ModelMetadata",
    "ModelReady",
    "RepositoryIndex",
    "ServerMetadata",
    "Nothing",
)


def varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes | int) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def infer_message(chance: Random | None = None) -> bytes:
    """A ModelInferRequest to `sums`; with a chance, one whose tensors lie."""
    message = field(1, b"sums")
    for name in (b"a", b"b"):
        shape = (
            [1, 2]
            if chance is None
            else [chance.choice((1, 1, 2, *ODD_NUMBERS[:14])) for _ in range(chance.choice((2, 2, 3, 9)))]
        )
        datatype = (
            b"FP32" if chance is None else chance.choice((b"FP32", b"FP32", b"BYTES", b"FP64", b"", b"\xff", b"X"))
        )
        packed = b"".join(varint(int(number)) for number in shape)
        one = field(1, name) + field(2, datatype) + field(3, packed)
        if chance is not None and chance.random() < 0.3:
            one += field(5, field(chance.randrange(1, 9), chance.randbytes(chance.randrange(20))))
        message += field(5, one)
    for _ in range(2 if chance is None else chance.randrange(4)):
        message += field(7, bytes(8) if chance is None else chance.randbytes(chance.choice((0, 8, 8, 7, 4096))))
    return message


def grpc_lies(chance: Random) -> Attack:
    return Attack("", grpc=GrpcAttack("ModelInfer", (infer_message(chance),), False, 0.0))


def grpc_damage(chance: Random) -> Attack:
    message = chance.choice((damage(chance, infer_message()), chance.randbytes(chance.choice((0, 1, 30, 5000)))))
    return Attack("", grpc=GrpcAttack(chance.choice(METHODS), (message,), False, 0.0))


def grpc_streams(chance: Random) -> Attack:
    messages = tuple(
        chance.choice((infer_message(), infer_message(chance), damage(chance, infer_message())))
        for _ in range(chance.randrange(6))
    )
    return Attack("", grpc=GrpcAttack("ModelStreamInfer", messages, True, chance.choice((0.0, 0.0, 0.002))))


def grpc_cancelled(chance: Random) -> Attack:
    return Attack("", grpc=GrpcAttack("ModelInfer", (infer_message(),), False, chance.choice((0.0001, 0.001, 0.005))))


def grpc_metadata(chance: Random) -> Attack:
    name = chance.choice(("x-request-id", "x-hyperion-priority", "traceparent", "x-odd"))
    metadata = ((name, chance.choice(("", "-1", "99", "x" * 3000, "a b"))),)
    return Attack("", grpc=GrpcAttack("ModelInfer", (infer_message(),), False, 0.0, metadata))
