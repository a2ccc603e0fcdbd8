"""What the management API answers, as pydantic models, so that its OpenAPI document is complete.

Made from the records of the other rooms here and nowhere else.
"""

from typing import Any, Protocol

from pydantic import BaseModel, Field

from hyperion.api.desk import Desk
from hyperion.fleet.messages import Child
from hyperion.fleet.replicas import read_runners
from hyperion.schema.config import ControlConfig
from hyperion.schema.errors import NotReady
from hyperion.schema.model import TensorSpec
from hyperion.schema.snapshot import ServedVersion, Snapshot


class Management(Protocol):
    """What the API needs of control. Implemented in `control.management`, handed over by `cli`."""

    config: ControlConfig

    @property
    def desk(self) -> Desk | None:
        """The verbs over the store; None while it is not open."""

    async def load(self, model: str, parameters: dict[str, Any]) -> None:
        """Load or reload a model and wait until it serves."""

    async def unload(self, model: str) -> None:
        """Stop serving a model."""

    def snapshot(self) -> Snapshot:
        """What the gateways are told to serve."""

    def children(self) -> tuple[Child, ...]:
        """Every process of the tree but the supervisor."""

    def workers(self) -> dict[int, int]:
        """Connected gateways, and the snapshot version that each runs."""

    async def follow(self, endpoint: str) -> None:
        """Wait until every gateway runs what was decided last for an endpoint."""

    def member_reasons(self) -> dict[str, str]:
        """Why internal endpoints, and those that a PATH hides, do not answer, by name."""

    async def follow_writes(self) -> None:
        """Wait until every gateway runs what the store has now."""

    def rejected(self) -> dict[str, str]:
        """Endpoints that a gateway could not follow in full."""

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """What control adds to the metrics."""

    def is_ready(self) -> bool:
        """True once every model was served or found broken, and every gateway knows."""


def desk_of(management: Management) -> Desk:
    """The desk. Raises `NotReady` while the store is not open."""
    if management.desk is None:
        raise NotReady("the store is not open yet; try again in a second")
    return management.desk


class Problem(BaseModel):
    """Any answer that is no success: RFC 9457 problem details."""

    type: str = Field(description="a URN that is stable for a code")
    title: str
    status: int
    detail: str = Field(description="what was wrong, where, and what to do")
    code: str = Field(description="stable, for programs")
    error: str = Field(description="the same as detail")


class TensorView(BaseModel):
    """One input or output; -1 means any length."""

    name: str
    datatype: str
    shape: list[int]


class VersionView(BaseModel):
    """One version of a model."""

    version: str
    state: str = Field(description="READY, LOADING, UNAVAILABLE or UNLOADING")
    reason: str = ""
    digest: str = ""
    generation: int = Field(default=0, description="grows with every load")
    platform: str = ""
    inputs: list[TensorView] = []
    outputs: list[TensorView] = []
    options: dict[str, Any] = {}
    replicas: list[str] = []


class ModelView(BaseModel):
    """A model, which is an endpoint of the same name."""

    name: str
    default_version: str
    infer_url: str
    versions: list[VersionView]


class ReplicaView(BaseModel):
    """One runner process."""

    name: str
    model: str
    version: str
    generation: int
    state: str = Field(description="starting, ready, backoff, stopping or failed")
    pid: int
    restarts: int
    last_exit: str
    reason: str
    started_at: float = Field(description="seconds since 1970")
    ready_at: float = Field(description="seconds since 1970, 0 for not yet")


class ProcessView(BaseModel):
    """One process of the tree."""

    name: str
    state: str
    pid: int
    restarts: int
    last_exit: str
    started_at: float


class SettingView(BaseModel):
    """One setting of this platform, and where its value came from."""

    key: str
    value: str
    source: str


class StatusView(BaseModel):
    """The platform at a glance."""

    version: str
    ready: bool
    url: str
    snapshot_version: int
    gateways: dict[int, int] = Field(description="worker -> the snapshot version that it runs")
    rejected: dict[str, str] = Field(description="endpoint -> why a gateway could not follow its last change")
    models: list[ModelView]
    replicas: list[ReplicaView]
    processes: list[ProcessView]


def view_models(snapshot: Snapshot, url: str) -> list[ModelView]:
    """Return every model that is known, served or not, sorted by name."""
    served = {(model.name, version.version): version for model in snapshot.models for version in model.versions}
    defaults = {model.name: model.default_version for model in snapshot.models}
    views: dict[str, ModelView] = {}
    for state in snapshot.index:
        view = views.setdefault(
            state.name,
            ModelView(
                name=state.name,
                default_version=defaults.get(state.name, ""),
                infer_url=f"{url}/v2/models/{state.name}/infer",
                versions=[],
            ),
        )
        version = VersionView(version=state.version, state=state.state, reason=state.reason)
        view.versions.append(_add_served(version, served.get((state.name, state.version))))
    return [views[name] for name in sorted(views)]


def view_replicas(children: tuple[Child, ...]) -> list[ReplicaView]:
    """Return the runners among the children."""
    return [
        ReplicaView(
            name=child.name,
            model=config.spec.name,
            version=config.spec.version,
            generation=config.generation,
            state=child.state,
            pid=child.pid,
            restarts=child.restarts,
            last_exit=child.exit,
            reason=child.reason,
            started_at=child.started_at,
            ready_at=child.ready_at,
        )
        for child, config in read_runners(children)
    ]


def view_processes(children: tuple[Child, ...]) -> list[ProcessView]:
    """Return all children."""
    return [
        ProcessView(
            name=child.name,
            state=child.state,
            pid=child.pid,
            restarts=child.restarts,
            last_exit=child.exit,
            started_at=child.started_at,
        )
        for child in children
    ]


def _add_served(view: VersionView, served: ServedVersion | None) -> VersionView:
    if served is None:
        return view
    options = served.options
    return view.model_copy(
        update={
            "digest": served.digest,
            "generation": served.generation,
            "platform": served.platform,
            "inputs": _view_tensors(served.signature.inputs),
            "outputs": _view_tensors(served.signature.outputs),
            "options": {name: getattr(options, name) for name in options.__struct_fields__ if name != "env"},
            "replicas": [replica.name for replica in served.replicas],
        }
    )


def _view_tensors(specs: tuple[TensorSpec, ...]) -> list[TensorView]:
    return [TensorView(name=spec.name, datatype=spec.datatype, shape=list(spec.shape)) for spec in specs]
