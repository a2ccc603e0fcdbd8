"""What a callback does on the wire: TLS is verified, redirects and garbage are failures, private addresses are not
called, and the key of signatures is made once."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyperion.control.jobs.callbacks import Callbacks, post, read_master
from hyperion.schema.errors import UpstreamFailed
from hyperion.schema.job import StoredRequest, Submission
from hyperion.store import jobs
from hyperion.store.database import open_home
from hyperion.store.job_callbacks import Callback
from tests.e2e.callback_receiver import receiving

HEADERS = {"webhook-id": "m1"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost`, with its key, that vouches for itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("callbacks") / "localhost.pem"
    kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*kind))
    return path


def context_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """The URL of a server that says this to its first caller, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            one, _ = listener.accept()
            with one:
                one.recv(1 << 16)
                one.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://localhost:{listener.getsockname()[1]}/"
        thread.join()


async def test_a_callback_over_tls_goes_to_whom_its_certificate_names(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with receiving(context_of(certificate)) as receiver:
        assert await post(f"{receiver.url}/a?b=c", ["localhost"], b"{}", HEADERS) == 200
        seen = receiver.received.get(timeout=60)
        assert (seen.path, seen.body, seen.headers["webhook-id"]) == ("/a?b=c", b"{}", "m1")
        with pytest.raises(ssl.SSLCertVerificationError):
            await post(receiver.url.replace("localhost", "127.0.0.1"), ["127.0.0.1"], b"{}", HEADERS)


async def test_a_certificate_of_nobody_we_know_is_not_trusted(certificate: Path) -> None:
    with receiving(context_of(certificate)) as receiver:
        with pytest.raises(ssl.SSLCertVerificationError):
            await post(receiver.url, ["localhost"], b"{}", HEADERS)
        assert receiver.received.empty()


async def test_a_redirect_is_not_followed() -> None:
    with saying(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n\r\n") as url:
        assert await post(url, ["localhost"], b"{}", HEADERS) == 302


@pytest.mark.parametrize("answer", [b"", b"\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n", b"x" * 100_000])
async def test_what_is_no_http_is_a_failure(answer: bytes) -> None:
    with saying(answer) as url, pytest.raises((UpstreamFailed, ValueError, OSError)):
        await post(url, ["localhost"], b"{}", HEADERS)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "https://localhost:1/", "http://[::1]:1/", "http://2130706433:1/"]
)
async def test_a_private_address_is_not_called_however_it_is_written(url: str) -> None:
    with pytest.raises(UpstreamFailed, match="no public address"):
        await post(url, (), b"{}", HEADERS)


async def test_a_receiver_that_is_slow_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the callbacks that became due with it."""
    monkeypatch.setattr("hyperion.control.jobs.callbacks.TIMEOUT_S", 1000.0)
    database = open_home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent, receiving() as receiver:
        slow = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with database.renewing() as tx:
            request = StoredRequest("POST", "/v2/models/m/infer", (), b"")
            urls = [slow, *[receiver.url] * 50]
            jobs.put_many(tx, [Submission(f"{n:032}", "", "m", request, callback=to) for n, to in enumerate(urls)], 1.0)
            for number in range(len(urls)):
                assert jobs.cancel(tx, f"{number:032}", 2.0 + number)
        callbacks = Callbacks(database, b"k" * 32, ("127.0.0.1", "localhost"), lambda: True, lambda _: None, never)
        task = asyncio.create_task(callbacks.run())
        try:
            ends_s = time.monotonic() + 40.0
            while (told := receiver.received.qsize()) < 50:
                assert time.monotonic() < ends_s, f"{told} were told while one is silent"
                await asyncio.sleep(0.02)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            database.close()


async def never(_callback: Callback, _message_id: str) -> int:
    raise AssertionError("no stream has anything to do with it")


def test_the_key_of_signatures_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    made: list[bytes] = []
    threads = [threading.Thread(target=lambda: made.append(read_master(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert len(made) == 8
    assert len(made[0]) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["callback-key"]
    assert (tmp_path / "callback-key").stat().st_mode & 0o777 == 0o600


async def test_a_name_that_nobody_answers_for_holds_up_no_work_on_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, asked, loop = threading.Event(), asyncio.Event(), asyncio.get_running_loop()

    def look_up(*_arguments: object, **_options: object) -> list[object]:
        loop.call_soon_threadsafe(asked.set)
        answered.wait()
        return []

    with ThreadPoolExecutor(1) as threads:  # as many as are free when many callers name such a host
        loop.set_default_executor(threads)
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        telling = asyncio.create_task(post("https://slow.example/", (), b"{}", HEADERS))
        await asked.wait()
        try:
            async with asyncio.timeout(10.0):
                assert await asyncio.to_thread(lambda: "read") == "read"
        finally:
            answered.set()
        with pytest.raises(UpstreamFailed, match="has no address"):
            await telling
