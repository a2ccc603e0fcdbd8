"""The configuration of each process, as frozen groups: `cli` resolves them once, each process gets only its own.

They travel to the children as JSON, so every field is plain data.
"""

from typing import Literal

from msgspec import Struct

from hyperion.schema.model import ModelOptions, ModelSpec
from hyperion.schema.registry import FileEntry

MIB = 1 << 20
SandboxMode = Literal["auto", "strict", "off"]
# How a process says that starting it again cannot help.
EXIT_REFUSED = 3


class RunnerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One replica of one model version. `replica` is its name in the fleet (`fraud@1.g3.0`); `socket` the path of the
    Unix socket that it binds once it is ready. `generation` and `index` are the 3 and the 0 of that name.

    `root` is the directory of a registered version: the runner loads it only when exactly the listed files lie there.
    `verified` lists them; () takes the list that lies beside `root`, which may be longer than an environment can hold.

    `sandbox` auto puts on what this machine can do, strict refuses where anything is missing. `home` is the platform's,
    of which the model gets to see nothing; `readable` are further paths that it may read. `scratch` is its private
    directory for temporary files, which the supervisor makes and removes; "" makes one.
    """

    replica: str
    socket: str
    spec: ModelSpec
    generation: int = 1
    index: int = 0
    root: str = ""
    verified: tuple[FileEntry, ...] = ()
    sandbox: SandboxMode = "auto"
    home: str = ""
    readable: tuple[str, ...] = ()
    scratch: str = ""


class GatewayConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One gateway worker, number `worker` of `workers`.

    `http_fd` and `grpc_fd` are the inherited listening sockets; None makes the gateway bind `host`:`port`, and
    `grpc_host`:`grpc_port`, itself. `grpc_port` 0 means no gRPC. `queue_rows` bounds the rows that wait per model.
    Times are seconds. `log_format` is json or text. With `tls_client_ca` clients may show a certificate signed by it,
    and must where `require_auth` is off. With `require_auth` whoever shows no valid credentials is refused, but by
    endpoints that say otherwise. `trusted_proxies` are networks (CIDR) whose `x-hyperion-tenant` is believed.
    `redis_url` "" keeps limits and caches in this process. The limits are for all requests to this gateway, 0 for none.
    `credential_dirs` are where the files lie that upstreams may name as credentials.
    """

    run_dir: str
    home: str
    worker: int = 0
    workers: int = 1
    http_fd: int | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_fd: int | None = None
    grpc_host: str = "127.0.0.1"
    grpc_port: int = 0
    max_body_bytes: int = 64 * MIB
    max_connections: int = 16_384
    queue_rows: int = 4096
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    drain_s: float = 30.0
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    access_log: bool = False
    log_format: str = "json"
    require_auth: bool = False
    trusted_proxies: tuple[str, ...] = ()
    redis_url: str = ""
    requests_per_second: float = 0.0
    concurrency: int = 0
    credential_dirs: tuple[str, ...] = ()


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """One PATH to serve: a model file, a model directory or an existing repository. `name` "" takes the path's own.

    `overrides` are the fields of `ModelOptions` that were given on the command line, in the environment or in a file;
    they win over what lies beside the model.
    """

    path: str
    name: str = ""
    overrides: dict[str, str | int | float | bool] = {}


class ControlConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The control process. `sources` () serves what the home holds. `admin_fd` is the inherited listening socket of the
    management API; None makes control bind `admin_host`:`admin_port`. `admin_names` are
    further Host names under which the API may be called. `settings` lists every setting, its value and
    where it came from, for `/api/v1/config`. `database_url` is where releases are kept; "" is the home's
    `hyperion.db`. `blobs_url` is where the files of versions are kept, as `store/blobs/opening` reads it; "" is the
    home's `blobs`. `ledger_key` is the file of the key that signs the ledger; "" is the home's `ledger.key`.
    `callback_hosts` are hosts and networks that callbacks may go to though they are not public,
    `streams` are consumers whose messages become jobs, as `control.stream_source` reads them.
    `trusted_keys` are files of keys and certificates whose signatures count. `sandbox` and `readable` are as in
    `RunnerConfig`. `batch_dirs` are where batch jobs may read and write files, `batch_databases` is a file that says
    which databases they may use. `credential_dirs` are where the files lie that upstreams may name as credentials."""

    run_dir: str
    home: str
    sources: tuple[Source, ...] = ()
    defaults: ModelOptions = ModelOptions()
    gateway_workers: int = 1
    cores: int = 1
    admin_fd: int | None = None
    admin_host: str = "127.0.0.1"
    admin_port: int = 8082
    admin_names: tuple[str, ...] = ()
    public_url: str = "http://127.0.0.1:8080"
    drain_s: float = 30.0
    log_format: str = "json"
    settings: tuple[tuple[str, str, str], ...] = ()
    database_url: str = ""
    blobs_url: str = ""
    ledger_key: str = ""
    trusted_keys: tuple[str, ...] = ()
    callback_hosts: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    require_signature: bool = False
    sandbox: SandboxMode = "auto"
    readable: tuple[str, ...] = ()
    batch_dirs: tuple[str, ...] = ()
    batch_databases: str = ""
    credential_dirs: tuple[str, ...] = ()
