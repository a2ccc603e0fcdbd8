"""From settings to the configuration of each process of the tree."""

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from hyperion.cli.resolve import DEFAULT, Settings
from hyperion.fleet.credentials import default_dirs
from hyperion.policy.rate_limit import LEAST_PER_SECOND
from hyperion.schema.config import MIB, ControlConfig, GatewayConfig, SandboxMode, Source
from hyperion.schema.errors import InvalidConfig, MissingExtra


def check_settings(settings: Settings, paths: Sequence[str]) -> None:
    """Refuse what cannot work, before anything is started. Raises `InvalidConfig`."""
    if settings.text("name") and len(paths) != 1:
        raise InvalidConfig(f"--name is for one PATH, and {len(paths)} were given")
    for path in paths:
        if not Path(path).exists():
            raise InvalidConfig(f"{path}: no such file or directory")
    for key in _list(settings.text("trusted_keys")):
        if not Path(key).is_file():
            raise InvalidConfig(f"--trusted-keys: no such file: {key}")
    if settings.flag("require_signature") and not settings.text("trusted_keys"):
        raise InvalidConfig("--require-signature needs --trusted-keys: without a key nothing could be served")
    for path in _list(settings.text("model_paths")):
        if not Path(path).exists():
            raise InvalidConfig(f"--model-paths: no such file or directory: {path}")
    for path in _list(settings.text("batch_dirs")):
        if not Path(path).is_dir():
            raise InvalidConfig(f"--batch-dirs: no such directory: {path}")
    _check_file(settings, "batch_databases")
    check_gateway(settings)


def check_gateway(settings: Settings) -> None:
    """Refuse what no gateway could work with; without its key a certificate would be left out, and TLS with it. Raises
    `InvalidConfig`."""
    if bool(settings.text("tls_cert")) != bool(settings.text("tls_key")):
        raise InvalidConfig("--tls-cert and --tls-key belong together; give both or neither")
    if settings.text("tls_client_ca") and not settings.text("tls_cert"):
        raise InvalidConfig("--tls-client-ca needs --tls-cert and --tls-key")
    for proxy in _list(settings.text("trusted_proxies")):
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise InvalidConfig(f"--trusted-proxies: expected networks such as 10.0.0.0/8: {error}") from None
    for key in ("tls_cert", "tls_key", "tls_client_ca"):
        _check_file(settings, key)
    for path in _list(settings.text("credential_dirs")):
        if not Path(path).is_dir():
            raise InvalidConfig(f"--credential-dirs: no such directory: {path}")
        if Path(settings.text("home")).resolve().is_relative_to(Path(path).resolve()):
            raise InvalidConfig(
                f"--credential-dirs: {path} holds the home, with the keys of the platform; name a directory that holds "
                "nothing but credentials for other servers"
            )
    if 0 < settings.number("requests_per_second") < LEAST_PER_SECOND:
        raise InvalidConfig(f"--requests-per-second: expected 0 (none), or {LEAST_PER_SECOND:f} or more")
    check_redis(settings.text("redis_url"))


def _check_file(settings: Settings, key: str) -> None:
    if settings.text(key) and not Path(settings.text(key)).is_file():
        raise InvalidConfig(f"--{key.replace('_', '-')}: no such file: {settings.text(key)}")


def check_redis(url: str) -> None:
    """Refuse a URL that no gateway could use; "" is none. Raises `InvalidConfig`, and `MissingExtra` without redis-py.

    >>> check_redis("rediss://:secret@10.0.0.5:6379/0")
    """
    if not url:
        return
    from importlib.util import find_spec
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        where = parts.path if parts.scheme == "unix" else parts.hostname if parts.port != 0 else ""
        numbered = parts.scheme == "unix" or parts.path in ("", "/") or parts.path[1:].isdecimal()
    except ValueError:  # a port that is none
        where, numbered = "", False
    if not (where and numbered and parts.scheme in ("redis", "rediss", "unix")):
        raise InvalidConfig("--redis-url: expected redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH?db=DB")
    if find_spec("redis") is None:
        raise MissingExtra("--redis-url needs redis-py: pip install 'hyperion-inference[redis]'")


def plan_gateways(
    settings: Settings, home: Path, run_dir: Path, port: int, grpc_port: int, log_format: str
) -> list[GatewayConfig]:
    """Return the configuration of each gateway worker, which binds its ports itself unless it is given sockets."""
    workers = settings.integer("gateway_workers")
    return [
        GatewayConfig(
            run_dir=str(run_dir),
            home=str(home),
            worker=worker,
            workers=workers,
            host=settings.text("host"),
            port=port,
            grpc_host=settings.text("host"),
            grpc_port=grpc_port,
            max_body_bytes=settings.integer("max_body_mb") * MIB,
            max_connections=settings.integer("max_connections"),
            queue_rows=settings.integer("queue_rows"),
            header_timeout_s=settings.number("header_timeout_s"),
            body_timeout_s=settings.number("body_timeout_s"),
            idle_timeout_s=settings.number("idle_timeout_s"),
            drain_s=settings.number("drain_s"),
            tls_cert=_absolute(settings.text("tls_cert")),
            tls_key=_absolute(settings.text("tls_key")),
            tls_client_ca=_absolute(settings.text("tls_client_ca")),
            access_log=settings.flag("access_log"),
            redis_url=settings.text("redis_url"),
            requests_per_second=settings.number("requests_per_second"),
            concurrency=settings.integer("concurrency"),
            log_format=log_format,
            require_auth=requires_auth(settings),
            trusted_proxies=tuple(_list(settings.text("trusted_proxies"))),
            credential_dirs=_credential_dirs(settings, home),
        )
        for worker in range(workers)
    ]


def requires_auth(settings: Settings) -> bool:
    """Whether callers must show credentials: as was said, else wherever others than this machine's users can call.

    >>> from hyperion.cli.resolve import resolve
    >>> requires_auth(resolve({}, {}, ())), requires_auth(resolve({"host": "0.0.0.0"}, {}, ()))
    (False, True)
    """
    entry = settings.entries["require_auth"]
    return settings.flag("require_auth") if entry.source != DEFAULT else not _is_loopback(settings.text("host"))


def whom_to_answer(settings: Settings) -> Literal["local", "any", "known", "certified"]:
    """Whom the gateways let in where an endpoint says nothing else.

    >>> from hyperion.cli.resolve import resolve
    >>> given = ({}, {"host": "::"}, {"host": "::", "require_auth": False}, {"tls_client_ca": "ca.pem"})
    >>> [whom_to_answer(resolve(flags, {}, ())) for flags in given]
    ['local', 'known', 'any', 'certified']
    """
    if requires_auth(settings):
        return "known"
    if settings.text("tls_client_ca"):
        return "certified"
    return "local" if _is_loopback(settings.text("host")) else "any"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def plan_control(
    settings: Settings,
    home: Path,
    run_dir: Path,
    paths: Sequence[str],
    admin_fd: int | None,
    admin_port: int,
    url: str,
    log_format: str,
) -> ControlConfig:
    """Return the configuration of the control process."""
    overrides = settings.given("model")
    return ControlConfig(
        run_dir=str(run_dir),
        home=str(home),
        sources=tuple(Source(os.path.abspath(path), settings.text("name"), overrides) for path in paths),
        gateway_workers=settings.integer("gateway_workers"),
        cores=len(os.sched_getaffinity(0)),
        admin_fd=admin_fd,
        admin_host=settings.text("admin_host"),
        admin_port=admin_port,
        admin_names=tuple(_list(settings.text("admin_names").replace(" ", ""))),
        public_url=url,
        drain_s=settings.number("drain_s"),
        log_format=log_format,
        settings=tuple((e.setting.key, str(e.shown), e.source) for e in settings.entries.values()),
        database_url=settings.text("database_url"),
        blobs_url=settings.text("blobs_url"),
        ledger_key=_absolute(settings.text("ledger_key")) or "",
        streams=tuple(_list(settings.text("streams"))),
        callback_hosts=tuple(_list(settings.text("callback_hosts"))),
        trusted_keys=tuple(os.path.abspath(key) for key in _list(settings.text("trusted_keys"))),
        require_signature=settings.flag("require_signature"),
        sandbox=msgspec.convert(settings.text("sandbox"), SandboxMode),
        readable=tuple(os.path.abspath(path) for path in _list(settings.text("model_paths"))),
        batch_dirs=tuple(os.path.abspath(path) for path in _list(settings.text("batch_dirs"))),
        batch_databases=_absolute(settings.text("batch_databases")) or "",
        credential_dirs=_credential_dirs(settings, home),
    )


def choose_log_format(settings: Settings, stream: TextIO) -> str:
    """Return text or json: children write into pipes, so only this process can see whether a person reads."""
    chosen = settings.text("log_format")
    return chosen if chosen != "auto" else "text" if stream.isatty() else "json"


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _credential_dirs(settings: Settings, home: Path) -> tuple[str, ...]:
    given = tuple(os.path.abspath(path) for path in _list(settings.text("credential_dirs")))
    return given or default_dirs(home)


def _absolute(path: str) -> str | None:
    return os.path.abspath(path) if path else None
