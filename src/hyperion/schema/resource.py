"""The declarative resources, as `apply` takes them: the fields that this Hyperion does, and no others."""

from typing import Any, Literal

from msgspec import Struct

from hyperion.schema.protect import (
    Access,
    Breaker,
    Cache,
    Cost,
    EndpointLimits,
    Fallback,
    Graph,
    Jobs,
    Limits,
    Quotas,
    Retry,
    SchemaRules,
    Upstream,
)

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
    """What each replica gets. 0 threads divides the cores; 0 MiB sets no limit; gpu is how many, 0 or 1. `network` and
    `processes` open the sandbox for sockets and for programs of the model's own; `scratch_mb` is how much it may write
    into its private temporary directory."""

    threads: int = 0
    memory_mb: int = 0
    gpu: int = 0
    network: bool = False
    processes: bool = False
    scratch_mb: int = 1024


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
    """The share of predictions that lineage is kept for. `redact` names detectors (email, phone, card, iban,
    national-id) and inputs or outputs (`input:NAME`, `output:NAME`) of which nothing is logged or stored."""

    sample: float = 0.01
    redact: tuple[str, ...] = ()


class EndpointSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What an endpoint is to be: exactly one of `model` (NAME@VERSION or NAME@ALIAS), `upstream` and `graph`."""

    model: str = ""
    upstream: Upstream | None = None
    graph: Graph | None = None
    replicas: Replicas = Replicas()
    resources: Resources = Resources()
    batching: Batching = Batching()
    deadline_ms: int = 30_000
    slo: Slo = Slo()
    schema: SchemaRules | None = None
    access: Access | None = None
    limits: EndpointLimits | None = None
    cost: Cost | None = None
    cache: Cache | None = None
    coalesce: bool = False
    retry: Retry | None = None
    breaker: Breaker | None = None
    fallback: tuple[Fallback, ...] = ()
    jobs: Jobs = Jobs()
    rollout: Rollout = Rollout()
    log: Log = Log()


class Endpoint(Struct, frozen=True, forbid_unknown_fields=True, rename={"api_version": "apiVersion"}):
    """`kind: Endpoint`."""

    metadata: Metadata
    spec: EndpointSpec
    api_version: str = API_VERSION
    kind: Literal["Endpoint"] = "Endpoint"


class TenantSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A team or a customer: how much it may use, `priority` (0 highest … 9) that its requests have at most and by
    default, `weight` of its share where several wait for the same model, and the names in client certificates
    (subject alternative name or common name) that prove to be it."""

    limits: Limits | None = None
    key_limits: Limits | None = None
    quotas: Quotas | None = None
    priority: int = 0
    weight: float = 1.0
    certificates: tuple[str, ...] = ()


class Tenant(Struct, frozen=True, forbid_unknown_fields=True, rename={"api_version": "apiVersion"}):
    """`kind: Tenant`."""

    metadata: Metadata
    spec: TenantSpec = TenantSpec()
    api_version: str = API_VERSION
    kind: Literal["Tenant"] = "Tenant"


class IssuerSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens (JWT) count here. `jwks_url` "" is found by OpenID discovery. Callers belong to `tenant`, or to the
    one that the claim `tenant_claim` names; `scope_claim` holds their scopes, without it they may infer."""

    issuer: str
    audience: str
    jwks_url: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    tenant: str = ""
    tenant_claim: str = "tenant"
    scope_claim: str = ""
    leeway_s: float = 30.0
    refresh_s: float = 300.0
    ca_file: str = ""


class Issuer(Struct, frozen=True, forbid_unknown_fields=True, rename={"api_version": "apiVersion"}):
    """`kind: Issuer`."""

    metadata: Metadata
    spec: IssuerSpec
    api_version: str = API_VERSION
    kind: Literal["Issuer"] = "Issuer"


class BatchJobSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Score a whole table with a registered model (`model`) or a served endpoint (`endpoint`). `source` and `target`
    are files or directories of Parquet, CSV or JSONL, or `sql:NAME` with `query` (source) or `table` (target); a
    command may say `sql:URL`, too. `columns` maps the model's inputs to columns; `keep` are columns to carry over ("*"
    for all). With `replace` each run of a `BatchJob` begins anew in place of an earlier one's target."""

    source: str
    target: str
    model: str = ""
    endpoint: str = ""
    query: str = ""
    table: str = ""
    columns: dict[str, tuple[str, ...]] = {}
    keep: tuple[str, ...] = ("*",)
    chunk_rows: int = 65_536
    batch_rows: int = 1_024
    on_error: Literal["fail", "skip"] = "fail"
    replace: bool = False


class BatchJob(Struct, frozen=True, forbid_unknown_fields=True, rename={"api_version": "apiVersion"}):
    """`kind: BatchJob`."""

    metadata: Metadata
    spec: BatchJobSpec
    api_version: str = API_VERSION
    kind: Literal["BatchJob"] = "BatchJob"


Resource = Endpoint | Tenant | Issuer | BatchJob
