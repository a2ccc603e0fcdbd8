"""The tables as SQLAlchemy Core sees them. `migrations` makes them; a test holds the two against each other."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, Table, Text

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
