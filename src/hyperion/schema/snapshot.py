"""All that a gateway needs to serve: published by control, held immutable by each gateway, kept on disk as last
good."""

from typing import Final

from msgspec import Struct

from hyperion.schema.model import ModelOptions, Signature
from hyperion.schema.protect import Access, Directory, Graph, Protection, Upstream
from hyperion.schema.release import Split

# The versions of what no runner of ours answers for alone.
UPSTREAM: Final = "upstream"
GRAPH: Final = "graph"


class Replica(Struct, frozen=True):
    """One runner process of a version: its name in the fleet and the Unix socket it listens on."""

    name: str
    socket: str


class ServedVersion(Struct, frozen=True):
    """One version that answers requests. `generation` grows with every (re)load, so that a reload of the same version
    is a swap between two different replica sets. Where `upstream` is there, another server answers, and `replicas` are
    the connections to it that may be open at a time, under names of ours."""

    version: str
    digest: str
    generation: int
    platform: str
    signature: Signature
    options: ModelOptions
    replicas: tuple[Replica, ...]
    upstream: Upstream | None = None
    graph: Graph | None = None


class ServedModel(Struct, frozen=True):
    """An endpoint: its versions, and the one that answers when none is named and there is no `split`. `log_sample` is
    the share of its requests, 0 to 1, of which a row is kept for lineage, without what `redact` names. `internal` ones
    are members of others and cannot be called by name."""

    name: str
    default_version: str
    versions: tuple[ServedVersion, ...]
    split: Split | None = None
    log_sample: float = 0.0
    redact: tuple[str, ...] = ()
    protection: Protection = Protection()
    internal: bool = False


class ModelState(Struct, frozen=True):
    """A row of the repository index: state is READY, LOADING, UNAVAILABLE or UNLOADING, as in the extension. `access`
    says to whom it is shown, as what is not served has nothing else that does."""

    name: str
    version: str
    state: str
    reason: str = ""
    access: Access | None = None


class Snapshot(Struct, frozen=True):
    """The whole of it. `version` grows by one with each change; `index` lists models that are not served, too."""

    version: int
    models: tuple[ServedModel, ...] = ()
    index: tuple[ModelState, ...] = ()
    directory: Directory = Directory()
