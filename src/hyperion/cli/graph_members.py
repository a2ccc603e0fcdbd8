"""What each member of a graph says of rows, and what that costs it: asked one by one of a running platform, under names
that are there for as long as that takes. Called by `hyperion graph fit`.

A member that serves a step cannot be called by name, so the model of a step is applied as an endpoint of its own, with
the resources of the graph's, and deleted again whatever happens. Steps that are endpoints already are asked as they
are.
"""

import json
import re
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from hyperion.cli.admin import Admin
from hyperion.cli.client import call
from hyperion.policy.graph.members import AT_ONCE
from hyperion.schema.errors import Conflict, UpstreamFailed
from hyperion.schema.protect import GraphStep
from hyperion.schema.resource import Endpoint, EndpointSpec, Log, Metadata
from hyperion.store.resource_yaml import to_document

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

ROWS: Final = 64  # per request: what a batch holds by default
READY_S: Final = 120.0
LOOK_S: Final = 0.2
_COMPUTE: Final = re.compile(r"compute;dur=([0-9.]+)")


class Scored(Struct, frozen=True):
    """What a member said: `scores` [rows, classes], and the milliseconds of compute that a row took it."""

    scores: Any
    row_ms: float


@contextmanager
def serve_steps(admin: Admin, url: str, key: str, endpoint: Endpoint) -> Iterator[dict[str, str]]:
    """The URL of each step's member, by the step's name, while the block runs. Raises HyperionError."""
    graph = endpoint.spec.graph
    assert graph is not None, "only graphs have steps"
    made: list[str] = []
    urls = {}
    try:
        for step in graph.steps:
            name = step.endpoint or step.upstream or f"{endpoint.metadata.name}-fit-{step.name}"
            urls[step.name] = f"{url.rstrip('/')}/v2/models/{name}"
            if step.model:
                _apply_new(admin, to_document(_as_endpoint(name, step, endpoint.spec)))
                made.append(name)
        for step_url in urls.values():
            _wait_until_ready(step_url, key)
        yield urls
    finally:
        for name in made:
            admin.delete("endpoints", name, reason="graph fit")


def _apply_new(admin: Admin, document: dict[str, Any]) -> None:
    """Apply an endpoint that is to be deleted again. Raises `Conflict` where there is one of its name."""
    (change,) = admin.post("resources", body=[document], dry_run=True)["changes"]
    name = change["name"]
    if change["action"] != "created":
        raise Conflict(
            f'endpoint "{name}" is there already; if a fit that was killed left it: hyperion delete endpoint {name}'
        )
    admin.post("resources", body=[document], reason="graph fit")


def _as_endpoint(name: str, step: GraphStep, spec: EndpointSpec) -> Endpoint:
    own = EndpointSpec(
        step.model,
        resources=spec.resources,
        batching=spec.batching,
        access=spec.access,
        rollout=AT_ONCE,
        log=Log(sample=0.0),
    )
    return Endpoint(Metadata(name), own)


def _wait_until_ready(url: str, key: str) -> None:
    ends_s = time.monotonic() + READY_S
    while True:
        try:
            call(f"{url}/ready", token=key)
            return
        except UpstreamFailed as error:
            if time.monotonic() > ends_s:
                raise UpstreamFailed(f"not ready after {READY_S:.0f} s: {error.message}") from error
        time.sleep(LOOK_S)


def score(url: str, key: str, inputs: "Mapping[str, Array]", specs: Mapping[str, str], output: str) -> Scored:
    """Asks a member for all rows. `inputs` are the arrays by its own names, `specs` their datatypes. Raises
    `UpstreamFailed`."""
    import numpy as np

    rows = len(next(iter(inputs.values())))
    found, costs = [], []
    for start in range(0, rows, ROWS):
        part = {name: array[start : start + ROWS] for name, array in inputs.items()}
        tensors = [
            {"name": name, "datatype": specs[name], "shape": list(array.shape), "data": _list(array)}
            for name, array in part.items()
        ]
        answer, compute_ms = _ask(f"{url}/infer", key, {"inputs": tensors, "outputs": [{"name": output}]})
        tensor = answer["outputs"][0]
        count = len(next(iter(part.values())))
        found.append(np.array(tensor["data"], np.float64).reshape(count, -1))
        costs.append(compute_ms / count)
    return Scored(np.concatenate(found), statistics.median(costs))


def _list(array: "Array") -> list[Any]:
    values: list[Any] = array.ravel().tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def _ask(url: str, key: str, body: Any) -> tuple[Any, float]:
    """The answer, and the milliseconds that the model computed."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310  `call` checked the scheme
    try:
        with urllib.request.urlopen(request, timeout=60.0) as answer:  # noqa: S310
            timing = _COMPUTE.search(answer.headers.get("server-timing", ""))
            return json.loads(answer.read()), float(timing[1]) if timing else 0.0
    except urllib.error.HTTPError as error:
        raise UpstreamFailed(f"{url}: {error.code}: {error.read()[:200].decode('utf-8', 'replace')}") from error
    except (OSError, ValueError) as error:
        raise UpstreamFailed(f"{url}: {error}") from error
