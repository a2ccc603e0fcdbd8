"""One replica of the obedient model that all tests of this room share, and FIFOs to hold it."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyperion.schema.snapshot import ServedVersion
from tests.gateway.graphs import Steps, run_steps
from tests.gateway.runners import Fifo, config_of, served_by, start_runner, stop_runner


@pytest.fixture(scope="session")
def obedient_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("obedient")


@pytest.fixture(scope="session")
def obedient(obedient_dir: Path) -> Iterator[ServedVersion]:
    """A version with one replica, for tests that do it no harm."""
    config = config_of(obedient_dir)
    process = start_runner(config)
    yield served_by([config])
    stop_runner(process)


@pytest.fixture(scope="session")
def new_fifo(obedient_dir: Path) -> Callable[[], Fifo]:
    """Places where the shared replica waits."""
    numbers = itertools.count()
    return lambda: Fifo(obedient_dir, f"fifo{next(numbers)}")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, and server and client certificates and keys signed by it."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    directory = tmp_path_factory.mktemp("tls")
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    for name in ("ca", "server", "client"):
        key = ca_key if name == "ca" else ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(ca_name if name == "ca" else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / f"{name}.key").write_bytes(private)
    return directory


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    """Runners of the steps that tests make graphs of."""
    with run_steps(tmp_path_factory.mktemp("steps")) as steps:
        yield steps


@pytest.fixture
def steps(members: Steps) -> Iterator[Steps]:
    """The same, doing as they do by default."""
    members.tell()
    yield members
    members.tell()
