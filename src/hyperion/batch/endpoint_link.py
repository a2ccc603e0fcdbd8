"""A served endpoint as the place that computes: V2 over HTTP with binary tensors, at the lowest priority, so that
nobody who waits for an answer waits for a table. One link per lane, each with a connection of its own.
"""

import http.client
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np

from hyperion.batch.columns import InputPlan
from hyperion.batch.link import Answer, Array, Batch
from hyperion.schema.call import Tensor
from hyperion.schema.errors import InvalidConfig, UnknownModel, UpstreamFailed
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.upstream import decode_answer, encode_infer
from hyperion.wire.tensor import DATATYPES, encode_elements, to_numpy

PRIORITY: Final = "9"
TIMEOUT_S: Final = 300.0
PATIENCE_S: Final = 120.0  # how long an endpoint may be busy or away before the run stops
WAIT_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_BUSY: Final = frozenset((429, 502, 503, 504))
_DIGEST: Final = "x-hyperion-model-digest"
_SERVED_BY: Final = "x-hyperion-served-by"
_FALLBACK: Final = "fallback:"


class EndpointLink:
    """`url` is the platform's, `key` an API key or ""."""

    def __init__(self, url: str, endpoint: str, key: str = "") -> None:
        """Raises UnknownModel, UpstreamFailed."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidConfig(f"--url {url}: expected a URL that starts with http:// or https://")
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = make(parts.hostname, parts.port, timeout=TIMEOUT_S)
        self._path = f"{parts.path.rstrip('/')}/v2/models/{quote(endpoint, safe='')}"
        self._endpoint, self._url = endpoint, url
        self._headers = {"x-hyperion-priority": PRIORITY} | ({"authorization": f"Bearer {key}"} if key else {})
        self._limits = WireLimits()
        self.digests: set[str] = set()
        self.signature = self._read_signature()

    def score(self, batches: Iterable[Batch], plans: Sequence[InputPlan]) -> Iterator[Answer]:
        """One request per batch, or per row where it is `single`."""
        for batch in batches:
            arrays = [_read_array(batch, plan) for plan in plans]
            if batch.single:
                yield self._ask_each(batch, arrays, plans)
            else:
                yield self._ask(batch, arrays, plans)

    def revive(self) -> None:
        """The next request connects again."""
        self._connection.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask_each(self, batch: Batch, arrays: Sequence[Array], plans: Sequence[InputPlan]) -> Answer:
        found: list[dict[str, Array]] = []
        failures: dict[int, str] = {}
        for row in range(batch.last - batch.first):
            answer = self._ask(batch, [array[row : row + 1] for array in arrays], plans)
            if answer.failures:
                failures[row] = answer.failures[0]
            else:
                found.append(answer.outputs)
        names = found[0] if found else {}
        return Answer(batch, {name: np.concatenate([one[name] for one in found]) for name in names}, failures)

    def _ask(self, batch: Batch, arrays: Sequence[Array], plans: Sequence[InputPlan]) -> Answer:
        """One request, again and again while the endpoint is busy. Raises UpstreamFailed."""
        tensors = [_make_tensor(plan, array) for plan, array in zip(plans, arrays, strict=True)]
        buffers, head = encode_infer(tensors, (), {}, "", True)
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(head)}
        status, fields, body = self._call("POST", f"{self._path}/infer", b"".join(buffers), headers)
        if status == 200:
            self.digests.add(fields.get(_DIGEST) or "")
            if _is_stand_in(fields):
                who = fields.get(_SERVED_BY)
                raise UpstreamFailed(f'endpoint "{self._endpoint}" gives the answers of its {who} only, not its own')
            length = fields.get("inference-header-content-length")
            try:
                outputs = decode_answer(body, None if length is None else length.encode(), self._limits)
            except UpstreamFailed as error:
                raise UpstreamFailed(f'endpoint "{self._endpoint}": its answer cannot be used: {error}') from None
            return Answer(batch, {tensor.name: to_numpy(tensor).copy() for tensor in outputs}, {})
        if status in (422, 500):
            return Answer(batch, {}, {0: _read_error(body)})
        raise UpstreamFailed(f'endpoint "{self._endpoint}": {status}: {_read_error(body)}')

    def _call(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], *, known: bool = True
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Waits for an endpoint that is busy, and for one that is away where it is `known` to have been there."""
        ends = time.monotonic() + PATIENCE_S
        attempt = 0
        while True:
            wait_s = WAIT_S[min(attempt, len(WAIT_S) - 1)]
            try:
                self._connection.request(method, path, body, {**self._headers, **headers})
                answer = self._connection.getresponse()
                data = answer.read()
                away = answer.status in _BUSY or _is_stand_in(answer.headers)
                if not away or time.monotonic() > ends:
                    return answer.status, answer.headers, data
                told = answer.headers.get("retry-after") or ""
                wait_s = max(wait_s, min(30.0, float(told))) if told.isdigit() else wait_s
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if not known or time.monotonic() > ends:
                    raise UpstreamFailed(
                        f'endpoint "{self._endpoint}" cannot be reached at {self._url}: {error}; see --url'
                    ) from error
            time.sleep(wait_s)
            attempt += 1

    def _read_signature(self) -> Signature:
        status, _, body = self._call("GET", self._path, None, {}, known=False)
        if status == 404:
            raise UnknownModel(f'no endpoint "{self._endpoint}" is served there')
        if status != 200:
            raise UpstreamFailed(f'endpoint "{self._endpoint}": {status}: {_read_error(body)}')
        metadata = msgspec.json.decode(body, type=_Metadata)
        return Signature(metadata.inputs, metadata.outputs)


def _is_stand_in(fields: http.client.HTTPMessage) -> bool:
    """Whether a fallback answered: good enough for a caller who waits, and nothing to be kept in a table."""
    return (fields.get(_SERVED_BY) or "").startswith(_FALLBACK)


class _Metadata(msgspec.Struct):
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def _read_array(batch: Batch, plan: InputPlan) -> Array:
    if plan.datatype == "BYTES":
        return batch.take(plan)
    target = np.empty((batch.last - batch.first, *plan.tail), DATATYPES[plan.datatype].dtype)
    batch.fill(plan, target)
    return target


def _make_tensor(plan: InputPlan, array: Array) -> Tensor:
    data = encode_elements(array.ravel().tolist()) if plan.datatype == "BYTES" else array.tobytes()
    return Tensor(plan.name, plan.datatype, (len(array), *plan.tail), data)


def _read_error(body: bytes) -> str:
    try:
        return " ".join(str(msgspec.json.decode(body)["error"]).split())[:300]
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
