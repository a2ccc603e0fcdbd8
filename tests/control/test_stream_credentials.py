"""Credentials reach the broker as they are meant, over TLS only one that is trusted, and no log, though it repeats
them."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from hyperion.control.jobs.stream_source import read_source
from hyperion.control.jobs.streams import Streams
from hyperion.store.database import open_home
from tests.control.sasl_listener import Listener, listening
from tests.control.test_callbacks import certificate, context_of
from tests.services import needs_module

__all__ = ["certificate"]
PASSWORD = "p/w,s3cr3t"
WRITTEN = "p%2Fw%2Cs3cr3t"


async def follow(home: Path, url: str, done: Callable[[list[str]], bool]) -> list[str]:
    """What is logged of the stream until it is `done`."""
    needs_module("confluent_kafka", extra="kafka")
    log: list[str] = []
    database = open_home(home)
    task = asyncio.create_task(Streams(database, [read_source(url)], lambda _: 0.0, log.append).run())
    try:
        ends_s = time.monotonic() + 40
        while not done(log):
            assert time.monotonic() < ends_s, log
            await asyncio.sleep(0.02)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        database.close()
    return log


def refused_by(listener: Listener) -> Callable[[list[str]], bool]:
    return lambda log: bool(listener.heard) and any("_AUTHENTICATION" in line for line in log)


async def test_a_password_arrives_and_is_not_logged_though_the_broker_repeats_it(tmp_path: Path) -> None:
    with listening() as listener:
        url = f"kafka://ada:{WRITTEN}@{listener.address}/t/g?endpoint=e"
        log = await follow(tmp_path, url, refused_by(listener))
    assert listener.heard[0] == ("PLAIN", f"\0ada\0{PASSWORD}".encode())
    assert any("no:  ada ***" in line for line in log), log
    assert "s3cr3t" not in "".join(log)


async def test_with_scram_the_password_is_not_even_sent(tmp_path: Path) -> None:
    with listening() as listener:
        url = f"kafka://ada:{WRITTEN}@{listener.address}/t/g?endpoint=e&sasl=scram-sha-512"
        await follow(tmp_path, url, refused_by(listener))
    mechanism, shown = listener.heard[0]
    assert (mechanism, b"n=ada" in shown, b"s3cr3t" in shown) == ("SCRAM-SHA-512", True, False)


async def test_over_tls_credentials_go_only_to_a_broker_that_is_vouched_for(tmp_path: Path, certificate: Path) -> None:
    context: ssl.SSLContext = context_of(certificate)
    with listening(context) as listener:
        url = f"kafka+tls://ada:{WRITTEN}@{listener.address}/t/g?endpoint=e"
        log = await follow(tmp_path, url, lambda log: any("certificate" in line for line in log))
        assert listener.heard == []
        assert "s3cr3t" not in "".join(log)
        await follow(tmp_path, f"{url}&ca={certificate}", refused_by(listener))
        assert listener.heard[0] == ("PLAIN", f"\0ada\0{PASSWORD}".encode())
    # The certificate is for localhost alone.
    with listening(context) as listener:
        url = f"kafka+tls://ada:{WRITTEN}@{listener.address.replace('localhost', '127.0.0.1')}/t/g?endpoint=e"
        await follow(tmp_path, f"{url}&ca={certificate}", lambda log: any("_SSL" in line for line in log))
        assert listener.heard == []
