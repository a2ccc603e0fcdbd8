"""The declarative resources, as `apply` takes them: the fields that this Hyperion does, and no others."""

from typing import Any, Literal

from msgspec import Struct

API_VERSION = "hyperion/v1"
Strategy = Literal["all-at-once", "blue-green", "canary", "shadow", "champion-challenger"]


class Metadata(Struct, frozen=True, forbid_unknown_fields=True):
    """Who it is."""

    name: str
    labels: dict[str, str] = {}


class Replicas(Struct, frozen=True, forbid_unknown_fields=True):
    """Runner processes per version; `max` other than `min` needs autoscaling, which is not there yet."""

    min: int = 1
    max: int = 0


class Resources(Struct, frozen=True, forbid_unknown_fields=True):
    """What each replica gets. 0 threads divides the cores; 0 MiB sets no limit; gpu is how many, 0 or 1."""

    threads: int = 0
    memory_mb: int = 0
    gpu: int = 0


class Batching(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows per batch, the longest wait for more, and the sizes that are warmed up."""

    max_size: int = 64
    max_delay_ms: float = 0.0
    buckets: tuple[int, ...] = ()


class Slo(Struct, frozen=True, forbid_unknown_fields=True):
    """What is promised: per cent of requests that succeed, and latency in ms by quantile name (`p95`)."""

    availability: float = 99.9
    latency_ms: dict[str, float] = {}
    window_days: int = 30


class ShadowStage(Struct, frozen=True, forbid_unknown_fields=True):
    """A first stage in which the new version gets copies and never answers. `max_disagreement` is the share of pairs
    that may differ. `slices` names an input by whose first value pairs are told apart."""

    percent: float = 100.0
    min_pairs: int = 500
    max_disagreement: float = 0.02
    slices: str = ""


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """One step: so many per cent of the traffic for at least `hold_s` and `min_requests`; or, with `pause`, wait for
    `promote` or `resume`."""

    percent: float = 0.0
    hold_s: float = 60.0
    min_requests: int = 100
    pause: bool = False


class RatioLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """Halt when the canary's rate of bad requests is provably more than `ratio` times the control's."""

    ratio: float = 1.2


class SlowLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """As `RatioLimit`, for requests slower than the control's frozen `quantile` (or the SLO's, where one is given)."""

    ratio: float = 1.2
    quantile: float = 0.95


class DriftLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """Halt when the predictions' distribution is provably another than the control's and by more than `distance`
    (total variation, 0 to 1)."""

    distance: float = 0.1


class QualityLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """Halt when the canary, judged by labels, is provably worse than the control by more than `margin`."""

    metric: str = "accuracy"
    margin: float = 0.01


class QueryLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """A PromQL query whose value must stay within `min` and `max`. `provider` is the Prometheus server's URL."""

    promql: str
    max: float | None = None
    min: float | None = None
    provider: str = ""
    interval_s: float = 15.0
    name: str = ""


class Halt(Struct, frozen=True, forbid_unknown_fields=True):
    """What halts a rollout. `errors` and `slow` are on by default; null turns one off."""

    errors: RatioLimit | None = RatioLimit()
    slow: SlowLimit | None = SlowLimit()
    drift: DriftLimit | None = None
    quality: QualityLimit | None = None
    query: tuple[QueryLimit, ...] = ()


class Sticky(Struct, frozen=True, forbid_unknown_fields=True):
    """Send a caller to one version for the whole rollout, by the hash of a header or of an input's first value."""

    header: str = ""
    input: str = ""


class Smoke(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests (V2 JSON) that a blue-green candidate has to answer before the switch; () makes them from its
    signature."""

    requests: tuple[dict[str, Any], ...] = ()
    count: int = 10


class Rollout(Struct, frozen=True, forbid_unknown_fields=True):
    """How a new version goes live. `steps` are per cents or `Step`s."""

    strategy: Strategy = "canary"
    shadow: ShadowStage | None = None
    steps: tuple[float | Step, ...] = (1.0, 5.0, 25.0, 50.0)
    halt: Halt = Halt()
    alpha: float = 0.01
    sticky: Sticky | None = None
    smoke: Smoke = Smoke()
    percent: float = 50.0
    standby_s: float = 300.0
    hold_s: float = 60.0
    deadline_s: float = 86_400.0
    on_inconclusive: Literal["rollback", "hold"] = "rollback"


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """The share of predictions that lineage is kept for."""

    sample: float = 0.01


class EndpointSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What an endpoint is to be. `model` is NAME@VERSION or NAME@ALIAS."""

    model: str
    replicas: Replicas = Replicas()
    resources: Resources = Resources()
    batching: Batching = Batching()
    deadline_ms: int = 30_000
    slo: Slo = Slo()
    rollout: Rollout = Rollout()
    log: Log = Log()


class Endpoint(Struct, frozen=True, forbid_unknown_fields=True, rename={"api_version": "apiVersion"}):
    """`kind: Endpoint`."""

    metadata: Metadata
    spec: EndpointSpec
    api_version: str = API_VERSION
    kind: Literal["Endpoint"] = "Endpoint"


# Fields of the whole shape that later work brings: refused by name until then.
NOT_YET = frozenset(
    ("schema", "access", "limits", "cache", "coalesce", "retry", "breaker", "fallback", "upstream", "graph")
)
