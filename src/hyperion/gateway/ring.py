"""The shared memory that one gateway shares with one runner: two slots for requests, two for replies.

Made by `gateway/dispatch`, passed to the runner once per connection. Pages are taken by the kernel only when touched.
The descriptor is sealed, so that a runner can not shrink it under the gateway (which would end it with SIGBUS).
"""

import fcntl
import mmap
import os
from typing import Final

from hyperion.schema.call import Buffer
from hyperion.wire.frame import MARK

SLOTS: Final = 2  # one batch computes, the next one waits in the runner's socket
PAGE: Final = 4096
_F_ADD_SEALS: Final = 1033
_SEALS: Final = 0x0001 | 0x0002 | 0x0004  # no more seals, no shrinking, no growing


class Ring:
    """`SLOTS` request slots and as many reply slots of `slot_bytes` each, behind one page with the runner's mark."""

    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes = -(-slot_bytes // PAGE) * PAGE
        size = PAGE + 2 * SLOTS * self.slot_bytes
        self.fd = os.memfd_create("hyperion-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        fcntl.fcntl(self.fd, _F_ADD_SEALS, _SEALS)
        self._map = mmap.mmap(self.fd, size)
        self.view = memoryview(self._map)

    def request_offset(self, slot: int) -> int:
        return PAGE + slot * self.slot_bytes

    def reply_offset(self, slot: int) -> int:
        return PAGE + (SLOTS + slot) * self.slot_bytes

    def write(self, offset: int, data: Buffer) -> int:
        """Copies `data` to `offset`; returns the offset behind it."""
        view = memoryview(data).cast("B") if not isinstance(data, bytes) else data
        end = offset + len(view)
        self.view[offset:end] = view
        return end

    def computing(self) -> int:
        """Id of the batch that the runner computes, or computed when it died; 0 for none."""
        return int(MARK.unpack_from(self.view, 0)[0])

    def close(self) -> None:
        """Gives the descriptor back; the memory goes when the last answer that looks into it is gone."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
