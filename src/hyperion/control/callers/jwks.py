"""Fetch an issuer's public keys: discovery, JWKS, and only what can check a signature of it.

Called by `directory`, in a thread of its own. What an issuer answers is not trusted: its size, its time, its
form and where it sends us are bounded, redirects are not followed, and nothing that is private or symmetric is kept.
"""

import base64
import binascii
import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from hyperion.schema.errors import UpstreamFailed
from hyperion.schema.resource import IssuerSpec
from hyperion.store.checks.access import is_safe_url

DISCOVERY: Final = "/.well-known/openid-configuration"
FETCH_S: Final = 5.0  # to connect, and again for the answer from the first byte sent to the last one read
ANSWER_BYTES: Final = 256 << 10
MAX_KEYS: Final = 64
MAX_KID: Final = 256
# 2,048 is the least that RFC 7518 allows; above 8,192 a signature takes long enough to be an attack.
RSA_BITS: Final = (2_048, 8_192)
RSA_EXPONENT_BITS: Final = 33
_SIZES: Final = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32, "Ed448": 57}
_CURVES: Final = {"EC": ("P-256", "P-384", "P-521"), "OKP": ("Ed25519", "Ed448")}
_KEPT: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


def source_of(spec: IssuerSpec) -> str:
    """Where the keys of an issuer come from: keys of another source do not count.

    >>> source_of(IssuerSpec("https://id.example.com", "a"))
    'https://id.example.com discovery'
    """
    return f"{spec.issuer} {spec.jwks_url or 'discovery'}"


def fetch_keys(spec: IssuerSpec) -> tuple[dict[str, Any], ...]:
    """The issuer's keys as it has them now. Blocks, for up to FETCH_S at each of a few steps. UpstreamFailed says why
    there are none."""
    url = spec.jwks_url
    try:
        if not url:
            document = _read_object(_get(spec.issuer.rstrip("/") + DISCOVERY, spec.ca_file), "its discovery document")
            url = read_discovery(document, spec.issuer)
        return read_keys(_read_object(_get(url, spec.ca_file), "its JWKS"), spec.algorithms)
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a line of nonsense for a status
        raise UpstreamFailed(f"{url or spec.issuer}: {type(error).__name__}: {error}"[:300]) from error


def read_discovery(document: dict[str, Any], issuer: str) -> str:
    """The URL of the JWKS. UpstreamFailed where the document is another issuer's (OpenID Connect Discovery 1.0, 4.3) or
    leads somewhere unsafe."""
    if document.get("issuer") != issuer:
        raise UpstreamFailed(
            f"its discovery document is of {str(document.get('issuer'))[:200]!r}, expected {issuer!r} to the letter; "
            "set spec.issuer to what tokens say in `iss`"
        )
    url = document.get("jwks_uri")
    # Only who is on this machine itself may send us there: an issuer elsewhere would reach what listens for us alone.
    if not isinstance(url, str) or not is_safe_url(url) or (issuer.startswith("https:") and url.startswith("http:")):
        raise UpstreamFailed(f"its jwks_uri is {str(url)[:200]!r}, expected an https:// URL")
    return url


def read_keys(document: dict[str, Any], algorithms: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """The keys of a JWKS that can check signatures of these algorithms, without what is private. UpstreamFailed where
    there is none, or too many.

    >>> key = {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "d": "secret", "kid": "a", "use": "sig"}
    >>> read_keys({"keys": [key, {"kty": "oct", "k": "c2VjcmV0"}]}, ("EdDSA",))
    ({'kty': 'OKP', 'crv': 'Ed25519', 'x': 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 'kid': 'a', 'use': 'sig'},)
    """
    given = document.get("keys")
    if not isinstance(given, list):
        raise UpstreamFailed('its JWKS has no list of "keys"')
    keys = tuple(_read_each(given, algorithms))
    if not 1 <= len(keys) <= MAX_KEYS:
        raise UpstreamFailed(
            f"its JWKS has {len(keys)} keys that can check {' or '.join(algorithms)}; expected 1 to {MAX_KEYS}"
        )
    return keys


def _read_each(given: list[Any], algorithms: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for key in given:
        kty = key.get("kty") if isinstance(key, dict) else None
        if not isinstance(kty, str) or kty not in _KEPT or not _is_for_signatures(key, algorithms):
            continue
        kept = {name: key.get(name) for name in _KEPT[kty]}
        if all(isinstance(value, str) for value in kept.values()) and _is_sound(kty, kept):
            labels = {name: key[name] for name in ("kid", "alg", "use") if isinstance(key.get(name), str)}
            yield {"kty": kty, **kept, **labels}


def _is_for_signatures(key: dict[str, Any], algorithms: tuple[str, ...]) -> bool:
    operations, kid = key.get("key_ops", ["verify"]), key.get("kid", "")
    return (
        key.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and key.get("alg", algorithms[0]) in algorithms
        and isinstance(kid, str)
        and len(kid) <= MAX_KID
    )


def _is_sound(kty: str, key: dict[str, Any]) -> bool:
    if kty == "RSA":
        bits, exponent = _number(key["n"]).bit_length(), _number(key["e"])
        return RSA_BITS[0] <= bits <= RSA_BITS[1] and exponent % 2 == 1 and 1 < exponent < 1 << RSA_EXPONENT_BITS
    size = _SIZES.get(key["crv"], 0)
    return key["crv"] in _CURVES[kty] and all(len(_bytes(key[name])) == size for name in _KEPT[kty][1:])


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")


def _bytes(text: str) -> bytes:
    """base64url; b"" for what is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return b""


def _read_object(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamFailed(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise UpstreamFailed(f"{what} is no JSON object")
    return document


def _get(url: str, ca_file: str) -> bytes:
    """The body of a 200. OSError, HTTPException or UpstreamFailed."""
    parts = urlsplit(url)
    connection = _prepare(parts, ca_file)
    connection.connect()
    # A timeout of the socket is for one read: who sends a byte now and then would never meet it.
    watch = threading.Timer(FETCH_S, _hang_up, (connection.sock,))
    watch.daemon = True
    watch.start()
    try:
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("GET", target, headers={"accept": "application/json", "user-agent": "hyperion"})
        answer = connection.getresponse()
        if answer.status != 200:
            where = f" to {answer.getheader('location', '')[:200]!r}" if 300 <= answer.status < 400 else ""
            raise UpstreamFailed(f"{url}: answered {answer.status}{where}, expected 200 (redirects are not followed)")
        body = answer.read(ANSWER_BYTES + 1)
    finally:
        watch.cancel()
        connection.close()
    if len(body) > ANSWER_BYTES:
        raise UpstreamFailed(f"{url}: answered more than {ANSWER_BYTES >> 10} KiB")
    if answer.length:
        raise UpstreamFailed(f"{url}: its answer broke off, or took longer than {FETCH_S:g} s")
    return body


def _prepare(parts: SplitResult, ca_file: str) -> http.client.HTTPConnection:
    """A connection that is about to be made: to the host, or through the proxy that the environment names."""
    host, proxy = parts.hostname or "", urllib.request.getproxies().get(parts.scheme, "")
    if parts.scheme == "http":  # of the loopback: no proxy knows that
        return http.client.HTTPConnection(host, parts.port, timeout=FETCH_S)
    context = ssl.create_default_context(cafile=ca_file or None)
    if not proxy or urllib.request.proxy_bypass(host):
        return http.client.HTTPSConnection(host, parts.port, timeout=FETCH_S, context=context)
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = http.client.HTTPSConnection(via.hostname or "", via.port, timeout=FETCH_S, context=context)
    connection.set_tunnel(host, parts.port or 443)
    return connection


def _hang_up(opened: socket.socket) -> None:
    """End the connection under whoever reads from it."""
    try:
        socket.socket.shutdown(opened, socket.SHUT_RDWR)  # the plain one: TLS would say goodbye, and wait for an answer
    except OSError:
        return  # it is gone already
