"""One HTTP/2 stream, and how much nonsense a connection bears. State only; `connection` and `send` act."""

from collections import deque
from typing import Any, Final

from hyperion.wire.http2.frames import ENHANCE_YOUR_CALM, ConnectionFault

__all__ = ["DEFAULT_WINDOW", "Patience", "Stream"]

DEFAULT_WINDOW: Final = 65_535  # both sides begin with it (RFC 9113, section 6.9.2)

# What a peer does that costs it nothing, in points; served calls and time earn points.
MOST_POINTS: Final = 10_000.0
POINTS_PER_S: Final = 1_000.0
YOUNG_RESET: Final = 10.0  # a call that was opened and given up at once (CVE-2023-44487)
YOUNG_S: Final = 1.0
OUR_RESET: Final = 10.0  # a stream that had to be reset for the peer's fault
PING_POINTS: Final = 5.0
SETTINGS_POINTS: Final = 50.0
ODD_FRAME: Final = 1.0  # window updates, priorities, empty or tiny pieces of data, unknown types
ANSWERED: Final = 10.0
SENT_FRAME: Final = 2.0  # each may be answered by an update of two windows
TINY_BYTES: Final = 64


class Patience:
    """Points that a connection has left; the clock comes in.

    >>> patience = Patience(0.0)
    >>> patience.charge(4.0, 0.0)
    >>> patience.points
    9996.0
    """

    __slots__ = ("_at_s", "points")

    def __init__(self, now_s: float) -> None:
        self.points = MOST_POINTS
        self._at_s = now_s

    def charge(self, points: float, now_s: float, what: str = "frames that carry nothing") -> None:
        """Raises ConnectionFault when the points are used up."""
        self.points -= points
        if self.points >= 0:
            return
        self.points = min(MOST_POINTS, self.points + (now_s - self._at_s) * POINTS_PER_S)
        self._at_s = now_s
        if self.points < 0:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"too many {what}")

    def earn(self, points: float) -> None:
        """The peer did something sensible."""
        if self.points < MOST_POINTS:
            self.points += points


class Stream:
    """One request and its answer. `owner` is whatever the server keeps for it.

    `remote_ended`: the request is there whole. `local_ended`: the answer is queued whole. `closed`: neither side will
    send any more. `send_window` and `receive_window` are bytes; `withheld` keeps the latter from being filled up again.
    `queue` is data that waits for the window, `trailers` what follows it.
    """

    __slots__ = (
        "closed",
        "head",
        "id",
        "local_ended",
        "opened_s",
        "owner",
        "queue",
        "queued_bytes",
        "receive_window",
        "received_bytes",
        "remote_ended",
        "send_window",
        "trailers",
        "withheld",
    )

    def __init__(
        self, stream_id: int, head: Any, ended: bool, send_window: int, receive_window: int, now_s: float
    ) -> None:
        self.id = stream_id
        self.head = head
        self.owner: Any = None
        self.remote_ended = ended
        self.local_ended = False
        self.closed = False
        self.send_window = send_window
        self.receive_window = receive_window
        self.withheld = False
        self.received_bytes = 0
        self.queue: deque[memoryview] | None = None
        self.queued_bytes = 0
        self.trailers: bytes | None = None
        self.opened_s = now_s
