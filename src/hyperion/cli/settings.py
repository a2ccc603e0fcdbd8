"""Every setting of `hyperion serve`, in one table: its name, type, default, bounds and help.

The command line, the environment, the files, `config show` and the documentation are all made from it.
"""

import math
from typing import Literal

from msgspec import Struct

from hyperion.schema.errors import InvalidConfig

Value = str | int | float | bool
Kind = Literal["text", "int", "float", "flag"]
Group = Literal["serve", "model", "gateway"]
_TRUE, _FALSE = frozenset(("1", "true", "yes", "on")), frozenset(("0", "false", "no", "off"))


class Setting(Struct, frozen=True):
    """One setting. `name` is as on the command line, without the dashes in front. Settings of the group `model` that
    were given by anyone win over what lies beside a model."""

    name: str
    kind: Kind
    default: Value
    help: str
    group: Group = "serve"
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    off_name: str = ""

    @property
    def key(self) -> str:
        """As in Python and in files: `gateway_workers`."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """As in the environment: `HYPERION_GATEWAY_WORKERS`."""
        return f"HYPERION_{self.key.upper()}"


PORT_HELP = "0 takes any free port"
SETTINGS: tuple[Setting, ...] = (
    Setting("name", "text", "", "name of the model and its endpoint (one PATH only; default: from the path)"),
    Setting("host", "text", "127.0.0.1", "address to listen on; 0.0.0.0 for all"),
    Setting("port", "int", 8080, f"inference over HTTP; {PORT_HELP}", least=0, most=65535),
    Setting("grpc-port", "int", 8081, f"inference over gRPC; {PORT_HELP}", least=0, most=65535),
    Setting("grpc", "flag", True, "serve gRPC"),
    Setting("admin-host", "text", "127.0.0.1", "address of the management API"),
    Setting("admin-port", "int", 8082, f"management API and status page; {PORT_HELP}", least=0, most=65535),
    Setting("admin-names", "text", "", "further host names of the management API, comma-separated"),
    Setting("home", "text", ".hyperion", "directory of all state"),
    Setting("database-url", "text", "", "where releases are kept: postgresql://… (default: SQLite in the home)"),
    Setting(
        "blobs-url", "text", "", "where files of versions are kept: a directory, oci:PATH, s3://… (default: the home)"
    ),
    Setting("ledger-key", "text", "", "file of the key that signs the ledger (default: in the home)"),
    Setting("trusted-keys", "text", "", "PEM public keys and certificates whose signatures count, comma-separated"),
    Setting("require-signature", "flag", False, "serve only versions that a trusted key has signed"),
    Setting("gateway-workers", "int", 1, "gateway processes", least=1, most=64),
    Setting(
        "require-auth", "flag", False, "refuse requests without credentials (default: off loopback)", off_name="open"
    ),
    Setting("trusted-proxies", "text", "", "networks whose x-hyperion-tenant is believed, comma-separated"),
    Setting("callback-hosts", "text", "", "private hosts and networks that jobs may call back, comma-separated"),
    Setting(
        "streams",
        "text",
        "",
        "whose messages become jobs, comma-separated: nats://HOST/STREAM/CONSUMER?…, kafka://HOST/TOPIC/GROUP?…",
    ),
    Setting("batch-dirs", "text", "", "where batch jobs may read and write, comma-separated (default: nowhere)"),
    Setting("batch-databases", "text", "", "TOML file of NAME = URL: databases that batch jobs may use as sql:NAME"),
    Setting(
        "credential-dirs",
        "text",
        "",
        "where the files of credentials lie that upstreams may name, comma-separated (default: HOME/credentials)",
    ),
    Setting("drain-s", "float", 30.0, "seconds that running requests get on shutdown", least=0, most=3600),
    Setting("log-format", "text", "auto", "auto is text on a terminal", choices=("auto", "text", "json")),
    Setting(
        "sandbox",
        "text",
        "auto",
        "around models: auto is what this machine can do, strict refuses where anything is missing",
        choices=("auto", "strict", "off"),
    ),
    Setting("model-paths", "text", "", "further files and directories that models may read, comma-separated"),
    Setting("replicas", "int", 1, "runner processes per model version", "model", least=1, most=256),
    Setting("max-batch-size", "int", 64, "rows per batch at most", "model", least=1, most=65536),
    Setting("max-delay-ms", "float", 0.0, "wait for a fuller batch at most this long", "model", least=0, most=60_000),
    Setting("threads", "int", 0, "CPU threads per runner; 0 divides the cores", "model", least=0, most=1024),
    Setting("memory-mb", "int", 0, "memory limit per runner; 0 is none", "model", least=0),
    Setting("network", "flag", False, "models may use the network", "model"),
    Setting("processes", "flag", False, "models may start processes", "model"),
    Setting("scratch-mb", "int", 1024, "temporary files that a runner may write", "model", least=1),
    Setting("deadline-ms", "int", 30_000, "time a request may take", "model", least=1),
    Setting("trust-pickle", "flag", False, "load pickle and joblib files, which can run any code", "model"),
    Setting("device", "text", "auto", "auto, cpu, cuda or cuda:N", "model"),
    Setting("access-log", "flag", False, "one log line per request", "gateway"),
    Setting("redis-url", "text", "", "share limits and caches with other gateways: redis://HOST:PORT/DB", "gateway"),
    Setting("requests-per-second", "float", 0.0, "limit of all requests; 0 is none", "gateway", least=0),
    Setting("concurrency", "int", 0, "limit of all requests that are open; 0 is none", "gateway", least=0),
    Setting("tls-cert", "text", "", "PEM certificate chain: serve HTTPS", "gateway"),
    Setting("tls-key", "text", "", "PEM key of the certificate", "gateway"),
    Setting("tls-client-ca", "text", "", "PEM: require client certificates signed by it", "gateway"),
    Setting("max-body-mb", "int", 64, "largest request body", "gateway", least=1, most=4096),
    Setting("max-connections", "int", 16_384, "open connections per gateway", "gateway", least=1),
    Setting("queue-rows", "int", 4096, "rows that may wait per model", "gateway", least=1),
    Setting("header-timeout-s", "float", 10.0, "for a request's headers to arrive", "gateway", least=0.1),
    Setting("body-timeout-s", "float", 30.0, "for more of a request's body to arrive", "gateway", least=0.1),
    Setting("idle-timeout-s", "float", 75.0, "until an idle connection is closed", "gateway", least=0.1),
)
BY_KEY = {setting.key: setting for setting in SETTINGS}


def parse_value(setting: Setting, given: object, source: str) -> Value:
    """Return `given` (text, or a value of a file) as the setting's type and within its bounds.

    Raises `InvalidConfig`, naming the source.

    >>> parse_value(BY_KEY["port"], "9000", "HYPERION_PORT")
    9000
    """
    where = f"{setting.name} (from {source})"
    value = _convert(setting, given, where)
    if setting.choices and value not in setting.choices:
        raise InvalidConfig(f"{where}: expected one of {', '.join(setting.choices)}, got {value!r}")
    if setting.kind in ("int", "float"):
        number = float(value)
        low, high = setting.least, setting.most
        if (low is not None and number < low) or (high is not None and number > high):
            upto = "" if high is None else f" to {high:g}"
            raise InvalidConfig(f"{where}: expected {low:g}{upto or ' or more'}, got {number:g}")
    return value


def _convert(setting: Setting, given: object, where: str) -> Value:
    if setting.kind == "flag":
        text = str(given).lower()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise InvalidConfig(f"{where}: expected true or false, got {given!r}")
    if setting.kind == "text":
        if isinstance(given, str):
            return given
        raise InvalidConfig(f"{where}: expected text, got {given!r}")
    if not isinstance(given, bool):
        try:
            if setting.kind == "int":
                return int(str(given))
            if math.isfinite(number := float(str(given))):
                return number
        except ValueError:
            pass  # falls through to the one message for every wrong number
    raise InvalidConfig(f"{where}: expected a{'n integer' if setting.kind == 'int' else ' number'}, got {given!r}")
