"""A call on its way through the gateway, and who waits for its answer."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from hyperion.gateway.front.caller import ANONYMOUS
from hyperion.schema.call import BatchAnswer, InferenceAnswer, InferenceCall
from hyperion.schema.errors import DeadlineExceeded, Fields, HyperionError

if TYPE_CHECKING:
    from hyperion.gateway.front.guard import Visit
    from hyperion.gateway.release.tally import Tally

MODEL = "model"  # who serves, where nobody else had to
DEGRADED: Final = ((b"x-hyperion-degraded", b"true"),)  # header fields of a lesser answer
NO_HEADERS: Final[Mapping[bytes, bytes]] = {}
SHADOW = "shadow"  # in place of a protocol: nobody waits for the answer
INNER = "inner"  # in place of a protocol: a part of how another call is answered, which is the one that is recorded


class Reply(Protocol):
    """The edge's side of one call; called on the event loop's thread."""

    @property
    def together(self) -> "EncodeTogether | None":
        """What writes the answers of a whole batch of such calls at a fraction of the cost of each alone; None for a
        call that is to be answered alone."""
        ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """What the caller said in headers (in gRPC: metadata), names in lower case; empty where there is no caller."""
        ...

    def send(self, message: bytes) -> None:
        """The answer as `together` wrote it, in place of `answer`."""
        ...

    def answer(self, answer: InferenceAnswer) -> None:
        """One answer; the last one (and a unary call's only one) has `final` set."""
        ...

    def fail(self, error: HyperionError) -> None:
        """Instead of, or for a stream after, answers. Nothing follows."""
        ...

    def add_fields(self, fields: Fields) -> None:
        """Header fields (in gRPC: trailing metadata) that go with the answer, names in lower case."""
        ...


# One message for each of the replies, or None, and nothing done, where each has to be answered alone.
EncodeTogether = Callable[[list[Reply], BatchAnswer], list[bytes] | None]


class Unheard:
    """The reply of a call that has ended. It takes the caller's place, so that call and caller, which know each other,
    are freed at once and not by the garbage collector."""

    together = None
    headers = NO_HEADERS

    def send(self, message: bytes) -> None:
        raise AssertionError(f"{len(message)} bytes for a call that has ended")

    def answer(self, answer: InferenceAnswer) -> None:
        raise AssertionError(f"an answer for a call to {answer.model} that has ended")

    def fail(self, error: HyperionError) -> None:
        raise AssertionError(f"an error for a call that has ended: {error.message}")

    def add_fields(self, fields: Fields) -> None:
        raise AssertionError(f"{len(fields)} fields for a call that has ended")


UNHEARD: Reply = Unheard()


class PendingCall:
    """One admitted call. Mutable, owned by the event loop; it ends exactly once, and `done` says that it has.

    `rows` and `size_bytes` are what it weighs in a batch, `key` and `order` its lane and its place in the queue;
    `parts` counts the answers of a stream, `deaths_alone` the replicas that died while they computed nothing but this.
    `served` is the version that it was given to ("": none), `tally` what it counts for, if anything, `visit` what the
    endpoint's guard knows of it, if it has one. `priority` is what it has here, whatever it asked for, `caller` whose
    turn it takes in a queue. `served_by` says who answers where that is not the model it was sent to.
    """

    __slots__ = (
        "call",
        "caller",
        "deadline_ns",
        "deaths_alone",
        "done",
        "key",
        "on_cancel",
        "order",
        "parts",
        "priority",
        "protocol",
        "received_ns",
        "reply",
        "request_id",
        "rows",
        "served",
        "served_by",
        "size_bytes",
        "stream",
        "tally",
        "visit",
    )

    def __init__(
        self,
        call: InferenceCall,
        reply: Reply,
        protocol: str,
        request_id: str,
        received_ns: int,
        deadline_ns: int = 0,
        rows: int = 0,
        size_bytes: int = 0,
        stream: bool = False,
        done: bool = False,
        deaths_alone: int = 0,
        parts: int = 0,
        order: int = 0,
        key: object = None,
        on_cancel: Callable[["PendingCall"], None] | None = None,
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
        self.done = done
        self.deaths_alone = deaths_alone
        self.parts = parts
        self.order = order
        self.key = key
        self.on_cancel = on_cancel
        self.served = ""
        self.served_by = MODEL
        self.priority = call.priority
        self.caller = ANONYMOUS
        self.tally: Tally | None = None
        self.visit: Visit | None = None

    def cancel(self) -> None:
        """The caller left: nobody wants the answer. Harmless when the call has ended already."""
        if not self.done and self.on_cancel is not None:
            self.on_cancel(self)


def past_deadline(received_ns: int, deadline_ns: int, where: str) -> DeadlineExceeded:
    """The error of a call that came then and had until then. Short times are told to the microsecond: whoever took one
    unit for another sees it."""
    budget = f"{(deadline_ns - received_ns) / 1e6:.3f}".rstrip("0").rstrip(".")
    return DeadlineExceeded(f"the deadline of {budget} ms passed {where}")
