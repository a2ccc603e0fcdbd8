"""Whose signatures count here: from the files that the configuration names to what `store/versions/signing` asks."""

from pathlib import Path

from hyperion.schema.config import ControlConfig
from hyperion.schema.errors import InvalidConfig
from hyperion.store.versions.signing import Trust

_LIMIT_BYTES = 1 << 20


def read_trust(config: ControlConfig) -> Trust:
    """Tell the keys from the certificates by what the files say they are. Raises `InvalidConfig`."""
    keys, certificates = [], []
    for name in config.trusted_keys:
        try:
            with open(name, "rb") as file:
                text = file.read(_LIMIT_BYTES)
        except OSError as error:
            raise InvalidConfig(f"--trusted-keys: {name}: {(error.strerror or 'error').lower()}") from error
        if b"-----BEGIN PUBLIC KEY-----" in text:
            keys.append(name)
        elif b"-----BEGIN CERTIFICATE-----" in text:
            certificates.append(name)
        else:
            raise InvalidConfig(f"--trusted-keys: {Path(name).name}: expected a public key or a certificate as PEM")
    return Trust(tuple(keys), tuple(certificates), required=config.require_signature)
