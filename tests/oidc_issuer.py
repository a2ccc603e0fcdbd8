"""A small OpenID Connect issuer: a real HTTP(S) server with a discovery document and a JWKS, and the keys to sign with.

Its keys rotate; it can be stopped and started again at the same address, slowed, made to drip, and made to answer
anything. What it is asked for is counted, so that a test can wait for a question instead of sleeping.
"""

import base64
import json
import ssl
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

DISCOVERY, JWKS = "/.well-known/openid-configuration", "/keys"
AUDIENCE = "hyperion"


def encode(data: bytes | Mapping[str, Any]) -> str:
    """base64url without padding, of bytes or of a JSON object."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _number(value: int, size: int = 0) -> str:
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class SigningKey:
    """A private key for RS256 or ES256 (P-256)."""

    def __init__(self, kid: str, algorithm: str = "RS256", bits: int = 2048) -> None:
        self.kid, self.algorithm = kid, algorithm
        self.private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
            rsa.generate_private_key(65_537, bits) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
        )

    def jwk(self) -> dict[str, Any]:
        """The public half, as in a JWKS."""
        head = {"kid": self.kid, "use": "sig", "alg": self.algorithm}
        if isinstance(self.private, rsa.RSAPrivateKey):
            rsa_numbers = self.private.public_key().public_numbers()
            return {"kty": "RSA", **head, "n": _number(rsa_numbers.n), "e": _number(rsa_numbers.e)}
        numbers = self.private.public_key().public_numbers()
        return {"kty": "EC", **head, "crv": "P-256", "x": _number(numbers.x, 32), "y": _number(numbers.y, 32)}

    def private_jwk(self) -> dict[str, Any]:
        """Both halves, as nobody should publish them."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            numbers = self.private.private_numbers()
            return {**self.jwk(), "d": _number(numbers.d), "p": _number(numbers.p), "q": _number(numbers.q)}
        return {**self.jwk(), "d": _number(self.private.private_numbers().private_value, 32)}

    def pem(self) -> bytes:
        """The public half as PEM, with which an attacker may try an HMAC."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, data: bytes) -> bytes:
        """The signature as JWS has it (RFC 7518: PKCS#1 v1.5, or r and s beside each other)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def make_token(key: SigningKey, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
    """A signed JWT. `header` adds to, or replaces, what an honest one has; a value of None takes a field away."""
    fields = {"alg": key.algorithm, "typ": "JWT", "kid": key.kid, **(header or {})}
    head = encode({name: value for name, value in fields.items() if value is not None})
    signed = f"{head}.{encode(claims)}"
    return f"{signed}.{encode(key.sign(signed.encode()))}"


class Given(NamedTuple):
    """What to answer instead of the truth."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class OidcIssuer:
    """Entered, it answers at `url` (which is its `iss`). `given` has, by path, what is answered instead of the truth;
    `pause_s` is how long each answer takes; with `drip_s` a body comes byte by byte, so many seconds apart."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate` is a PEM file and its key: with them it speaks TLS, as `localhost`."""
        self.keys = [SigningKey("rsa-1", "RS256"), SigningKey("ec-1", "ES256")]
        self.given: dict[str, Given] = {}
        self.document: dict[str, Any] = {}  # replaces or adds fields of the discovery document
        self.pause_s = self.drip_s = 0.0
        self._made = 1
        self._certificate = certificate
        self._seen: list[str] = []
        self._asked = threading.Condition()
        self._ending = threading.Event()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """The issuer, as tokens name it."""
        return f"{'https://localhost' if self._certificate else 'http://127.0.0.1'}:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Answer, at the same address as before."""
        self._ending.clear()
        server = _Server(("127.0.0.1", self._port), _make_handler(self))
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self._server, self._port = server, server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        server, self._server = self._server, None
        if server is not None:
            self._ending.set()
            server.shutdown()
            server.server_close()

    def rotate(self, *, keep: bool = True) -> tuple[SigningKey, SigningKey]:
        """Make a new key of each kind and return them. Without `keep` the old ones are withdrawn."""
        self._made += 1
        new = SigningKey(f"rsa-{self._made}", "RS256"), SigningKey(f"ec-{self._made}", "ES256")
        self.keys = [*(self.keys if keep else ()), *new]
        return new

    def key(self, algorithm: str = "RS256") -> SigningKey:
        """The newest key of a kind."""
        return next(key for key in reversed(self.keys) if key.algorithm == algorithm)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of an honest token of tenant acme, with these changes; None takes a claim away."""
        now = int(time.time())
        given = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "tenant": "acme", "iat": now, "exp": now + 600}
        return {name: value for name, value in {**given, **changes}.items() if value is not None}

    def token(self, algorithm: str = "RS256", **changes: Any) -> str:
        """A token that is signed with the newest key of a kind."""
        return make_token(self.key(algorithm), self.claims(**changes))

    def asked(self, path: str = JWKS) -> int:
        """How often it was asked for a path."""
        with self._asked:
            return self._seen.count(path)

    def wait_asked(self, count: int, path: str = JWKS, timeout_s: float = 20.0) -> None:
        """Wait until it was asked for a path so many times."""
        with self._asked:
            told = self._asked.wait_for(lambda: self._seen.count(path) >= count, timeout_s)
            assert told, f"{path} was asked for {self._seen.count(path)} times, expected {count}"

    def answer(self, path: str) -> Given:
        """Count the question, take the time, and say what to answer."""
        with self._asked:
            self._seen.append(path)
            self._asked.notify_all()
        self._ending.wait(self.pause_s)
        if path in self.given:
            return self.given[path]
        if path == DISCOVERY:
            truth = {"issuer": self.url, "jwks_uri": f"{self.url}{JWKS}", "response_types_supported": ["id_token"]}
            return Given(200, json.dumps({**truth, **self.document}).encode())
        if path == JWKS:
            return Given(200, json.dumps({"keys": [key.jwk() for key in self.keys]}).encode())
        return Given(404, b"")

    def write(self, body: bytes, file: Any) -> None:
        """Send a body, as slowly as is asked for."""
        if not self.drip_s:
            file.write(body)
            return
        for byte in body:
            if self._ending.wait(self.drip_s):
                return
            file.write(bytes((byte,)))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that go away in the middle are part of the tests."""


def _make_handler(issuer: OidcIssuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = issuer.answer(self.path)
            self.send_response(given.status)
            for name, value in {"content-type": "application/json", **given.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(given.body)))
            self.end_headers()
            issuer.write(given.body, self.wfile)

        def log_message(self, format: str, *args: Any) -> None:
            """Quietly."""

    return Handler
