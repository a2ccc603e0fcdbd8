"""Where an upstream is and how it is asked: its URL, credentials and TLS, and the look at its health that goes on as
long as its pool is there. Made by `gateway/upstream/pool`.

A look asks for the model's readiness. The first one that succeeds opens all links; one that fails closes them, so that
calls fail at once instead of one by one at their deadlines. That a server fails while it says that it is ready is the
breaker's to notice.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, urlsplit

from hyperion.fleet.credentials import read_credentials
from hyperion.gateway.upstream.link import Carrier, UpstreamLink, UpstreamOutcomes
from hyperion.schema.errors import HyperionError, InvalidConfig, UpstreamFailed
from hyperion.schema.protect import Upstream
from hyperion.schema.snapshot import ServedVersion
from hyperion.telemetry.logs import EventLog
from hyperion.wire.frame_headers import Hello
from hyperion.wire.header_lines import MAX_BYTES, parse_header_lines
from hyperion.wire.limits import WireLimits

if TYPE_CHECKING:
    from hyperion.gateway.replica import Link

LOOK_S: Final = 5.0
LOOK_TIMEOUT_S: Final = 3.0
RETRY_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)  # while it does not answer
DEFAULT_PORTS: Final = {"http": 80, "https": 443, "grpc": 8081, "grpcs": 443}
SECURE: Final = frozenset(("https", "grpcs"))
SOURCE: Final = "its headers_from"  # in reasons, which callers see: they never name the file


class Site:
    """An upstream's address, read from its record. `headers` are the credentials, as the file last had them."""

    def __init__(self, endpoint: str, upstream: Upstream, credential_dirs: Sequence[str] = ()) -> None:
        """`credential_dirs` are where files of credentials may lie. Raises InvalidConfig for an address or a CA file
        that cannot be used."""
        url = upstream.url if "://" in upstream.url else f"grpc://{upstream.url}"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidConfig(f"its URL cannot be read: {error}") from None
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise InvalidConfig(f"its URL names no host after one of {', '.join(DEFAULT_PORTS)}://")
        self.host = parts.hostname
        self.port = port or DEFAULT_PORTS[parts.scheme]
        self.authority = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self.path = quote(parts.path.rstrip("/"), safe="/%")
        self.model = upstream.model or endpoint
        self.version = upstream.version
        self.headers: Mapping[bytes, bytes] = {}
        self.ca_file = upstream.ca_file
        self.tls: ssl.SSLContext | None = None
        if parts.scheme in SECURE:
            try:
                self.tls = ssl.create_default_context(cafile=upstream.ca_file or None)
            except (OSError, ssl.SSLError) as error:
                raise InvalidConfig(f"its ca_file cannot be used: {error.__class__.__name__}") from None
        self._headers_from = upstream.headers_from
        self._credential_dirs = credential_dirs
        self._read_at = 0

    def read_headers(self) -> None:
        """Reads the file of credentials again, if it has changed. Blocks. Raises InvalidConfig, and
        GateRefused for one that lies elsewhere."""
        if not self._headers_from:
            return
        try:
            changed_ns = os.stat(self._headers_from).st_mtime_ns
        except OSError as error:
            raise InvalidConfig(f"{SOURCE}: cannot be read: {error.strerror}") from None
        if changed_ns == self._read_at:
            return
        text = read_credentials(self._headers_from, self._credential_dirs, SOURCE, MAX_BYTES)
        self.headers = parse_header_lines(text, SOURCE)
        self._read_at = changed_ns


class Service(Protocol):
    """One protocol's way to an upstream."""

    def make_carrier(self) -> Carrier: ...
    async def look(self) -> str:
        """Why the upstream cannot be called, "" if it can."""
        ...

    async def close(self) -> None: ...


def make_service(site: Site, upstream: Upstream, limits: WireLimits) -> Service:
    """The way that the record asks for. Raises MissingExtra."""
    if upstream.protocol == "oip-grpc":
        from hyperion.gateway.upstream.grpc import GrpcService

        return GrpcService(site, limits)
    if upstream.protocol == "oip-http":
        from hyperion.gateway.upstream.http import HttpService

        return HttpService(site, limits)
    raise InvalidConfig(f'its protocol "{upstream.protocol}" is not done by this version; use oip-http or oip-grpc')


async def keep_upstream(
    endpoint: str,
    served: ServedVersion,
    max_bytes: int,
    pool: UpstreamOutcomes,
    links: "dict[str, Link]",
    log: EventLog,
    credential_dirs: Sequence[str] = (),
) -> None:
    """Holds the links of an upstream in `links` and says when they can be used, until cancelled."""
    upstream = served.upstream
    assert upstream is not None
    limits = WireLimits(max_body_bytes=max_bytes, max_text_bytes=max_bytes)
    try:
        site = Site(endpoint, upstream, credential_dirs)
        service = make_service(site, upstream, limits)
    except HyperionError as error:
        log.write("error", "upstream unusable", endpoint=endpoint, reason=error.message)
        pool.unreachable("cannot be called as it is configured; the reason is in the log")
        return
    names = [replica.name for replica in served.replicas] or [f"{endpoint}@upstream.0"]
    made = [UpstreamLink(name, served.signature, pool, service.make_carrier()) for name in names]
    for link in made:
        pool.mind(link)
        links[link.name] = link
    hello = Hello(
        1,
        names[0],
        endpoint,
        served.version,
        served.digest,
        "",
        served.signature,
        served.options.max_batch_size,
        {},
        0,
        0,
    )
    attempt = 0
    try:
        while True:
            reason = await _look(site, service)
            answers = not reason
            pool.unreachable(reason)
            if answers != made[0].ready:
                for link in made:
                    link.ready = answers
                if answers:
                    pool.link_ready(hello)
            attempt = 0 if answers else attempt + 1
            await asyncio.sleep(LOOK_S if answers else RETRY_S[min(attempt, len(RETRY_S)) - 1])
    finally:
        with contextlib.suppress(Exception):  # the loop may be closing
            await service.close()


async def _look(site: Site, service: Service) -> str:
    try:
        await asyncio.to_thread(site.read_headers)
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await service.look()
    except TimeoutError:
        return f"did not say within {LOOK_TIMEOUT_S:.0f} s whether it is ready"
    except UpstreamFailed as error:
        return error.message
    except HyperionError as error:
        return f"cannot be called: {error.message}"
    except OSError as error:
        return f"cannot be reached ({error.strerror or error.__class__.__name__})"
    except Exception as error:  # a bug, ours or a library's, must not end the looks that follow
        return f"cannot be asked ({error.__class__.__name__})"
