"""Tell those who asked for it that their job has ended: a signed POST (Standard Webhooks) to a URL of theirs.

Run by `control/serve`. Whoever may name a URL could make this process call what only it can reach. So a name is
resolved once, all its addresses are judged (`policy/callbacks`), and the connection goes to an address that was; no
redirect is followed, and of the answer only the status is read.
"""

import asyncio
import contextlib
import json
import os
import random
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from hyperion.control.errands import run_beside
from hyperion.policy.callbacks import ATTEMPTS, LEASE_S, derive_secret, refusal, sign, wait_s
from hyperion.schema.errors import HyperionError, UpstreamFailed
from hyperion.store import job_callbacks
from hyperion.store.database import Database
from hyperion.store.job_callbacks import Callback

LOOK_S: Final = 0.5
TOGETHER: Final = 32
TIMEOUT_S: Final = 15.0
KEY_FILE: Final = "callback-key"
GONE: Final = 410
MAX_STATUS_LINE: Final = 1 << 12
STREAMS: Final = ("nats://", "kafka://")
USER_AGENT: Final = "hyperion-callback"
Outcome = Literal["pending", "delivered", "failed"]
Publish = Callable[[Callback, str], Awaitable[int]]


class Callbacks:
    """`allowed` are hosts and networks that may be called though they are not public; `master` is what the tenants'
    secrets are derived from; `is_due` says whether it is worth looking. `publish(callback, message id)` is for jobs
    that came from a stream: callers cannot name such a URL."""

    def __init__(
        self,
        database: Database,
        master: bytes,
        allowed: Sequence[str],
        is_due: Callable[[], bool],
        log: Callable[[str], None],
        publish: Publish,
    ) -> None:
        self._publish = publish
        self._database = database
        self._master = master
        self._allowed = tuple(allowed)
        self._is_due = is_due
        self._log = log

    async def run(self) -> None:
        """For ever. A receiver that is slow holds up one place of `TOGETHER`, and nobody else."""
        telling: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    while self._is_due() and (due := await asyncio.to_thread(self._claim, TOGETHER - len(telling))):
                        for callback in due:
                            task = asyncio.create_task(self._tell(callback))
                            telling.add(task)
                            task.add_done_callback(telling.discard)
                        if len(telling) >= TOGETHER:
                            await asyncio.wait(telling, return_when=asyncio.FIRST_COMPLETED)
                except HyperionError as error:
                    self._log(f"callbacks cannot be made now: {error.message}")
                await asyncio.sleep(LOOK_S)
        finally:
            for task in telling:
                task.cancel()

    def _claim(self, most: int) -> list[Callback]:
        with self._database.renewing() as tx:
            return job_callbacks.claim(tx, most, time.time(), LEASE_S)

    async def _tell(self, callback: Callback) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if callback.url.startswith(STREAMS):
                    status = await self._publish(callback, _name(callback))
                else:
                    status = await post(callback.url, self._allowed, *self._write(callback))
            reason = "" if 200 <= status < 300 else f"it answered {status}"
        except HyperionError as error:
            status, reason = 0, error.message
        except TimeoutError:
            status, reason = 0, f"no answer within {TIMEOUT_S:.0f} s"
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            status, reason = 0, f"{type(error).__name__}: {error}"
        outcome: Outcome = "pending"
        if not reason:
            outcome = "delivered"
        elif status == GONE or callback.attempt >= ATTEMPTS:
            outcome = "failed"
            self._log(f"job {callback.job}: callback given up after {callback.attempt} tries: {reason}")
        due_at = time.time() + wait_s(callback.attempt, random.random())  # noqa: S311  no secret
        try:
            await asyncio.to_thread(self._settle, callback, outcome, due_at, reason)
        except HyperionError as error:  # it is told again when its lease ends
            self._log(f"job {callback.job}: what became of its callback cannot be kept now: {error.message}")

    def _settle(self, callback: Callback, outcome: Outcome, due_at: float, reason: str) -> None:
        with self._database.renewing() as tx:
            job_callbacks.settle(tx, callback, outcome, due_at, reason)

    def _write(self, callback: Callback) -> tuple[bytes, dict[str, str]]:
        """The message and its headers. What was asked and answered is not in it: its owner fetches that."""
        data = {
            "id": callback.job,
            "endpoint": callback.endpoint,
            "state": callback.state,
            "status": callback.status or None,
            "finished_at": callback.finished_at,
            "location": f"/v2/jobs/{callback.job}",
        }
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(callback.finished_at))
        body = json.dumps({"type": f"job.{callback.state}", "timestamp": stamp, "data": data}).encode()
        message, now_s = _name(callback), int(time.time())
        signature = sign(derive_secret(self._master, callback.tenant), message, now_s, body)
        return body, {"webhook-id": message, "webhook-timestamp": str(now_s), "webhook-signature": signature}


def _name(callback: Callback) -> str:
    """The message's, the same each time that it is told."""
    return f"job_{callback.job}_{callback.finished_at:.0f}"


async def post(url: str, allowed: Sequence[str], body: bytes, headers: dict[str, str]) -> int:
    """POST `body` and return the answer's status. Raises UpstreamFailed where the URL may not be called, OSError where
    it cannot be."""
    parts = urlsplit(url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    # Whoever names a host may see to it that its name is looked up for long.
    found = await run_beside(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    addresses = [str(one[4][0]) for one in found]
    reason = refusal(parts.scheme, host, addresses, allowed)
    if reason:
        raise UpstreamFailed(reason)
    reader, writer = await _connect(addresses, port, host if tls else None)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {target} HTTP/1.1", f"host: {parts.netloc}", f"user-agent: {USER_AGENT}"]
        lines += ["content-type: application/json", f"content-length: {len(body)}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)
        await writer.drain()
        first = await reader.readline()
        version, _, rest = first[:MAX_STATUS_LINE].partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise UpstreamFailed("what it answered is not HTTP")
        return int(rest[:3])
    finally:
        writer.close()


async def _connect(
    addresses: Sequence[str], port: int, tls_name: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first of these addresses that takes one. Raises the last OSError."""
    context = ssl.create_default_context() if tls_name is not None else None
    *others, last = dict.fromkeys(addresses)
    for address in others:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(address, port, ssl=context, server_hostname=tls_name)
    return await asyncio.open_connection(last, port, ssl=context, server_hostname=tls_name)


def read_master(home: Path) -> bytes:
    """What the secrets of callbacks are derived from: 32 random bytes in the home, made at first use, mode 0600.
    Control processes that share a database share this file, too."""
    path = home / KEY_FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass  # made below, by whoever is first
    made = path.with_name(f"{KEY_FILE}.{secrets.token_hex(4)}")
    with open(made, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(made, path)
    except FileExistsError:
        pass  # somebody else was faster: theirs counts
    finally:
        made.unlink()
    return path.read_bytes()
