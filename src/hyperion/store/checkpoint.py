"""The ledger's key and its signed checkpoints: C2SP signed notes (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).

A checkpoint says in three lines whose ledger it is, how many entries it has, and the root over them; then comes an
Ed25519 signature. The key lies in `HOME/ledger.key`, mode 0600, as Go's `note` package writes one:
`PRIVATE+KEY+NAME+KEYID+BASE64`. Its public half is a C2SP verifier key, `NAME+KEYID+BASE64`.
"""

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hyperion.schema.errors import InvalidConfig

ORIGIN = "hyperion/ledger/"
_ED25519 = b"\x01"
_HASH_BYTES, _SEED_BYTES, _SIGNATURE_BYTES, _ID_BYTES = 32, 32, 64, 4
_NOTE_MAX = 64 * 1024


class BadCheckpoint(ValueError):
    """Not a checkpoint, or not signed by the key that it was checked with."""


class Verifier:
    """A public key and the origin that it speaks for. BadCheckpoint unless `vkey` is an Ed25519 verifier key."""

    def __init__(self, vkey: str) -> None:
        try:
            name, key_id, text = vkey.strip().split("+", 2)  # a name has no plus, base64 may
            raw = base64.b64decode(text, validate=True)
            public = raw.removeprefix(_ED25519)
            if not name or len(public) != _HASH_BYTES or len(raw) != _HASH_BYTES + 1:
                raise ValueError("wrong length")
            self._key = Ed25519PublicKey.from_public_bytes(public)
        except ValueError as error:
            raise BadCheckpoint(f"{vkey[:80]!r} is not a verifier key (NAME+KEYID+BASE64, Ed25519)") from error
        self.origin = name
        self.id = _key_id(name, public)
        if self.id.hex() != key_id:
            raise BadCheckpoint(f"{vkey[:80]!r}: the key id is not that of the key: a part of it was changed")
        self.vkey = f"{name}+{key_id}+{text}"

    def signed(self, size: int, root: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over the checkpoint of that size and root."""
        try:
            self._key.verify(signature, body(self.origin, size, root))
        except InvalidSignature:
            return False
        return True

    def open(self, note: str) -> tuple[int, bytes]:
        """The size and the root that a checkpoint says. BadCheckpoint unless this key signed exactly these bytes."""
        text, mark, signatures = note[:_NOTE_MAX].partition("\n\n")
        lines = text.split("\n")
        if not mark or len(lines) != 3 or lines[0] != self.origin:
            raise BadCheckpoint(f"not a checkpoint of {self.origin}: expected its three lines and a signature")
        size, root = lines[1], read_base64(lines[2])
        if not (size.isascii() and size.isdigit()) or (size[0] == "0" and size != "0") or len(root) != _HASH_BYTES:
            raise BadCheckpoint("the size or the root of the checkpoint cannot be read")
        if body(self.origin, int(size), root) != f"{text}\n".encode():
            raise BadCheckpoint("the checkpoint is not written as it is signed")
        for line in signatures.split("\n"):
            signature = read_base64(line.removeprefix(f"— {self.origin} "))
            if signature[:_ID_BYTES] == self.id and self.signed(int(size), root, signature[_ID_BYTES:]):
                return int(size), root
        raise BadCheckpoint(f"the checkpoint is not signed by the key {self.vkey}")


class Signer(Verifier):
    """The private key of a ledger: 32 bytes of seed, and the origin."""

    def __init__(self, origin: str, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._private.public_key().public_bytes_raw()
        text = base64.b64encode(_ED25519 + public).decode()
        super().__init__(f"{origin}+{_key_id(origin, public).hex()}+{text}")

    def sign(self, size: int, root: bytes) -> bytes:
        """The 64 bytes of the signature over the checkpoint of that size and root."""
        return self._private.sign(body(self.origin, size, root))


def body(origin: str, size: int, root: bytes) -> bytes:
    """What is signed: origin, size and base64 root, a line each."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def note_of(key: Verifier, size: int, root: bytes, signature: bytes) -> str:
    """The checkpoint as it is handed out."""
    line = base64.b64encode(key.id + signature).decode()
    return f"{body(key.origin, size, root).decode()}\n— {key.origin} {line}\n"


def make_key(home_id: str) -> str:
    """A new private key, as text, for the ledger of that home."""
    seed = os.urandom(_SEED_BYTES)
    signer = Signer(ORIGIN + home_id, seed)
    return f"PRIVATE+KEY+{signer.origin}+{signer.id.hex()}+{base64.b64encode(_ED25519 + seed).decode()}"


def read_signer(path: Path) -> Signer:
    """The key in the file. FileNotFoundError where there is none; InvalidConfig where it is readable by others or not
    a key."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8").strip()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path.name}: the key of the ledger cannot be read: {error}") from error
    if mode & 0o077:
        raise InvalidConfig(f"{path.name}: others can read the key of the ledger; chmod it to 0600")
    try:
        head, name, key_id, secret = text.removeprefix("PRIVATE+").split("+", 3)
        seed = base64.b64decode(secret, validate=True).removeprefix(_ED25519)
        signer = Signer(name, seed)
        if head != "KEY" or signer.id.hex() != key_id:
            raise ValueError("not a private key, or a part of it was changed")
    except ValueError as error:
        raise InvalidConfig(
            f"{path.name}: is not the key of a ledger ({error}); restore it from a backup: what it signed can only be "
            "continued with it"
        ) from error
    return signer


def ensure_signer(path: Path) -> Signer:
    """The key in the file, after making it, mode 0600, where there is none. Safe when two processes do it at once."""
    try:
        return read_signer(path)
    except FileNotFoundError:
        _write_once(path, make_key(os.urandom(8).hex()).encode() + b"\n")
        return read_signer(path)


def commitment_key(home: Path) -> bytes:
    """The 32 bytes in `HOME/commitment.key`, made at first use, mode 0600, with which personal data is committed to
    (`ledger.commit_to`). Whoever destroys the file makes every such commitment meaningless, and breaks nothing else."""
    path = home / "commitment.key"
    if not path.exists():
        _write_once(path, os.urandom(_HASH_BYTES).hex().encode() + b"\n")
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{path.name}: cannot be read: {error}; restore it from a backup") from error
    if len(key) != _HASH_BYTES:
        raise InvalidConfig(f"{path.name}: expected {_HASH_BYTES} bytes in hex; restore it from a backup")
    return key


def _write_once(path: Path, content: bytes) -> None:
    """Puts the whole file there, on disk, or leaves the one that is there: a half-written key must never be seen."""
    new = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(new, path)
        except FileExistsError:
            return  # another process was first: its key counts
        finally:
            os.unlink(new)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise InvalidConfig(f"{path.name}: cannot be written: {reason}; choose another --home") from error


def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_ID_BYTES]


def read_base64(text: str) -> bytes:
    """The bytes of strict base64, which has one text per value; b"" where it is none."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if base64.b64encode(raw).decode() == text else b""
