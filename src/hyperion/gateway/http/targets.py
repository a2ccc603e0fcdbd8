"""URL paths to targets: which route, which model, which version. Pure; called by `gateway/http/routes`, which keeps the
answers of recent paths."""

from typing import Final
from urllib.parse import unquote

from hyperion.schema.errors import UnknownRoute

FIXED: Final = {
    "": "root",
    "v2": "server",
    "v2/health/live": "live",
    "v2/health/ready": "ready",
    "v2/models": "models",
    "v2/repository/index": "index",
    "v1/models": "v1_models",
    "ping": "ping",
    "invocations": "invocations",
    "metrics": "metrics",
    "healthz": "live",
    "livez": "live",
    "readyz": "ready",
}
ACTIONS: Final = {
    (): "model",
    ("ready",): "model_ready",
    ("infer",): "infer",
    ("generate",): "generate",
    ("generate_stream",): "generate_stream",
}


class Target:
    """A route by name, and the model and version that the path names ("" where it does not)."""

    __slots__ = ("model", "route", "version")

    def __init__(self, route: str, model: str = "", version: str = "") -> None:
        self.route: Final = route
        self.model: Final = model
        self.version: Final = version

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash((self.route, self.model, self.version))

    def __repr__(self) -> str:
        return f"Target(route={self.route!r}, model={self.model!r}, version={self.version!r})"


def parse_path(path: bytes) -> Target:
    """The target of a request path. Raises UnknownRoute.

    >>> parse_path(b"/v2/models/fraud/versions/3/infer")
    Target(route='infer', model='fraud', version='3')
    >>> parse_path(b"/v1/models/fraud:predict").route
    'predict'
    """
    text = path.partition(b"?")[0].decode("latin-1")
    if not text.startswith("/") and "://" in text[:8]:  # absolute form, as proxies send it
        text = "/" + text.partition("://")[2].partition("/")[2]
    parts = [unquote(part, errors="replace") for part in text.strip("/").split("/")]
    route = FIXED.get("/".join(part.replace("/", "%2F") for part in parts))  # an escaped slash divides nothing
    if route is not None:
        return Target(route)
    if parts[:2] == ["v2", "models"] and len(parts) > 2:
        version = parts[4] if len(parts) > 4 and parts[3] == "versions" else ""
        action = ACTIONS.get(tuple(parts[5:] if version else parts[3:]))
        if action is not None:
            return Target(action, parts[2], version)
    if parts[:2] == ["v1", "models"] and len(parts) == 3:
        model, colon, verb = parts[2].rpartition(":")
        if not colon:
            return Target("v1_model", parts[2])
        if verb == "predict":
            return Target("predict", model)
    if parts[:2] == ["v2", "jobs"] and (len(parts) == 3 or (len(parts) == 4 and parts[3] == "result")):
        return Target("job" if len(parts) == 3 else "job_result", parts[2])
    if parts[:3] == ["v2", "repository", "models"] and len(parts) == 5 and parts[4] in ("load", "unload"):
        return Target(parts[4], parts[3])
    raise UnknownRoute(f'no route "{text[:200]}"; see GET /v2 and the documentation of the Open Inference Protocol')
