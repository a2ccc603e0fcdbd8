"""The kind of pool that a version needs: runners of ours, another server, or a graph of other endpoints. Called by the
maker of pools that `gateway/process` gives to `gateway/route`.
"""

from hyperion.gateway.graph.pool import GraphPool
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.setting import PoolSetting
from hyperion.gateway.upstream.pool import UpstreamPool
from hyperion.schema.snapshot import ServedVersion


def make_pool(model: str, served: ServedVersion, setting: PoolSetting) -> VersionPool:
    """A `VersionPool`; an `UpstreamPool` where the version names an upstream; a `GraphPool` where it is a graph."""
    if served.graph is not None:
        return GraphPool(model, served, setting)
    if served.upstream is not None:
        return UpstreamPool(model, served, setting)
    return VersionPool(model, served, setting)
