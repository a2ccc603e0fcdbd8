"""What every pool of a gateway is made with, whatever it serves. Made once, by `gateway/process`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct, field

from hyperion.gateway.graph.book import GraphBook
from hyperion.gateway.open_calls import Finished
from hyperion.gateway.pending import PendingCall
from hyperion.telemetry.logs import EventLog

if TYPE_CHECKING:
    from hyperion.gateway.pool import VersionPool

BatchDone = Callable[["VersionPool", int, list[PendingCall], int, int, int], None]
FindPool = Callable[[str, str], "VersionPool"]


class PoolSetting(Struct, frozen=True):
    """`queue_rows` bounds the rows that wait in a pool, `slot_bytes` what one batch may have in a runner's memory.

    `finished(pending, error, queue_ns, compute_ns, now_ns)` is called once for every call that was put in, but for
    those that a batch answered, of which `batch_done(pool, rows, answered, formed_ns, back_ns, compute_ns)` tells.
    `find(model, version)` gives the pools of a graph's members, and raises UnknownModel. The credentials of upstreams
    lie below one of `credential_dirs`. `graphs` counts what graphs do.
    """

    queue_rows: int
    slot_bytes: int
    finished: Finished
    batch_done: BatchDone
    log: EventLog
    find: FindPool
    credential_dirs: tuple[str, ...] = ()
    graphs: GraphBook = field(default_factory=GraphBook)
