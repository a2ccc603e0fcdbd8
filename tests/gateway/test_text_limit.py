"""How much text may be parsed for one request; what is binary has a limit of its own."""

import gzip
import json

import pytest

from hyperion.schema.snapshot import ServedVersion
from hyperion.wire.limits import DEFAULT_LIMITS
from tests.gateway.serving import infer, on_uvloop, request, serving

MOST = DEFAULT_LIMITS.max_text_bytes
PADDED = infer("a").partition(b"\r\n\r\n")[2]


def padded(size: int, path: str, **headers: str) -> bytes:
    """A request whose JSON is filled up with spaces to that size."""
    return request(PADDED + b" " * (size - len(PADDED)), path, **headers)


@pytest.mark.parametrize("path", ["/v2/models/obedient/infer", "/v1/models/obedient:predict", "/invocations"])
@on_uvloop
async def test_text_over_the_limit_is_refused_and_told_of_binary_tensors(obedient: ServedVersion, path: str) -> None:
    async with serving(("obedient", obedient), max_body_bytes=4 * MOST) as gateway:
        answer = await gateway.ask(padded(MOST + 1, path))
        assert answer.status == 413
        assert "binary extension" in answer.error
        assert (await gateway.ask(infer("b"))).said == ["b"]


@on_uvloop
async def test_text_at_the_limit_is_taken(obedient: ServedVersion) -> None:
    async with serving(("obedient", obedient), max_body_bytes=4 * MOST) as gateway:
        assert (await gateway.ask(padded(MOST, "/v2/models/obedient/infer"))).said == ["a"]


@on_uvloop
async def test_text_is_inflated_up_to_its_own_limit_and_what_is_binary_up_to_that_of_bodies(
    obedient: ServedVersion,
) -> None:
    text = b"x" * (MOST + 1)
    data = len(text).to_bytes(4, "little") + text
    one = {"name": "command", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [one]}).encode()
    path = "/v2/models/obedient/infer"
    async with serving(("obedient", obedient), max_body_bytes=4 * MOST) as gateway:
        bomb = gzip.compress(bytes(3 * MOST))
        answer = await gateway.ask(request(bomb, path, content_encoding="gzip"))
        assert (answer.status, f"over the limit of {MOST} bytes" in answer.error) == (413, True)
        body = gzip.compress(head + data)
        length = len(head)
        binary = request(body, path, content_encoding="gzip", inference_header_content_length=length)
        assert (await gateway.ask(binary)).status == 200


@on_uvloop
async def test_of_a_binary_request_only_the_json_counts(obedient: ServedVersion) -> None:
    text = b"x" * (MOST + 1)
    data = len(text).to_bytes(4, "little") + text
    one = {"name": "command", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [one]}).encode()
    path = "/v2/models/obedient/infer"
    async with serving(("obedient", obedient), max_body_bytes=4 * MOST) as gateway:
        answer = await gateway.ask(request(head + data, path, inference_header_content_length=str(len(head))))
        assert answer.status == 200, answer.error
        answer = await gateway.ask(padded(MOST + 2, path, inference_header_content_length=str(MOST + 1)))
        assert answer.status == 413
