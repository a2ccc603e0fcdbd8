"""The binary tensor data extension: JSON first, then the data of the binary tensors in their order, without padding."""

from collections.abc import Sequence

from hyperion.schema.call import Buffer
from hyperion.schema.errors import MalformedRequest, Unsupported
from hyperion.wire.bytes_elements import check_bytes_tensor, check_number
from hyperion.wire.limits import WireLimits
from hyperion.wire.tensor import Datatype


class BinaryPart:
    """The bytes after the JSON of one request, handed out tensor by tensor as views (nothing is copied)."""

    def __init__(self, body: Buffer, header_length: int, limits: WireLimits) -> None:
        """`header_length` is the value of the header Inference-Header-Content-Length. Raises MalformedRequest."""
        if header_length == 0:
            raise Unsupported(
                "raw binary requests (Inference-Header-Content-Length: 0) are not supported; send JSON first"
            )
        if not 0 < header_length <= len(body):
            raise MalformedRequest(
                f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes"
            )
        view = memoryview(body)
        self.json = bytes(view[:header_length])
        self._rest = view[header_length:]
        self._offset = 0
        self._limits = limits
        self._elements = 0  # of BYTES tensors

    def take(self, datatype: Datatype, shape: Sequence[int], count: int, size: int) -> memoryview:
        """The next `size` bytes, which must be the data of a tensor. Raises MalformedRequest when they are not, and
        TooLarge for too many BYTES elements."""
        if datatype.size and size != count * datatype.size:
            wanted = count * datatype.size
            raise MalformedRequest(f"{datatype.name} {list(shape)} takes {wanted} bytes, binary_data_size is {size}")
        start = self._offset
        if start + size > len(self._rest):
            raise MalformedRequest(f"binary_data_size is {size}, {len(self._rest) - start} bytes of the body are left")
        self._offset = start + size
        data = self._rest[start : start + size]
        if not datatype.size:
            self._elements += count
            check_number(self._elements, self._limits.max_bytes_elements)
            check_bytes_tensor(data, count)
        elif datatype.name == "BOOL" and bytes(data).translate(None, b"\0\1"):
            raise MalformedRequest("BOOL data has bytes other than 0 and 1")
        return data

    def check_end(self) -> None:
        """Raise MalformedRequest when bytes are left that belong to no tensor."""
        if self._offset != len(self._rest):
            raise MalformedRequest(f"the body has {len(self._rest) - self._offset} bytes that belong to no tensor")
