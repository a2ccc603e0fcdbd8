"""The steps that take the store's database from one schema version to the next, on SQLite and PostgreSQL alike.

Called by `database` when it opens one. The version lies in the table `hyperion_schema` (SQLite's `user_version` belongs
to `desired`). Every step is one transaction under the writers' lock, so that two processes may start at once.

Types: DOUBLE PRECISION is a 64-bit float and BIGINT a 64-bit integer in both; times are in seconds since 1970.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import Connection, text

from hyperion.schema.errors import InvalidConfig

# `MIGRATIONS[n]` takes a database of version n to n + 1. Never edit one that was released; add the next.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE ledger_entry (
            seq           BIGINT PRIMARY KEY,
            time          DOUBLE PRECISION NOT NULL,
            kind          TEXT NOT NULL,
            subject       TEXT NOT NULL,
            actor         TEXT NOT NULL,
            reason        TEXT NOT NULL,
            before_digest TEXT NOT NULL,
            after_digest  TEXT NOT NULL,
            detail        TEXT NOT NULL,
            leaf          TEXT NOT NULL,
            signature     TEXT NOT NULL
        )""",
        "CREATE INDEX ledger_entry_subject ON ledger_entry (subject, seq)",
        "CREATE INDEX ledger_entry_kind ON ledger_entry (kind, seq)",
        """CREATE TABLE ledger_node (
            seq   BIGINT NOT NULL,
            level INTEGER NOT NULL,
            hash  TEXT NOT NULL,
            PRIMARY KEY (seq, level)
        )""",
        """CREATE TABLE ledger_state (
            id         INTEGER PRIMARY KEY CHECK (id = 1),
            vkey       TEXT NOT NULL,
            size       BIGINT NOT NULL,
            frontier   TEXT NOT NULL,
            checkpoint TEXT NOT NULL
        )""",
        """CREATE TABLE model_version (
            model      TEXT NOT NULL,
            version    TEXT NOT NULL,
            number     BIGINT NOT NULL,
            digest     TEXT NOT NULL,
            manifest   TEXT NOT NULL,
            signature  TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (model, version),
            UNIQUE (model, number)
        )""",
        "CREATE INDEX model_version_digest ON model_version (digest)",
        """CREATE TABLE model_alias (
            model      TEXT NOT NULL,
            alias      TEXT NOT NULL,
            version    TEXT NOT NULL,
            updated_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (model, alias),
            FOREIGN KEY (model, version) REFERENCES model_version (model, version)
        )""",
        """CREATE TABLE endpoint (
            name       TEXT PRIMARY KEY,
            resource   TEXT NOT NULL,
            generation BIGINT NOT NULL CHECK (generation >= 1),
            created_at DOUBLE PRECISION NOT NULL,
            updated_at DOUBLE PRECISION NOT NULL,
            deleting   BOOLEAN NOT NULL
        )""",
        """CREATE TABLE rollout (
            endpoint   TEXT PRIMARY KEY,
            rollout_id TEXT NOT NULL,
            revision   BIGINT NOT NULL CHECK (revision >= 1),
            state      TEXT NOT NULL,
            body       TEXT NOT NULL,
            updated_at DOUBLE PRECISION NOT NULL
        )""",
        """CREATE TABLE rollout_history (
            endpoint   TEXT NOT NULL,
            rollout_id TEXT NOT NULL,
            revision   BIGINT NOT NULL,
            state      TEXT NOT NULL,
            body       TEXT NOT NULL,
            updated_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (endpoint, rollout_id)
        )""",
        """CREATE TABLE rollout_command (
            id       BIGINT PRIMARY KEY,
            endpoint TEXT NOT NULL,
            verb     TEXT NOT NULL,
            argument TEXT NOT NULL,
            actor    TEXT NOT NULL,
            reason   TEXT NOT NULL,
            at       DOUBLE PRECISION NOT NULL,
            outcome  TEXT,
            done_at  DOUBLE PRECISION
        )""",
        "CREATE INDEX rollout_command_open ON rollout_command (id) WHERE outcome IS NULL",
        """CREATE TABLE token (
            id          TEXT PRIMARY KEY,
            tenant      TEXT NOT NULL,
            scopes      TEXT NOT NULL,
            secret_hash TEXT NOT NULL UNIQUE,
            created_by  TEXT NOT NULL,
            created_at  DOUBLE PRECISION NOT NULL,
            expires_at  DOUBLE PRECISION,
            revoked_at  DOUBLE PRECISION
        )""",
        """CREATE TABLE prediction (
            id         TEXT NOT NULL,
            shadow     BOOLEAN NOT NULL,
            endpoint   TEXT NOT NULL,
            version    TEXT NOT NULL,
            digest     TEXT NOT NULL,
            epoch      BIGINT NOT NULL,
            code       TEXT NOT NULL,
            time       DOUBLE PRECISION NOT NULL,
            latency_ms DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (id, shadow)
        )""",
        "CREATE INDEX prediction_time ON prediction (time)",
        """CREATE TABLE leader (
            name       TEXT PRIMARY KEY,
            generation BIGINT NOT NULL UNIQUE,
            holder     TEXT NOT NULL,
            active     BOOLEAN NOT NULL,
            lease_s    DOUBLE PRECISION NOT NULL,
            renewed_at DOUBLE PRECISION NOT NULL,
            locked     BOOLEAN NOT NULL
        )""",
    ),
    (
        """CREATE TABLE value_pair (
            id       TEXT PRIMARY KEY,
            endpoint TEXT NOT NULL,
            epoch    BIGINT NOT NULL,
            given    TEXT NOT NULL,
            shadow   TEXT NOT NULL,
            time     DOUBLE PRECISION NOT NULL
        )""",
        "CREATE INDEX value_pair_endpoint ON value_pair (endpoint, epoch)",
        "CREATE INDEX value_pair_time ON value_pair (time)",
        """CREATE TABLE label (
            prediction_id TEXT NOT NULL,
            source        TEXT NOT NULL,
            label         TEXT NOT NULL,
            time          DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (prediction_id, source)
        )""",
        "CREATE INDEX label_time ON label (time)",
    ),
    (
        """CREATE TABLE resource (
            kind       TEXT NOT NULL,
            name       TEXT NOT NULL,
            document   TEXT NOT NULL,
            generation BIGINT NOT NULL CHECK (generation >= 1),
            created_at DOUBLE PRECISION NOT NULL,
            updated_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (kind, name)
        )""",
        """CREATE TABLE issuer_keys (
            name    TEXT PRIMARY KEY,
            source  TEXT NOT NULL,
            keys    TEXT NOT NULL,
            read_at DOUBLE PRECISION NOT NULL
        )""",
        "CREATE INDEX token_tenant ON token (tenant)",
    ),
    (
        """CREATE TABLE job (
            id                TEXT PRIMARY KEY,
            tenant            TEXT NOT NULL,
            endpoint          TEXT NOT NULL,
            state             TEXT NOT NULL,
            priority          INTEGER NOT NULL,
            attempts          INTEGER NOT NULL,
            max_attempts      INTEGER NOT NULL,
            backoff_s         DOUBLE PRECISION NOT NULL,
            timeout_s         DOUBLE PRECISION NOT NULL,
            ttl_s             DOUBLE PRECISION NOT NULL,
            fence             BIGINT NOT NULL,
            lease_until       DOUBLE PRECISION NOT NULL,
            created_at        DOUBLE PRECISION NOT NULL,
            due_at            DOUBLE PRECISION NOT NULL,
            started_at        DOUBLE PRECISION NOT NULL,
            finished_at       DOUBLE PRECISION NOT NULL,
            expires_at        DOUBLE PRECISION NOT NULL,
            status            INTEGER NOT NULL,
            reason            TEXT NOT NULL,
            callback          TEXT NOT NULL,
            delivery          TEXT NOT NULL,
            delivery_attempts INTEGER NOT NULL,
            delivery_due      DOUBLE PRECISION NOT NULL,
            delivery_reason   TEXT NOT NULL
        )""",
        "CREATE INDEX job_queued ON job (priority, due_at) WHERE state = 'queued'",
        "CREATE INDEX job_running ON job (lease_until) WHERE state = 'running'",
        "CREATE INDEX job_delivery ON job (delivery_due) WHERE delivery = 'pending'",
        "CREATE INDEX job_expiry ON job (expires_at)",
        "CREATE INDEX job_created ON job (created_at, id)",
        """CREATE TABLE job_payload (
            job        TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
            part       TEXT NOT NULL,
            size_bytes BIGINT NOT NULL,
            data       BLOB NOT NULL,
            PRIMARY KEY (job, part)
        )""",
        """CREATE TABLE idempotent_call (
            tenant      TEXT NOT NULL,
            endpoint    TEXT NOT NULL,
            key         TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            origin      TEXT NOT NULL,
            token       TEXT NOT NULL,
            done        BOOLEAN NOT NULL,
            lease_until DOUBLE PRECISION NOT NULL,
            expires_at  DOUBLE PRECISION NOT NULL,
            answer      BLOB NOT NULL,
            PRIMARY KEY (tenant, endpoint, key)
        )""",
        "CREATE INDEX idempotent_call_expiry ON idempotent_call (expires_at)",
    ),
    (
        """CREATE TABLE tenant_usage (
            tenant      TEXT NOT NULL,
            day         TEXT NOT NULL,
            incarnation TEXT NOT NULL,
            requests    BIGINT NOT NULL,
            rows        BIGINT NOT NULL,
            tokens      BIGINT NOT NULL,
            cost        DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (tenant, day, incarnation)
        )""",
        "CREATE INDEX tenant_usage_day ON tenant_usage (day)",
    ),
    (
        """CREATE TABLE batch_run (
            name TEXT PRIMARY KEY,
            body TEXT NOT NULL
        )""",
    ),
    ("ALTER TABLE job ADD COLUMN counted BOOLEAN NOT NULL DEFAULT FALSE",),
)
SCHEMA_VERSION = len(MIGRATIONS)
# Text sorts by code point, as in SQLite, whatever the language of the PostgreSQL server: pages are cut by name.
_TYPES = {"postgresql": (("TEXT", 'TEXT COLLATE "C"'), ("BLOB", "BYTEA"))}

Transaction = Callable[[], AbstractContextManager[Connection]]


def migrate(transaction: Transaction, name: str) -> None:
    """Brings the database to SCHEMA_VERSION, a step per transaction. `transaction` opens one under the writers' lock;
    `name` is for messages. InvalidConfig when the database is from a newer Hyperion, which is left as it is."""
    version = -1
    while version < SCHEMA_VERSION:
        with transaction() as tx:
            version = _version(tx)
            if version < SCHEMA_VERSION:
                for statement in MIGRATIONS[version]:
                    tx.execute(text(_in_dialect(statement, tx.dialect.name)))
                tx.execute(text("UPDATE hyperion_schema SET version = :new"), {"new": version + 1})
    if version > SCHEMA_VERSION:
        raise InvalidConfig(
            f"{name}: written by a newer Hyperion (schema {version}, this one knows {SCHEMA_VERSION}); "
            "upgrade this one, or give it another database"
        )


def _in_dialect(statement: str, dialect: str) -> str:
    for ours, theirs in _TYPES.get(dialect, ()):
        statement = statement.replace(ours, theirs)
    return statement


def _version(tx: Connection) -> int:
    tx.execute(
        text(
            "CREATE TABLE IF NOT EXISTS hyperion_schema "
            "(id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL)"
        )
    )
    version = tx.execute(text("SELECT version FROM hyperion_schema")).scalar()
    if version is None:
        tx.execute(text("INSERT INTO hyperion_schema (id, version) VALUES (1, 0)"))
    return int(version or 0)
