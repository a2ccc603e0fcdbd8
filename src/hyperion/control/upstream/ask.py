"""Ask another server what it says of a model: its V2 metadata over HTTP. Called by `upstreams`.

What it answers is not trusted: time, size and form are bounded, redirects are not followed, and nothing is taken over
but names, datatypes and shapes.
"""

import asyncio
import os
import ssl
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from hyperion.control.upstream.grpc import ask_grpc
from hyperion.fleet.credentials import read_credentials
from hyperion.schema.errors import InvalidConfig, MissingExtra, UpstreamFailed
from hyperion.schema.protect import Upstream
from hyperion.wire.header_lines import MAX_BYTES, parse_header_lines
from hyperion.wire.http1_client import AnswerError, AnswerReader, encode_request_head
from hyperion.wire.oip.model_metadata import ModelMetadata, decode_model_metadata

ASK_S: Final = 5.0  # for the whole of it, from the name's look-up to the last byte
SOURCE: Final = "its headers_from"  # in reasons, which callers may see: they never name a file
ANSWER_BYTES: Final = 1 << 20
_READ_BYTES: Final = 64 << 10
_PORTS: Final = {"http": 80, "https": 443}


async def ask_upstream(upstream: Upstream, credential_dirs: Sequence[str] = ()) -> ModelMetadata:
    """What the server says of the model; its credentials lie below one of `credential_dirs`. Raises `UpstreamFailed`,
    `GateRefused`, `InvalidConfig` or `MissingExtra` with the reason, after `ASK_S` at the latest."""
    parts = urlsplit(upstream.url)
    if upstream.protocol == "oip-grpc" and find_spec("grpc") is None:  # this side does without, gateways do not
        raise MissingExtra("calls over gRPC need grpcio: pip install 'hyperion-inference[grpc]'")
    try:
        async with asyncio.timeout(ASK_S):
            headers = await asyncio.to_thread(read_headers, upstream.headers_from, credential_dirs)
            context = await asyncio.to_thread(_make_context, upstream) if parts.scheme == "https" else None
            port = parts.port or _PORTS[parts.scheme]
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
            try:
                if upstream.protocol == "oip-grpc":
                    return await ask_grpc(upstream, headers, reader, writer)
                return await _ask_http(upstream, parts, headers, reader, writer)
            finally:
                writer.close()
    except TimeoutError:
        raise UpstreamFailed(f"{parts.netloc} did not answer within {ASK_S:g} s") from None
    except AnswerError as error:
        raise UpstreamFailed(f"{parts.netloc}: {error}") from error
    except OSError as error:
        raise UpstreamFailed(f"{parts.netloc} cannot be reached: {_name(error)}") from error


def _name(error: OSError) -> str:
    """In the system's words; asyncio has its own, with the address in them."""
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)


def read_headers(path: str, dirs: Sequence[str]) -> dict[bytes, bytes]:
    """The headers in a file below one of `dirs` that only its owner can read; none without a path. Raises
    `InvalidConfig`, and `GateRefused` for a file elsewhere."""
    return parse_header_lines(read_credentials(path, dirs, SOURCE, MAX_BYTES), SOURCE) if path else {}


def _make_context(upstream: Upstream) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=upstream.ca_file or None)
    except OSError as error:
        raise InvalidConfig(f"its ca_file: holds no certificates: {error.strerror or error}") from error
    if upstream.protocol == "oip-grpc":
        context.set_alpn_protocols(["h2"])
    return context


async def _ask_http(
    upstream: Upstream,
    parts: SplitResult,
    headers: dict[bytes, bytes],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> ModelMetadata:
    version = f"/versions/{quote(upstream.version, safe='')}" if upstream.version else ""
    target = f"{parts.path.rstrip('/')}/v2/models/{quote(upstream.model, safe='')}{version}"
    fields = {b"accept": b"application/json", b"user-agent": b"hyperion", **headers}
    writer.write(encode_request_head(b"GET", target.encode(), parts.netloc.encode(), fields, None))
    answer = AnswerReader(ANSWER_BYTES)
    while not answer.complete:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise AnswerError("it closed the connection before its answer was there")
        answer.feed(data)
    if answer.status != 200:
        raise UpstreamFailed(f"{parts.netloc}: GET {target} answered {answer.status}, expected 200")
    return decode_model_metadata(answer.body)
