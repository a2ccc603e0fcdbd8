"""TLS for both edges, as configured. Used by `gateway/process` and `gateway/grpc`."""

import asyncio
import os
import ssl
from typing import Any

from hyperion.gateway.front.caller import Peer
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import InvalidConfig


def make_tls_context(config: GatewayConfig, protocol: str) -> ssl.SSLContext | None:
    """TLS as configured, or None; `protocol` is what ALPN offers. With a client CA, clients must show a certificate.

    Raises InvalidConfig where a file cannot be used.
    """
    if not config.tls_cert or not config.tls_key:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (config.tls_cert, config.tls_key, config.tls_client_ca):
        if path is not None:
            _check_readable(path)

    def refuse_to_open() -> str:  # without it OpenSSL asks whoever sits at the terminal, and waits
        raise InvalidConfig(f"TLS key {config.tls_key} is encrypted; give one that is not, readable by this user only")

    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, refuse_to_open)
    except ssl.SSLError as error:
        raise InvalidConfig(
            f"TLS: certificate {config.tls_cert} and key {config.tls_key} cannot be used together ({_why(error)}); "
            "check that both are PEM files and belong to each other"
        ) from None
    if config.tls_client_ca:
        try:
            context.load_verify_locations(config.tls_client_ca)
        except ssl.SSLError as error:
            raise InvalidConfig(
                f"TLS client CA {config.tls_client_ca} cannot be used ({_why(error)}); expected certificates in PEM"
            ) from None
        # Where credentials are required anyway, a certificate is one kind of them.
        context.verify_mode = ssl.CERT_OPTIONAL if config.require_auth else ssl.CERT_REQUIRED
    context.set_alpn_protocols([protocol])
    return context


def _why(error: ssl.SSLError) -> str:
    return error.reason or str(error)


class TlsFiles:
    """The files of a TLS configuration, and whether they were replaced since the last look."""

    def __init__(self, config: GatewayConfig) -> None:
        self._paths = [path for path in (config.tls_cert, config.tls_key, config.tls_client_ca) if path]
        self._seen = self._look()

    def have_changed(self) -> bool:
        """Whether a file is another one than at the last call."""
        seen, self._seen = self._seen, self._look()
        return seen != self._seen

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_identify(path) for path in self._paths]


def _identify(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:  # between two renames; the next look finds it, or the reload says what is missing
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """What a new connection shows of its other end."""
    address = transport.get_extra_info("peername")
    host = address[0] if isinstance(address, tuple) else ""
    return Peer(host, names_of(transport.get_extra_info("peercert") or {}))


def names_of(certificate: dict[str, Any]) -> tuple[str, ...]:
    """The names for which a client certificate stands, as `ssl` gives it: alternative names, then the common name.

    >>> names_of({"subject": ((("commonName", "jobs"),),), "subjectAltName": (("URI", "spiffe://acme/jobs"),)})
    ('spiffe://acme/jobs', 'jobs')
    """
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI", "email")]
    names += [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    return tuple(names)


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InvalidConfig(f"TLS file {path} cannot be read: {error.strerror}") from None
