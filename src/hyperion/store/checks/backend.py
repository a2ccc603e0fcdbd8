"""What answers for an endpoint: exactly one of a registered model, another server and a graph, and what fields mean
nothing to each. Called by `endpoint`; pure."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from hyperion.schema.protect import DeclaredTensor, Upstream
from hyperion.schema.resource import Batching, EndpointSpec, Replicas, Resources, Rollout
from hyperion.store.checks.graph import check_graph
from hyperion.store.checks.protection import check_reference
from hyperion.store.checks.ranges import Path, Refuse, check_within

MAX_URL = 2_048
MAX_CONCURRENCY = 1_024
MAX_TENSORS = 64  # these four as in `wire/limits`
MAX_NAME_BYTES = 1_024
MAX_RANK = 8
MAX_ELEMENTS = 1 << 31
SCHEMES = {"oip-http": ("http", "https"), "oip-grpc": ("grpc", "http", "https")}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+~-]{0,255}")


def check_backend(name: str, spec: EndpointSpec, refuse: Refuse) -> None:
    """Refuse an endpoint `name` with no backend or several, and what the one means nothing to."""
    backends = {"model": bool(spec.model), "upstream": spec.upstream is not None, "graph": spec.graph is not None}
    named = [kind for kind, is_there in backends.items() if is_there]
    if len(named) != 1:
        got = " and ".join(named) or "none"
        raise refuse(("spec",), f"expected exactly one of model (NAME@VERSION), upstream and graph, got {got}")
    if spec.model:
        check_reference(spec.model, ("spec", "model"), refuse)
        return
    if spec.rollout != Rollout():
        raise refuse(("spec", "rollout"), f"means nothing to an endpoint with {named[0]}: there are no versions")
    if spec.upstream is not None:
        _check_upstream(spec.upstream, refuse)
        idle = {"replicas", "resources"} | (set() if spec.upstream.batch else {"batching"})
    else:
        assert spec.graph is not None, "it is the third kind"
        check_graph(name, spec.graph, refuse)
        runs_models = any(step.model for step in spec.graph.steps)
        idle = set() if runs_models else {"replicas", "resources", "batching"}
    defaults = {"replicas": Replicas(), "resources": Resources(), "batching": Batching()}
    for field in sorted(idle):
        if getattr(spec, field) != defaults[field]:
            raise refuse(("spec", field), f"means nothing here: {_NO_RUNNERS[named[0]]}")


_NO_RUNNERS = {
    "upstream": "another server answers; for batches of ours say upstream.batch",
    "graph": "none of its steps names a model of its own",
}


def _check_upstream(upstream: Upstream, refuse: Refuse) -> None:
    at: Path = ("spec", "upstream")
    if upstream.protocol == "openai":
        raise refuse((*at, "protocol"), "openai is not done by this version; expected oip-http or oip-grpc")
    _check_url(upstream, (*at, "url"), refuse)
    for field in ("model", "version"):
        text = getattr(upstream, field)
        if text and not _NAME.fullmatch(text):
            raise refuse((*at, field), f"expected 1 to 256 letters, digits or any of . _ : + ~ -, got {text[:80]!r}")
    for field in ("headers_from", "ca_file"):
        text = getattr(upstream, field)
        if text and not text.startswith("/"):
            raise refuse((*at, field), f"expected the absolute path of a file, got {text[:80]!r}")
    if upstream.ca_file and not upstream.url.startswith("https:"):
        raise refuse((*at, "ca_file"), "means nothing without TLS; expected an https:// URL")
    check_within(upstream.concurrency, 1, MAX_CONCURRENCY, (*at, "concurrency"), refuse)
    _check_tensors(upstream.inputs, (*at, "inputs"), refuse)
    _check_tensors(upstream.outputs, (*at, "outputs"), refuse)


def _check_tensors(tensors: Sequence[DeclaredTensor], at: Path, refuse: Refuse) -> None:
    if len(tensors) > MAX_TENSORS:
        raise refuse(at, f"expected up to {MAX_TENSORS}, got {len(tensors)}")
    names: set[str] = set()
    for index, tensor in enumerate(tensors):
        here = (*at, index)
        if not 1 <= len(tensor.name.encode()) <= MAX_NAME_BYTES:
            raise refuse((*here, "name"), f"expected 1 to {MAX_NAME_BYTES} bytes, got {len(tensor.name.encode())}")
        if tensor.name in names:
            raise refuse((*here, "name"), f'"{tensor.name[:80]}" is there twice')
        names.add(tensor.name)
        if len(tensor.shape) > MAX_RANK:
            raise refuse((*here, "shape"), f"expected up to {MAX_RANK} axes, got {len(tensor.shape)}")
        for axis, size in enumerate(tensor.shape):
            check_within(size, -1, MAX_ELEMENTS, (*here, "shape", axis), refuse)


def _check_url(upstream: Upstream, here: Path, refuse: Refuse) -> None:
    """The messages leave the URL out: it may hold a password."""
    schemes = SCHEMES[upstream.protocol]
    expected = " or ".join(f"{scheme}://HOST:PORT" for scheme in schemes)
    try:
        parts = urlsplit(upstream.url)
        port = parts.port
    except ValueError as error:
        raise refuse(here, f"is no URL; expected {expected}") from error
    if len(upstream.url) > MAX_URL:
        raise refuse(here, f"longer than {MAX_URL} characters")
    if parts.username is not None or parts.password is not None:
        raise refuse(here, "must not hold credentials; put them into the file that upstream.headers_from names")
    if parts.scheme not in schemes or not _HOST.fullmatch(parts.hostname or "") or port == 0:
        raise refuse(here, f"expected {expected} with protocol {upstream.protocol}")
    if parts.scheme == "grpc" and port is None:
        raise refuse(here, "expected a port: grpc has no default one")
    if parts.query or parts.fragment or upstream.url.endswith(("?", "#")):
        raise refuse(here, "must end with the path: no query, no fragment")
    if not _PATH.fullmatch(parts.path) or (upstream.protocol == "oip-grpc" and parts.path.strip("/")):
        raise refuse(here, "expected no path, or with protocol oip-http the one in front of /v2")
