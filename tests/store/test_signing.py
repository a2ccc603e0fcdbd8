"""A signature counts for one manifest and from somebody trusted, and for nothing and from nobody else. All offline."""

import datetime
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelOptions
from hyperion.schema.registry import FileEntry, Manifest
from hyperion.store.versions.digest import digest_of_entries
from hyperion.store.versions.manifest import decode_manifest, encode_manifest
from hyperion.store.versions.signing import SigningKey, Trust, decide_trust, sign_manifest, verify_signature
from tests.services import needs_module

needs_module("model_signing", extra="signing")

FILES = (FileEntry("model.pkl", "a" * 64, 10),)
MANIFEST = Manifest("fraud", "7", digest_of_entries(FILES), "sklearn", FILES, "model.pkl", metrics={"auc": 0.9})


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a signature needed the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def make_key(folder: Path, name: str, password: str = "") -> SigningKey:
    """A key pair NAME.pem and NAME.pub."""
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)
    return SigningKey(str(folder / f"{name}.pem"), password)


def trust_key(folder: Path, *names: str, required: bool = False) -> Trust:
    return Trust(tuple(str(folder / f"{name}.pub") for name in names), required=required)


def refuse(call: Callable[[], object]) -> str:
    with pytest.raises(ModelRefused) as caught:
        call()
    return caught.value.message


@pytest.fixture
def signature(tmp_path: Path) -> str:
    make_key(tmp_path, "other")
    return sign_manifest(MANIFEST, make_key(tmp_path, "key"))


def test_a_signature_of_a_trusted_key_is_known_by_its_name(tmp_path: Path, signature: str) -> None:
    again = decode_manifest(encode_manifest(MANIFEST))
    assert verify_signature(again, signature, trust_key(tmp_path, "other", "key", required=True)) == "key key.pub"


def test_a_key_may_have_a_password(tmp_path: Path) -> None:
    key = make_key(tmp_path, "locked", "secret")
    assert verify_signature(MANIFEST, sign_manifest(MANIFEST, key), trust_key(tmp_path, "locked")) == "key locked.pub"
    message = refuse(lambda: sign_manifest(MANIFEST, SigningKey(key.private_key, "wrong")))
    assert message.startswith("locked.pem: cannot sign with it")


def test_a_signature_of_somebody_else_is_refused_with_what_to_do(tmp_path: Path, signature: str) -> None:
    message = refuse(lambda: verify_signature(MANIFEST, signature, trust_key(tmp_path, "other")))
    assert "not by a trusted key; trusted are other.pub" in message
    assert "--trusted-key" in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize(
    "change",
    [
        {"version": "8"},
        {"model": "loans"},
        {"metrics": {"auc": 0.99}},
        {"options": ModelOptions(max_batch_size=1)},
        {"files": (FileEntry("model.pkl", "b" * 64, 10),)},
        {"card": "x"},
    ],
)
def test_a_signature_counts_for_no_other_manifest(tmp_path: Path, signature: str, change: dict[str, Any]) -> None:
    other = msgspec.structs.replace(MANIFEST, **change)
    assert "not valid for this version" in refuse(
        lambda: verify_signature(other, signature, trust_key(tmp_path, "key"))
    )


def test_a_missing_signature_is_refused_only_where_one_is_required(tmp_path: Path, signature: str) -> None:
    assert verify_signature(MANIFEST, "", trust_key(tmp_path, "key")) == ""
    assert "is not signed" in refuse(lambda: verify_signature(MANIFEST, "", trust_key(tmp_path, "key", required=True)))
    assert verify_signature(MANIFEST, signature, Trust()) == ""
    assert "no key is trusted" in refuse(lambda: verify_signature(MANIFEST, signature, Trust(required=True)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_signature_that_was_changed_is_refused(tmp_path: Path, signature: str, data: Any) -> None:
    sealed = msgspec.json.decode(signature)["dsseEnvelope"]["payload"]
    start = signature.index(sealed)
    at = data.draw(st.integers(start, start + len(sealed) - 4))
    letter = data.draw(st.sampled_from("ABCxyz019").filter(lambda letter: letter != signature[at]))
    changed = signature[:at] + letter + signature[at + 1 :]
    assert "its signature" in refuse(lambda: verify_signature(MANIFEST, changed, trust_key(tmp_path, "key")))


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"verificationMaterial": 1}', '{"verificationMaterial": {}}', "x" * 2_000_000, "\ud800"]
)
def test_what_is_no_signature_is_refused(tmp_path: Path, signature: str, text: str) -> None:
    assert "its signature is" in refuse(lambda: verify_signature(MANIFEST, text, trust_key(tmp_path, "key")))


def test_files_that_are_no_keys_are_named(tmp_path: Path, signature: str) -> None:
    (tmp_path / "bad.pub").write_text("nothing")
    assert "openssl ecparam" in refuse(lambda: sign_manifest(MANIFEST, SigningKey(str(tmp_path / "absent.pem"))))
    assert refuse(lambda: verify_signature(MANIFEST, signature, trust_key(tmp_path, "bad"))).startswith("bad.pub: ")


def make_certificate(folder: Path, name: str, issuer: str = "") -> None:
    """NAME.pem and NAME.crt, signed by ISSUER.pem or by itself, for a day of last year."""
    key = serialization.load_pem_private_key(Path(make_key(folder, name).private_key).read_bytes(), None)
    signer = serialization.load_pem_private_key((folder / f"{issuer or name}.pem").read_bytes(), None)
    begin = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    common = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer or name)]
    builder = (
        x509.CertificateBuilder(common[1], common[0], key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not issuer, path_length=None), critical=True)
    )
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = builder.add_extension(
        x509.KeyUsage(digital_signature=True, key_cert_sign=not issuer, crl_sign=not issuer, **usage), critical=True
    )
    certificate = builder.sign(signer, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def test_a_certificate_counts_by_its_root(tmp_path: Path) -> None:
    make_certificate(tmp_path, "root")
    make_certificate(tmp_path, "stranger")
    make_certificate(tmp_path, "ada", issuer="root")
    key = SigningKey(str(tmp_path / "ada.pem"), certificate=str(tmp_path / "ada.crt"))
    signature = sign_manifest(MANIFEST, key)
    trust = Trust(certificates=(str(tmp_path / "stranger.crt"), str(tmp_path / "root.crt")))
    assert verify_signature(MANIFEST, signature, trust) == "certificate root.crt"
    stranger = Trust(certificates=(str(tmp_path / "stranger.crt"),))
    assert "not by a trusted certificate" in refuse(lambda: verify_signature(MANIFEST, signature, stranger))
    # A key that is trusted as such says nothing about certificates.
    assert "not by a trusted certificate" in refuse(
        lambda: verify_signature(MANIFEST, signature, trust_key(tmp_path, "ada"))
    )


def test_a_pickle_needs_a_trusted_signature_or_the_operator_s_word() -> None:
    assert decide_trust(MANIFEST, "key key.pub", False)
    assert decide_trust(MANIFEST, "", True)
    message = refuse(lambda: decide_trust(MANIFEST, "", False))
    assert all(word in message for word in ("--sign-key", "--trust-pickle", "hyperion model convert"))
    safe = msgspec.structs.replace(MANIFEST, entry="model.skops")
    assert not decide_trust(safe, "", False)


def test_a_signature_holds_for_the_same_content_whoever_pushed_it_and_when(tmp_path: Path, signature: str) -> None:
    """A version that was there unsigned may be signed later; what the registry keeps is its first manifest."""
    first = msgspec.structs.replace(MANIFEST, created_by="bob@there", created_at=MANIFEST.created_at + 60.0)
    assert verify_signature(first, signature, trust_key(tmp_path, "key")) == "key key.pub"
