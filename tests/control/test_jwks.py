"""Public keys from issuers that cannot be trusted to answer well: what is kept, and what each fault is told."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperion.control.callers import jwks
from hyperion.control.callers.jwks import ANSWER_BYTES, MAX_KEYS, fetch_keys, read_keys
from hyperion.schema.errors import UpstreamFailed
from hyperion.schema.resource import IssuerSpec
from tests.gateway.conftest import authority  # noqa: F401
from tests.oidc_issuer import DISCOVERY, JWKS, Given, OidcIssuer, SigningKey

BOTH = ("RS256", "ES256")
RSA, EC = SigningKey("r").jwk(), SigningKey("e", "ES256").jwk()


def octets(size: int, first: int = 0xFF) -> str:
    return base64.urlsafe_b64encode(bytes((first,)) * size).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (Given(404, b""), "answered 404, expected 200"),
        (Given(302, b"", {"location": "http://169.254.169.254/"}), "302 to 'http://169.254.169.254/'"),
        (Given(200, b""), "is not JSON"),
        (Given(200, b"{"), "is not JSON"),
        (Given(200, b"[" * 100_000), "is not JSON"),
        (Given(200, b"[]"), "is no JSON object"),
        (Given(200, b"\xff{}"), "is not JSON"),
        (Given(200, b" " * (ANSWER_BYTES + 1)), "answered more than 256 KiB"),
        (Given(200, b"{}", {"transfer-encoding": "chunked"}), "keys"),
        (Given(200, b"{}"), 'has no list of "keys"'),
        (Given(200, b'{"keys":{}}'), 'has no list of "keys"'),
        (Given(200, b'{"keys":[1,null,{},[]]}'), "has 0 keys that can check RS256 or ES256"),
        (Given(200, json.dumps({"keys": [RSA] * (MAX_KEYS + 1)}).encode()), "has 65 keys"),
    ],
)
def test_an_answer_that_is_none_is_told(body: Given, message: str) -> None:
    with OidcIssuer() as issuer:
        issuer.given[JWKS] = body
        with pytest.raises(UpstreamFailed) as failed:
            fetch_keys(IssuerSpec(issuer.url, "h"))
        assert message in failed.value.message or "transfer-encoding" in body.headers
        issuer.given.clear()
        assert len(fetch_keys(IssuerSpec(issuer.url, "h"))) == 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"issuer": "https://other.example.com"}, "is of 'https://other.example.com', expected 'http://127"),
        ({"issuer": None}, "is of 'None'"),
        ({"jwks_uri": "http://10.0.0.1/keys"}, "jwks_uri is 'http://10.0.0.1/keys', expected an https:// URL"),
        ({"jwks_uri": "file:///etc/passwd"}, "expected an https:// URL"),
        ({"jwks_uri": 5}, "jwks_uri is '5'"),
    ],
)
def test_a_discovery_document_that_leads_astray_is_refused(document: dict[str, Any], message: str) -> None:
    with OidcIssuer() as issuer:
        issuer.document = document
        with pytest.raises(UpstreamFailed, match=r"jwks_uri|discovery document") as failed:
            fetch_keys(IssuerSpec(issuer.url, "h"))
        assert message in failed.value.message
        assert issuer.asked(JWKS) == 0


def test_an_issuer_elsewhere_cannot_send_us_to_what_listens_for_this_machine_alone() -> None:
    here, elsewhere = "http://127.0.0.1:9000", "https://id.example.com"
    document = {"jwks_uri": "http://localhost:8082/api/v1/keys"}
    assert jwks.read_discovery(document | {"issuer": here}, here) == document["jwks_uri"]
    with pytest.raises(UpstreamFailed, match="expected an https:// URL"):
        jwks.read_discovery(document | {"issuer": elsewhere}, elsewhere)


def test_with_a_jwks_url_nothing_is_discovered() -> None:
    with OidcIssuer() as issuer:
        assert len(fetch_keys(IssuerSpec("any name", "h", jwks_url=f"{issuer.url}{JWKS}"))) == 2
        assert issuer.asked(DISCOVERY) == 0


def test_an_issuer_that_is_gone_or_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_S", 0.3)
    with OidcIssuer() as issuer:
        spec = IssuerSpec(issuer.url, "h")
        issuer.pause_s = 60.0
        with pytest.raises(UpstreamFailed, match=issuer.url):
            fetch_keys(spec)
        issuer.pause_s, issuer.drip_s = 0.0, 0.05  # a byte now and then: no read ever times out
        with pytest.raises(UpstreamFailed):
            fetch_keys(spec)
        issuer.drip_s = 0.0
        issuer.stop()
        with pytest.raises(UpstreamFailed, match="refused"):
            fetch_keys(spec)


def test_an_authority_of_ones_own_is_trusted_only_where_it_is_named(authority: Path) -> None:  # noqa: F811
    certificate = authority / "server.pem", authority / "server.key"
    with OidcIssuer(certificate) as issuer:
        assert issuer.url.startswith("https://localhost:")
        assert len(fetch_keys(IssuerSpec(issuer.url, "h", ca_file=str(authority / "ca.pem")))) == 2
        with pytest.raises(UpstreamFailed, match="CERTIFICATE_VERIFY_FAILED"):
            fetch_keys(IssuerSpec(issuer.url, "h"))
        with pytest.raises(UpstreamFailed, match="FileNotFoundError"):
            fetch_keys(IssuerSpec(issuer.url, "h", ca_file=str(authority / "none.pem")))


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "oct", **{name: RSA[name] for name in ("n", "e")}},
        {**RSA, "kty": "rsa"},
        {**RSA, "use": "enc"},
        {**RSA, "key_ops": ["encrypt"]},
        {**RSA, "key_ops": "verify"},
        {**RSA, "alg": "RS512"},
        {**RSA, "alg": "none"},
        {**RSA, "alg": ["RS256"]},
        {**RSA, "kid": 1},
        {**RSA, "kid": "k" * 257},
        {**RSA, "n": octets(128)},
        {**RSA, "n": octets(2_048)},
        {**RSA, "n": "***"},
        {**RSA, "n": ""},
        {**RSA, "n": 5},
        {**RSA, "e": octets(1, 0x02)},
        {**RSA, "e": octets(1, 0x01)},
        {**RSA, "e": octets(128)},
        {"kty": "RSA", "n": RSA["n"]},
        {**EC, "crv": "secp256k1"},
        {**EC, "crv": "P-521"},
        {**EC, "x": octets(31)},
        {**EC, "y": None},
        {"kty": "OKP", "crv": "X25519", "x": octets(32)},
        {"kty": "OKP", "crv": "Ed25519", "x": octets(31)},
        {"kty": "EC", "crv": "Ed25519", "x": octets(32), "y": octets(32)},
        None,
        [],
    ],
)
def test_a_key_that_cannot_check_a_signature_is_left_out(key: Any) -> None:
    (kept,) = read_keys({"keys": [key, EC]}, BOTH)
    assert kept == EC


def test_keys_of_each_family_are_kept() -> None:
    okp = {"kty": "OKP", "crv": "Ed25519", "x": octets(32)}
    bare = {name: RSA[name] for name in ("kty", "n", "e")}
    assert read_keys({"keys": [RSA, EC, okp, bare]}, (*BOTH, "EdDSA")) == (RSA, EC, okp, bare)
    assert read_keys({"keys": [RSA, EC]}, ("ES256",)) == (EC,)
    assert read_keys({"keys": [{**RSA, "key_ops": ["verify"], "x5c": ["a"], "d": "secret"}]}, BOTH) == (RSA,)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
near_keys = st.dictionaries(
    st.sampled_from(("kty", "n", "e", "crv", "x", "y", "d", "use", "key_ops", "alg", "kid")),
    json_values | st.sampled_from(("RSA", "EC", "OKP", "P-256", "Ed25519", "sig", "RS256", RSA["n"], EC["x"])),
)


@settings(max_examples=50)  # the documents take longer to make up than to read
@given(st.dictionaries(st.just("keys"), json_values | st.lists(near_keys | json_values, max_size=4)))
def test_any_answer_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        keys = read_keys(document, BOTH)
    except UpstreamFailed:
        return
    assert all(set(key) <= {"kty", "kid", "alg", "use", "n", "e", "crv", "x", "y"} for key in keys)
