"""Sign a version, and decide whose signature counts: `model-signing` (Sigstore bundles), offline with a key or a
certificate.

Called by `cli` to sign, by `control` before a version is laid out, and by `hyperion model verify`. What is signed is
the canonical manifest, and with it the digest of every file, the options, the metrics and the lineage. The signature
is a text (JSON) that is kept beside the version. Without the network, but for keyless signatures, which need it.
"""

import hashlib
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from hyperion.schema.errors import HyperionError, MissingExtra, ModelRefused
from hyperion.schema.registry import Manifest
from hyperion.store.versions.manifest import content_of, encode_manifest, runs_code

FILE = "manifest.json"
LIMIT_BYTES = 1 << 20


class Identity(Struct, frozen=True):
    """Who may sign without a key: an e-mail address or a workflow, and the OpenID Connect issuer that vouches for
    it."""

    identity: str
    issuer: str


class Trust(Struct, frozen=True):
    """Whose signatures count: paths of PEM files with public keys, and with root certificates, and keyless identities.
    `required` refuses versions that none of them has signed. A certificate counts by the time at which it began to be
    valid: a version that was signed does not stop to load because a certificate has run out."""

    public_keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = ()
    required: bool = False

    def __bool__(self) -> bool:
        return bool(self.public_keys or self.certificates or self.identities)


class SigningKey(Struct, frozen=True):
    """What to sign with: the path of a private key (PEM, NIST curve P-256, P-384 or P-521) and its password, and of
    the certificate of that key with its chain, where it has one."""

    private_key: str
    password: str = ""
    certificate: str = ""
    chain: tuple[str, ...] = ()


def sign_manifest(manifest: Manifest, key: SigningKey) -> str:
    """The signature of a version. Raises ModelRefused where the key cannot be used, or MissingExtra."""
    signing = _import("signing")

    def configure() -> Any:
        if key.certificate:
            if key.password:
                raise ModelRefused(
                    f"{key.private_key}: a key with a certificate cannot have a password; decrypt it first"
                )
            return signing.Config().use_certificate_signer(
                private_key=key.private_key,
                signing_certificate=key.certificate,
                # The library takes no empty chain; the certificate itself adds nothing to it.
                certificate_chain=key.chain or (key.certificate,),
            )
        password = key.password.encode() or None  # the library hands it to `cryptography`, which takes bytes
        return signing.Config().use_elliptic_key_signer(private_key=key.private_key, password=password)

    advice = (
        "expected a private key on a NIST curve in PEM format; make one with: "
        "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
    )
    return _sign(manifest, configure, f"{Path(key.private_key).name}: cannot sign with it", advice)


def sign_keyless(manifest: Manifest, identity_token: str = "", *, staging: bool = False) -> str:
    """The signature of a version by an identity instead of a key. It needs the network: Sigstore's certificate
    authority and its transparency log, in which the identity becomes public. Without a token, a browser is opened."""
    signing = _import("signing")

    def configure() -> Any:
        return signing.Config().use_sigstore_signer(
            identity_token=identity_token or None, use_ambient_credentials=not identity_token, use_staging=staging
        )

    return _sign(
        manifest,
        configure,
        "cannot sign without a key",
        "this needs the network and an identity; sign with --sign-key to do it offline",
    )


def verify_signature(manifest: Manifest, signature: str, trust: Trust) -> str:
    """Who signed the version: `key NAME`, `certificate NAME` or `identity NAME`; "" where nobody did, or where nobody
    is trusted, unless a signature is required.

    Raises ModelRefused for a signature that is not that of somebody trusted, for one that was made for something else,
    and for a missing one that is required; the message says what to do.
    """
    name = f"{manifest.model}@{manifest.version}"
    if not signature:
        if trust.required:
            raise ModelRefused(
                f"{name}: is not signed, and only signed versions may be served here; push it again as a new version "
                "with --sign-key"
            )
        return ""
    if not trust:
        if trust.required:
            raise ModelRefused(
                f"{name}: signatures are required, but no key is trusted; name its public key with --trusted-keys"
            )
        return ""
    kind = _kind_of(name, signature)
    with _laid_out(manifest) as (folder, path):
        path.write_text(signature, encoding="utf-8")
        for who, config in _verifiers(kind, trust):
            if _is_signed(config, folder, path):
                _check_statement(name, signature, manifest)
                return who
    network = " (to check an identity needs the network)" if kind == "identity" else ""
    raise ModelRefused(
        f"{name}: its signature is not valid for this version, or not by a trusted {kind}; trusted are "
        f"{_names(trust)}{network}. If you trust who signed it, name the public key or the root certificate with "
        "--trusted-keys; otherwise sign and push it again as a new version"
    )


def decide_trust(manifest: Manifest, signed_by: str, trust_pickle: bool) -> bool:
    """True where what is serialised in the files may run code when it is loaded: somebody trusted signed the version,
    or the operator said so. Raises ModelRefused where a format cannot be loaded without that."""
    if signed_by or trust_pickle:
        return True
    if runs_code(manifest):
        raise ModelRefused(
            f"{manifest.model}@{manifest.version}: loading this format runs whatever code lies in its files. Sign the "
            "version with a key that is trusted here (--sign-key, --trusted-keys), convert it to a safe format with "
            "`hyperion model convert`, or, if you trust who made it, serve it with --trust-pickle"
        )
    return False


def _sign(manifest: Manifest, configure: Callable[[], Any], what: str, advice: str) -> str:
    with _laid_out(manifest) as (folder, path):
        try:
            configure().sign(folder, path)
            return path.read_text(encoding="utf-8")
        except HyperionError:
            raise
        except OSError as error:
            raise ModelRefused(f"{what}: {(error.strerror or type(error).__name__).lower()}; {advice}") from error
        except Exception as error:
            raise ModelRefused(f"{what}: {' '.join(str(error).split())[:200]}; {advice}") from error


@contextmanager
def _laid_out(manifest: Manifest) -> Iterator[tuple[Path, Path]]:
    """A directory that holds the canonical manifest alone, because the library signs directories, and the path of the
    signature beside it."""
    with tempfile.TemporaryDirectory(prefix="hyperion-") as home:
        folder = Path(home) / f"{manifest.model}@{manifest.version}"
        folder.mkdir()
        (folder / FILE).write_bytes(encode_manifest(content_of(manifest)))
        yield folder, Path(home) / "signature.json"


def _kind_of(name: str, signature: str) -> str:
    """How the bundle says that it was signed. It decides only which verifier is asked."""
    if len(signature) > LIMIT_BYTES:
        raise ModelRefused(f"{name}: its signature is larger than {LIMIT_BYTES >> 20} MiB")
    try:
        material = msgspec.json.decode(signature.encode(), type=dict[str, Any])["verificationMaterial"]
        for field, kind in (("publicKey", "key"), ("x509CertificateChain", "certificate"), ("certificate", "identity")):
            if field in material:
                return kind
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError, RecursionError) as error:
        raise ModelRefused(f"{name}: its signature is no Sigstore bundle; sign it with --sign-key") from error
    raise ModelRefused(f"{name}: its signature is no Sigstore bundle with a key, certificate or identity")


def _verifiers(kind: str, trust: Trust) -> Iterator[tuple[str, Any]]:
    """Who may have signed, and how to find out."""
    verifying = _import("verifying")
    if kind == "key":
        for key in trust.public_keys:
            config = _configure(key, lambda path: verifying.Config().use_elliptic_key_verifier(public_key=path))
            yield f"key {Path(key).name}", config
    elif kind == "certificate":
        for root in trust.certificates:
            config = _configure(
                root, lambda path: verifying.Config().use_certificate_verifier(certificate_chain=[path])
            )
            yield f"certificate {Path(root).name}", config
    else:
        for trusted in trust.identities:
            config = verifying.Config().use_sigstore_verifier(identity=trusted.identity, oidc_issuer=trusted.issuer)
            yield f"identity {trusted.identity}", config


def _configure(path: str, make: Callable[[str], Any]) -> Any:
    try:
        return make(path)
    except Exception as error:
        raise ModelRefused(
            f"{Path(path).name}: cannot be used as trusted key or certificate: {' '.join(str(error).split())[:200]}; "
            "expected PEM, made for example with: openssl ec -in key.pem -pubout -out key.pub"
        ) from error


def _is_signed(config: Any, folder: Path, path: Path) -> bool:
    """What the library says of a text from outside: its many kinds of exceptions all mean no."""
    try:
        config.verify(folder, path)
    except Exception:
        return False
    return True


def _check_statement(name: str, signature: str, manifest: Manifest) -> None:
    """The library takes from the signed statement itself which files to leave out. So look once more: what was signed
    must be the manifest, by its hash, and nothing else."""
    envelope = msgspec.json.decode(signature)["dsseEnvelope"]
    statement = msgspec.json.decode(b64decode(envelope["payload"]))
    digest = hashlib.sha256(encode_manifest(content_of(manifest))).hexdigest()
    if statement["predicate"]["resources"] != [{"name": FILE, "algorithm": "sha256", "digest": digest}]:
        raise ModelRefused(f"{name}: its signature was made for something else; sign and push it as a new version")


def _names(trust: Trust) -> str:
    files = [Path(path).name for path in (*trust.public_keys, *trust.certificates)]
    return ", ".join((*files, *(trusted.identity for trusted in trust.identities)))


def _import(module: str) -> Any:
    try:
        if module == "signing":
            from model_signing import signing

            return signing
        from model_signing import verifying
    except ImportError as error:
        raise MissingExtra(
            "signatures need model-signing, which is not installed; install it with: "
            "pip install 'hyperion-inference[signing]'"
        ) from error
    return verifying
