"""A call on its way through the gateway, and who waits for its answer."""

from collections.abc import Callable
from typing import Protocol

from hyperion.schema.call import InferenceAnswer, InferenceCall
from hyperion.schema.errors import HyperionError


class Reply(Protocol):
    """The edge's side of one call; called on the event loop's thread."""

    def answer(self, answer: InferenceAnswer) -> None:
        """One answer; the last one (and a unary call's only one) has `final` set."""
        ...

    def fail(self, error: HyperionError) -> None:
        """Instead of, or for a stream after, answers. Nothing follows."""
        ...


class Unheard:
    """The reply of a call that has ended. It takes the caller's place, so that call and caller, which know each other, are
    freed at once and not by the garbage collector."""

    def answer(self, answer: InferenceAnswer) -> None:
        raise AssertionError(f"an answer for a call to {answer.model} that has ended")

    def fail(self, error: HyperionError) -> None:
        raise AssertionError(f"an error for a call that has ended: {error.message}")


UNHEARD: Reply = Unheard()


class PendingCall:
    """One admitted call. Mutable, owned by the event loop; it ends exactly once, in `finish` or `fail` or `cancel`."""

    __slots__ = (
        "call",
        "deadline_ns",
        "deaths_alone",
        "dispatched_ns",
        "done",
        "key",
        "on_cancel",
        "order",
        "parts",
        "protocol",
        "received_ns",
        "reply",
        "request_id",
        "rows",
        "size_bytes",
        "stream",
    )

    def __init__(
        self,
        call: InferenceCall,
        reply: Reply,
        protocol: str,
        request_id: str,
        received_ns: int,
        deadline_ns: int,
        rows: int,
        size_bytes: int,
        stream: bool,
    ) -> None:
        self.call = call
        self.reply = reply
        self.protocol = protocol
        self.request_id = request_id
        self.received_ns = received_ns
        self.deadline_ns = deadline_ns
        self.rows = rows
        self.size_bytes = size_bytes
        self.stream = stream
        self.done = False
        self.dispatched_ns = 0
        self.deaths_alone = 0
        self.parts = 0
        self.order = 0
        self.key: object = None
        self.on_cancel: Callable[[PendingCall], None] | None = None

    def cancel(self) -> None:
        """The caller left: nobody wants the answer. Harmless when the call has ended already."""
        if not self.done and self.on_cancel is not None:
            self.on_cancel(self)
