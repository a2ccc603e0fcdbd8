"""What stands between callers and a model: who may call, how much, with what, and what happens when something fails.

The same records are fields of the resources and parts of the snapshot, so that a gateway reads what a person wrote.
Zero means "no limit" wherever a limit is optional.
"""

from typing import Any, Literal

from msgspec import Struct

Scalar = str | int | float | bool


class Access(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may call. `tenants` () lets any tenant in that has proved who it is; `claims` are values that its token must
    carry (a list claim must contain the value); `anonymous` lets in who shows no credentials at all."""

    tenants: tuple[str, ...] = ()
    anonymous: bool = False
    claims: dict[str, str] = {}


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much may come at a time. `burst` 0 is one second's worth; `concurrency` counts requests without an answer."""

    requests_per_second: float = 0.0
    burst: int = 0
    rows_per_second: float = 0.0
    concurrency: int = 0


class EndpointLimits(Limits, frozen=True, forbid_unknown_fields=True):
    """The limits of an endpoint for all its callers together, and those for each tenant and each key of it."""

    per_tenant: Limits | None = None
    per_key: Limits | None = None


class Quotas(Struct, frozen=True, forbid_unknown_fields=True):
    """How much a tenant may use in a calendar day or month (UTC)."""

    requests_per_day: int = 0
    requests_per_month: int = 0
    rows_per_day: int = 0
    rows_per_month: int = 0
    tokens_per_day: int = 0
    tokens_per_month: int = 0
    cost_per_day: float = 0.0
    cost_per_month: float = 0.0


class Cost(Struct, frozen=True, forbid_unknown_fields=True):
    """What a request to an endpoint is charged, in the unit of the tenants' cost quotas."""

    per_request: float = 0.0
    per_row: float = 0.0
    per_token: float = 0.0


class InputRule(Struct, frozen=True, forbid_unknown_fields=True):
    """What an input's elements must be, beside datatype and shape. `pattern` and `max_length` (bytes of UTF-8) are for
    BYTES. `null` says what becomes of a JSON null: `default` puts `default` in its place."""

    min: float | None = None
    max: float | None = None
    nan: Literal["accept", "reject"] = "accept"
    inf: Literal["accept", "reject"] = "accept"
    enum: tuple[Scalar, ...] = ()
    pattern: str = ""
    max_length: int = 0
    null: Literal["reject", "nan", "empty", "default"] = "reject"
    default: Scalar | None = None


class SchemaRules(Struct, frozen=True, forbid_unknown_fields=True):
    """What requests must look like beyond the model's signature. `coerce` converts datatypes where no value changes."""

    unknown_inputs: Literal["reject", "ignore"] = "reject"
    coerce: bool = False
    inputs: dict[str, InputRule] = {}


class Cache(Struct, frozen=True, forbid_unknown_fields=True):
    """Keep answers for `ttl_s`, in at most `max_mb` MiB per gateway. `scope` says whether tenants share them; `shared`
    keeps them in Redis, too."""

    ttl_s: float = 30.0
    max_mb: int = 256
    scope: Literal["tenant", "all"] = "tenant"
    jitter: float = 0.1
    shared: bool = False


class Retry(Struct, frozen=True, forbid_unknown_fields=True):
    """Try again what did not start or is idempotent: `budget` is the share of the traffic that tries may add, `hedge`
    sends a second try when the first is slower than nearly all."""

    budget: float = 0.2
    attempts: int = 3
    hedge: bool = False


class Breaker(Struct, frozen=True, forbid_unknown_fields=True):
    """Leave a replica or an upstream alone for `open_s` (doubling to a minute) once the share `failures` of at least
    `min_calls` calls has failed. `slow_ms` counts slower calls as failures."""

    failures: float = 0.5
    min_calls: int = 20
    open_s: float = 5.0
    slow_ms: float = 0.0


class Fallback(Struct, frozen=True, forbid_unknown_fields=True):
    """One link of a chain: exactly one of a registered model (NAME@VERSION or NAME@ALIAS), another version of the same
    model, another endpoint, an endpoint that is an upstream, the last good cached answer, or fixed outputs."""

    model: str = ""
    version: str = ""
    endpoint: str = ""
    upstream: str = ""
    cached: bool = False
    static: dict[str, Any] | None = None


class DeclaredTensor(Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a model, as V2 metadata have it: -1 in `shape` means any length."""

    name: str
    datatype: Literal[
        "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "BF16", "FP32",
        "FP64", "BYTES",
    ]  # fmt: skip
    shape: tuple[int, ...]


class Upstream(Struct, frozen=True, forbid_unknown_fields=True):
    """Another server that answers for an endpoint. `model` "" is the endpoint's own name. `headers_from` is a file of
    `name: value` lines (credentials) that control reads; it is never shown. `batch` lets the gateway merge requests.
    `inputs` and `outputs` stand for what the server says of its model, which with some is nothing."""

    url: str
    protocol: Literal["oip-http", "oip-grpc", "openai"] = "oip-http"
    model: str = ""
    version: str = ""
    headers_from: str = ""
    concurrency: int = 16
    batch: bool = False
    ca_file: str = ""
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()


class Until(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a cascade stops: at an answer at least this sure. `temperature` scales logits or log-probabilities first,
    as fitted on held-out data; `thresholds` (by class) win over `confidence`."""

    confidence: float = 0.9
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()


class GraphStep(Struct, frozen=True, forbid_unknown_fields=True):
    """One member of a graph: exactly one of `model` (NAME@VERSION or NAME@ALIAS), `endpoint` or `upstream`. `inputs`
    maps this step's inputs to tensors that exist by then (`step.output`, or an input of the request); `when` is a
    comparison of an input's first value or of a request parameter (`country == "DE"`). A `soft` member may be missing;
    `weight` is its vote."""

    name: str
    model: str = ""
    endpoint: str = ""
    upstream: str = ""
    when: str = ""
    until: Until | None = None
    soft: bool = False
    weight: float = 1.0
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}


class Graph(Struct, frozen=True, forbid_unknown_fields=True):
    """Several models that answer as one. `output` is the tensor by which members are combined or trusted (class
    probabilities or scores; "" where there is only one candidate)."""

    kind: Literal["pipeline", "ensemble", "switch", "cascade"]
    steps: tuple[GraphStep, ...]
    combine: Literal["average", "vote", "stack"] = "average"
    output: str = ""


class Jobs(Struct, frozen=True, forbid_unknown_fields=True):
    """How requests that ask for `respond-async` are worked off."""

    attempts: int = 5
    backoff_s: float = 1.0
    ttl_s: float = 86_400.0
    timeout_s: float = 300.0


class Protection(Struct, frozen=True):
    """All of it for one endpoint, as a gateway holds it. `None` is "not asked for"."""

    access: Access | None = None
    limits: EndpointLimits | None = None
    cost: Cost | None = None
    rules: SchemaRules | None = None
    cache: Cache | None = None
    coalesce: bool = False
    retry: Retry | None = None
    breaker: Breaker | None = None
    fallback: tuple[Fallback, ...] = ()
    jobs: Jobs = Jobs()


class TenantRecord(Struct, frozen=True):
    """A tenant, as gateways know it. `priority` is the highest (0) to the lowest (9) that its requests may have, and
    what they have when they say nothing; `weight` is its share where tenants wait for the same model. `certificates`
    are the names (DNS, URI or e-mail of the subject alternative name, or the common name) whose holders it is."""

    name: str
    limits: Limits | None = None
    key_limits: Limits | None = None
    quotas: Quotas | None = None
    priority: int = 0
    weight: float = 1.0
    certificates: tuple[str, ...] = ()


class KeyRecord(Struct, frozen=True):
    """An API key: SHA-256 of its secret in hex, never the secret. `expires_at` is in seconds since 1970, 0 is never."""

    id: str
    secret_hash: str
    tenant: str
    scopes: tuple[str, ...]
    expires_at: float = 0.0


class IssuerRecord(Struct, frozen=True):
    """Whose tokens count. `keys` is the issuer's JWKS as control last read it. The tenant is `tenant`, or the claim
    `tenant_claim`; `scope_claim` holds scopes (a list, or words), without it a token may infer."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    tenant: str = ""
    tenant_claim: str = "tenant"
    scope_claim: str = ""
    leeway_s: float = 30.0
    keys: tuple[dict[str, Any], ...] = ()


class Directory(Struct, frozen=True):
    """Everybody whom gateways know. Who is not in here is anonymous, or refused."""

    tenants: tuple[TenantRecord, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    issuers: tuple[IssuerRecord, ...] = ()
