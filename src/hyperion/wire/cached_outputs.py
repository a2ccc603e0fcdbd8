"""Output tensors as one value of a shared cache: written by one gateway, read by another, maybe of another release.

Called by `gateway/cache/shared`. A value says which form it has and carries a digest over its key and itself, so that
one that was cut off, mixed up or changed is no answer but nothing.

    form (1 byte) · SHA-256 over key and body, first 16 bytes · body: MessagePack [[name, datatype, shape, data] …]
"""

from hashlib import sha256
from typing import Final

import msgspec

from hyperion.schema.call import Tensor
from hyperion.schema.errors import HyperionError
from hyperion.wire.tensor import check_tensor_data

FORM: Final = b"\x01"
DIGEST_BYTES: Final = 16
HEAD_BYTES: Final = len(FORM) + DIGEST_BYTES

_Row = tuple[str, str, tuple[int, ...], bytes]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Row]).decode


def encode_outputs(key: bytes, outputs: tuple[Tensor, ...]) -> bytes:
    """The value that is kept under `key`."""
    body = _encode([(one.name, one.datatype, one.shape, bytes(one.data)) for one in outputs])
    return b"".join((FORM, _digest(key, body), body))


def decode_outputs(key: bytes, value: bytes) -> tuple[Tensor, ...] | None:
    """What `encode_outputs` was given for that key; None for any other bytes.

    >>> kept = encode_outputs(b"key", (Tensor("y", "INT8", (2,), b"ab"),))
    >>> decode_outputs(b"key", kept)
    (Tensor('y', 'INT8', (2,), b'ab'),)
    >>> decode_outputs(b"other", kept), decode_outputs(b"key", kept[:-1]), decode_outputs(b"key", b"")
    (None, None, None)
    """
    if value[:1] != FORM or value[1:HEAD_BYTES] != _digest(key, value[HEAD_BYTES:]):
        return None
    try:
        outputs = tuple([Tensor(*row) for row in _decode(value[HEAD_BYTES:])])
        for one in outputs:
            check_tensor_data(one)
    except (msgspec.DecodeError, HyperionError):
        return None
    return outputs


def _digest(key: bytes, body: bytes) -> bytes:
    return sha256(key + body).digest()[:DIGEST_BYTES]
