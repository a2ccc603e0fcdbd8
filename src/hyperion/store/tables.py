"""The tables as SQLAlchemy Core sees them. `migrations` makes them; a test holds the two against each other."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, LargeBinary, MetaData, Table, Text

METADATA = MetaData()

LEDGER_ENTRY = Table(
    "ledger_entry",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("before_digest", Text, nullable=False),
    Column("after_digest", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("leaf", Text, nullable=False),
    Column("signature", Text, nullable=False),
)
# The inner nodes of complete subtrees: the one of `level` (1 and up) whose last leaf is `seq`.
LEDGER_NODE = Table(
    "ledger_node",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("hash", Text, nullable=False),
)
LEDGER_STATE = Table(
    "ledger_state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("vkey", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", Text, nullable=False),
    Column("checkpoint", Text, nullable=False),
)
MODEL_VERSION = Table(
    "model_version",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)
MODEL_ALIAS = Table(
    "model_alias",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("updated_at", Double, nullable=False),
)
ENDPOINT = Table(
    "endpoint",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("resource", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("deleting", Boolean, nullable=False),
)
# Resources of every kind but Endpoint.
RESOURCE = Table(
    "resource",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)
# The keys of issuers as they were last read, and where they were read: `source` tells whether they still count.
ISSUER_KEYS = Table(
    "issuer_keys",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("keys", Text, nullable=False),
    Column("read_at", Double, nullable=False),
)
ROLLOUT = Table(
    "rollout",
    METADATA,
    Column("endpoint", Text, primary_key=True),
    Column("rollout_id", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("updated_at", Double, nullable=False),
)
ROLLOUT_HISTORY = Table(
    "rollout_history",
    METADATA,
    Column("endpoint", Text, primary_key=True),
    Column("rollout_id", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("updated_at", Double, nullable=False),
)
ROLLOUT_COMMAND = Table(
    "rollout_command",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("endpoint", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("argument", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("outcome", Text),
    Column("done_at", Double),
)
TOKEN = Table(
    "token",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("created_by", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)
PREDICTION = Table(
    "prediction",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("shadow", Boolean, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("latency_ms", Double, nullable=False),
)
VALUE_PAIR = Table(
    "value_pair",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("given", Text, nullable=False),
    Column("shadow", Text, nullable=False),
    Column("time", Double, nullable=False),
)
LABEL = Table(
    "label",
    METADATA,
    Column("prediction_id", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("label", Text, nullable=False),
    Column("time", Double, nullable=False),
)
LEADER = Table(
    "leader",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("lease_s", Double, nullable=False),
    Column("renewed_at", Double, nullable=False),
    Column("locked", Boolean, nullable=False),
)
# One row for each life of a gateway: what it counted of a tenant on a day (UTC), which only grows.
TENANT_USAGE = Table(
    "tenant_usage",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("incarnation", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost", Double, nullable=False),
)
# How each BatchJob fares, as JSON.
BATCH_RUN = Table(
    "batch_run",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),
)
JOB = Table(
    "job",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("backoff_s", Double, nullable=False),
    Column("timeout_s", Double, nullable=False),
    Column("ttl_s", Double, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("status", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("callback", Text, nullable=False),
    Column("delivery", Text, nullable=False),
    Column("delivery_attempts", Integer, nullable=False),
    Column("delivery_due", Double, nullable=False),
    Column("delivery_reason", Text, nullable=False),
    Column("counted", Boolean, nullable=False),
)
# The request and the answer of a job (`part`), apart so that lists and claims do not read them; gone with the job.
JOB_PAYLOAD = Table(
    "job_payload",
    METADATA,
    Column("job", Text, primary_key=True),
    Column("part", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
IDEMPOTENT_CALL = Table(
    "idempotent_call",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("answer", LargeBinary, nullable=False),
)
