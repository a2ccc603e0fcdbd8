"""The kind of pool that a version needs: runners of ours, another server, or a graph of other endpoints. Called by the
maker of pools that `gateway/process` gives to `gateway/route`.
"""

from hyperion.gateway.graph.pool import FindPool, GraphPool
from hyperion.gateway.open_calls import Finished
from hyperion.gateway.pool import BatchDone, VersionPool
from hyperion.gateway.upstream.pool import UpstreamPool
from hyperion.schema.snapshot import ServedVersion
from hyperion.telemetry.logs import EventLog


def make_pool(
    model: str,
    served: ServedVersion,
    queue_rows: int,
    slot_bytes: int,
    finished: Finished,
    batch_done: BatchDone,
    log: EventLog,
    find: FindPool,
    credential_dirs: tuple[str, ...] = (),
) -> VersionPool:
    """A pool as `VersionPool` says; an `UpstreamPool` where the version names an upstream, whose credentials lie below
    one of `credential_dirs`; a `GraphPool` where it is a graph, whose members `find(model, version)` gives."""
    if served.graph is not None:
        return GraphPool(model, served, queue_rows, slot_bytes, finished, batch_done, log, find)
    if served.upstream is not None:
        return UpstreamPool(model, served, queue_rows, slot_bytes, finished, batch_done, log, credential_dirs)
    return VersionPool(model, served, queue_rows, slot_bytes, finished, batch_done, log)
