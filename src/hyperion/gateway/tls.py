"""TLS for both edges, as configured. Used by `gateway/process` and `gateway/grpc`."""

import ssl

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
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
        if config.tls_client_ca:
            context.load_verify_locations(config.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        raise InvalidConfig(
            f"TLS: certificate {config.tls_cert} and key {config.tls_key} cannot be used together ({reason}); "
            "check that both are PEM files and belong to each other"
        ) from None
    context.set_alpn_protocols([protocol])
    return context


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InvalidConfig(f"TLS file {path} cannot be read: {error.strerror}") from None
