"""BYTES tensors: each element is a 4-byte little-endian length and that many bytes. Used by `tensor` and the codecs.

Never decodes text: an element is bytes, and what they mean is the model's business.
"""

from collections.abc import Iterable
from itertools import pairwise
from struct import Struct

from hyperion.schema.call import Buffer
from hyperion.schema.errors import MalformedRequest, TooLarge

LENGTH = Struct("<I")
MAX_ELEMENT_BYTES = 2**32 - 1


def encode_elements(elements: Iterable[bytes]) -> bytes:
    """Join elements into the data of a BYTES tensor. Raises TooLarge for one that its length prefix cannot hold."""
    parts: list[bytes] = []
    pack = LENGTH.pack
    for element in elements:
        if len(element) > MAX_ELEMENT_BYTES:
            raise TooLarge(f"a BYTES element has {len(element)} bytes; at most {MAX_ELEMENT_BYTES} fit")
        parts.append(pack(len(element)))
        parts.append(element)
    return b"".join(parts)


def element_offsets(data: Buffer, count: int) -> list[int]:
    """Offsets of `count` elements in `data` and, last, the end: count + 1 numbers.

    Raises MalformedRequest unless exactly `count` whole elements fill the buffer. Nothing is allocated for a `count`
    that the buffer cannot hold.
    """
    size = len(data)
    if count * 4 > size:
        raise MalformedRequest(f"BYTES data of {size} bytes cannot hold {count} elements of 4 bytes or more")
    offsets = [0]
    offset = 0
    read = LENGTH.unpack_from
    for index in range(count):
        if offset + 4 > size:
            raise MalformedRequest(f"BYTES data ends at byte {size}, inside the length of element {index} of {count}")
        offset += 4 + read(data, offset)[0]
        if offset > size:
            raise MalformedRequest(f"BYTES element {index} of {count} ends at byte {offset}, the data at byte {size}")
        offsets.append(offset)
    if offset != size:
        raise MalformedRequest(f"BYTES data has {size - offset} bytes after its last element, number {count}")
    return offsets


def check_number(count: int, most: int) -> None:
    """Raise TooLarge for more BYTES elements than one request may have: each has a length of its own to be read, while
    everybody else waits."""
    if count > most:
        raise TooLarge(f"{count} BYTES elements, at most {most} are allowed in one request; send fewer rows")


def check_bytes_tensor(data: Buffer, count: int) -> None:
    """Raise MalformedRequest unless `data` is exactly `count` well-formed elements."""
    element_offsets(data, count)


def decode_elements(data: Buffer, count: int) -> list[bytes]:
    """The `count` elements of a BYTES tensor. Raises MalformedRequest as `element_offsets` does."""
    offsets = element_offsets(data, count)
    view = memoryview(data)
    return [bytes(view[start + 4 : stop]) for start, stop in pairwise(offsets)]


def row_offsets_bytes(data: Buffer, rows: int, elements_per_row: int) -> list[int]:
    """Offsets of the rows of a BYTES tensor and, last, the end: rows + 1 numbers. Raises as `element_offsets` does."""
    if elements_per_row == 0:
        element_offsets(data, 0)
        return [0] * (rows + 1)
    return element_offsets(data, rows * elements_per_row)[::elements_per_row]
