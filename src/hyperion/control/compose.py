"""Endpoints that no runner of ours answers for alone: upstreams and graphs, added to the snapshot of each look.

Called by the control loop through `release/releases`. Keeps nothing between looks but what `Upstreams` knows: what is
published already is what it goes on from, so that a new control process finds it as it was.

An endpoint that changes from one kind to another, or from one graph to the next, is served as before until what it is
to be can answer.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Struct

from hyperion.control.specs import protection_of
from hyperion.control.upstream.upstreams import NOT_YET, Known, Upstreams
from hyperion.policy.graph.members import name_member
from hyperion.policy.graph.signature import Unfit, derive_signature
from hyperion.schema.model import ModelOptions
from hyperion.schema.protect import Graph, GraphStep, Upstream
from hyperion.schema.resource import Endpoint
from hyperion.schema.snapshot import GRAPH, UPSTREAM, ModelState, Replica, ServedModel, ServedVersion, Snapshot


class Declared(Struct, frozen=True):
    """An endpoint with an upstream or a graph, as it is to be."""

    endpoint: Endpoint
    deleting: bool = False


class Wanted(Struct, frozen=True):
    """What a look has to add to a snapshot: the `declared` endpoints, the names of those that are `released` from the
    registry, what keeps members from answering, by their names, and those of them that will not by waiting: `stuck`."""

    declared: Sequence[Declared]
    released: Collection[str] = ()
    reasons: Mapping[str, str] = {}
    stuck: Collection[str] = ()


class Composer:
    """All methods run on the event loop's thread."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def compose(self, new: Snapshot, published: Snapshot, wanted: Wanted) -> Snapshot:
        """The snapshot with what can be served of upstreams and graphs, and the states of all. `published` is the one
        before."""
        old = {model.name: model for model in published.models}
        served = {model.name: model for model in new.models}
        taken = served.keys() | {state.name for state in new.index}
        declared = [one.endpoint for one in wanted.declared if not one.deleting]
        declared = [one for one in declared if one.metadata.name not in taken]
        states = {}
        upstreams = {
            one.metadata.name: fill_upstream(one.metadata.name, one.spec.upstream)
            for one in declared
            if one.spec.upstream is not None
        }
        self._upstreams.follow(upstreams)
        for one in declared:
            if one.metadata.name in upstreams:
                name = one.metadata.name
                model, reason = self._serve_upstream(one, upstreams[name], old.get(name))
                served |= {name: model} if model is not None else {}
                states[name] = _state_of_upstream(name, model, reason)
        for name in wanted.released:  # one that was an upstream or a graph until its first version is ready
            if name not in served and name in old and is_composed(old[name]):
                served[name] = old[name]
        graphs = [one for one in declared if one.spec.graph is not None]
        coming = {row.name for row in (*new.index, *states.values()) if row.state == "LOADING"}
        states |= _serve_graphs(graphs, served, old, wanted, coming)
        models = tuple(served.values())
        shown = [
            msgspec.structs.replace(states[one.metadata.name], access=protection_of(one.spec).access)
            for one in declared
        ]
        index = (*new.index, *shown)
        return msgspec.structs.replace(new, models=models, index=index)

    def _serve_upstream(
        self, endpoint: Endpoint, upstream: Upstream, old: ServedModel | None
    ) -> tuple[ServedModel | None, str]:
        finding = self._upstreams.find(endpoint.metadata.name)
        known = finding.known
        if known is None and old is not None:
            published = old.versions[0]
            if published.upstream != upstream:
                return _protect(endpoint, old), finding.reason
            known = Known(published.signature, published.platform, published.digest)  # of control's last life
        if known is None:
            return None, finding.reason
        return _make_model(endpoint, _make_upstream_version(endpoint, upstream, known)), finding.reason


def fill_upstream(name: str, upstream: Upstream) -> Upstream:
    """The upstream with the name of its model, which is the endpoint's own where it says nothing.

    >>> fill_upstream("fraud", Upstream("http://127.0.0.1:8000")).model
    'fraud'
    """
    return upstream if upstream.model else msgspec.structs.replace(upstream, model=name)


def is_composed(model: ServedModel) -> bool:
    """Whether no runner of ours answers for it alone."""
    return any(version.upstream is not None or version.graph is not None for version in model.versions)


def list_held(wanted: Sequence[Declared], published: Snapshot) -> frozenset[str]:
    """Endpoints that became an upstream or a graph, and are served by their runners until that can answer."""
    names = {one.endpoint.metadata.name for one in wanted if not one.deleting}
    return frozenset(model.name for model in published.models if model.name in names and not is_composed(model))


def _serve_graphs(
    graphs: Sequence[Endpoint],
    served: dict[str, ServedModel],
    old: Mapping[str, ServedModel],
    wanted: Wanted,
    coming: set[str],
) -> dict[str, ModelState]:
    """Add every graph whose steps are served to `served`, and every one that only has to wait to `coming`, which is
    what is being loaded; a graph may be a step of another, so this goes on while one is added. Return all states."""
    states: dict[str, ModelState] = {}
    pending = list(graphs)
    while pending:
        left, were_coming = [], len(coming)
        for endpoint in pending:
            name, graph = endpoint.metadata.name, endpoint.spec.graph
            assert graph is not None, "only graphs are given"
            try:
                served[name] = _make_model(endpoint, _make_graph_version(endpoint, graph, served, wanted.reasons))
                states[name] = ModelState(name, GRAPH, "READY")
            except Unfit as problem:
                waits = _only_waits(endpoint, graph, served, coming, wanted.stuck)
                states[name] = ModelState(name, GRAPH, "LOADING" if waits else "UNAVAILABLE", str(problem))
                coming |= {name} if waits else set()
                left.append(endpoint)
        if len(left) == len(pending) and len(coming) == were_coming:
            break
        pending = left
    for endpoint in pending:
        before = _go_on(endpoint, old.get(endpoint.metadata.name), served, wanted.reasons)
        if before is not None:
            served[before.name] = before
            states[before.name] = msgspec.structs.replace(states[before.name], state="READY")
    return states


def _only_waits(
    endpoint: Endpoint, graph: Graph, served: Collection[str], coming: Collection[str], stuck: Collection[str]
) -> bool:
    """Whether all that a graph lacks is steps that are being loaded. What somebody has to mend first does not count:
    nobody should hold a gateway for unready because of it."""
    hard = [(step, find_member(endpoint.metadata.name, step)) for step in graph.steps if not step.soft]
    missing = [(step, name) for step, name in hard if name not in served]
    return bool(missing) and all(name not in stuck if step.model else name in coming for step, name in missing)


def _go_on(
    endpoint: Endpoint, old: ServedModel | None, served: Mapping[str, ServedModel], reasons: Mapping[str, str]
) -> ServedModel | None:
    """What is published, as long as it can go on: a graph needs its own steps."""
    if old is None:
        return None
    graph = old.versions[0].graph
    if graph is None:
        return _protect(endpoint, old)
    try:
        return _make_model(endpoint, _make_graph_version(endpoint, graph, served, reasons))
    except Unfit:
        return None


def _make_graph_version(
    endpoint: Endpoint, graph: Graph, served: Mapping[str, ServedModel], reasons: Mapping[str, str]
) -> ServedVersion:
    """Raises `Unfit` where a hard step is not served, or the steps do not fit each other."""
    members, digests = {}, []
    for step in graph.steps:
        name = find_member(endpoint.metadata.name, step)
        model = served.get(name)
        if model is None:
            if not step.soft:
                what = f"model {step.model}" if step.model else f'endpoint "{name}"'
                reason = reasons.get(name, "is not served" if step.model else "is not served here")
                raise Unfit(f'step "{step.name}": {what} {reason}')
            continue
        version = next(one for one in model.versions if one.version == model.default_version)
        if step.upstream and version.upstream is None:
            raise Unfit(f'step "{step.name}": endpoint "{name}" is no upstream; name it with `endpoint`')
        members[step.name] = version.signature
        digests.append((step.name, _answering_digests(model)))
    signature = derive_signature(graph, members)
    digest = hashlib.sha256(msgspec.json.encode((graph, digests))).hexdigest()
    options = ModelOptions(deadline_ms=endpoint.spec.deadline_ms)
    return ServedVersion(GRAPH, f"sha256:{digest}", 1, f"graph_{graph.kind}", signature, options, (), graph=graph)


def find_member(owner: str, step: GraphStep) -> str:
    """The endpoint that a step calls.

    >>> find_member("fraud", GraphStep("small", model="a@1")), find_member("fraud", GraphStep("b", endpoint="large"))
    ('fraud~small', 'large')
    """
    return name_member(owner, step.name) if step.model else step.endpoint or step.upstream


def _answering_digests(model: ServedModel) -> list[str]:
    """Of every version that may answer now."""
    tracks = model.split.tracks if model.split is not None else ()
    names = {track.version for track in tracks} or {model.default_version}
    return [version.digest for version in model.versions if version.version in names]


def _make_upstream_version(endpoint: Endpoint, upstream: Upstream, known: Known) -> ServedVersion:
    batching = endpoint.spec.batching
    options = ModelOptions(
        max_batch_size=batching.max_size if upstream.batch else 1,  # 1: each request as it came
        max_delay_ms=batching.max_delay_ms,
        replicas=upstream.concurrency,
        deadline_ms=endpoint.spec.deadline_ms,
    )
    name = endpoint.metadata.name
    connections = tuple(Replica(f"{name}@{UPSTREAM}.{n}", upstream.url) for n in range(upstream.concurrency))
    return ServedVersion(
        UPSTREAM, known.digest, 1, known.platform, known.signature, options, connections, upstream=upstream
    )


def _make_model(endpoint: Endpoint, version: ServedVersion) -> ServedModel:
    spec = endpoint.spec
    return ServedModel(
        endpoint.metadata.name,
        version.version,
        (version,),
        log_sample=spec.log.sample,
        redact=spec.log.redact,
        protection=protection_of(spec),
    )


def _protect(endpoint: Endpoint, model: ServedModel) -> ServedModel:
    """What is published, for the callers whom the resource lets in now."""
    spec = endpoint.spec
    return msgspec.structs.replace(
        model, log_sample=spec.log.sample, redact=spec.log.redact, protection=protection_of(spec)
    )


def _state_of_upstream(name: str, model: ServedModel | None, reason: str) -> ModelState:
    """One that was asked and did not answer is not on its way: nobody knows whether it ever will be."""
    missing = "LOADING" if reason == NOT_YET else "UNAVAILABLE"
    return ModelState(name, UPSTREAM, missing if model is None else "READY", reason)
