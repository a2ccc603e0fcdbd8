"""Open Inference Protocol V2 over HTTP: metadata of server and models, and the repository extension's bodies."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import orjson
from msgspec import Raw, Struct

from hyperion.schema.call import Buffer
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.snapshot import ModelState
from hyperion.wire.envelope import decode_envelope
from hyperion.wire.limits import WireLimits
from hyperion.wire.parameters import Parameters

EXTENSIONS = (
    "binary_tensor_data",
    "model_repository",
    "generate",
    "parameters",
)


_REQUEST = "a repository request"


class _IndexRequest(Struct):
    ready: bool = False
    repository_name: Raw = Raw()


class _RepositoryRequest(Struct):
    parameters: Parameters | None = None


_decode_index = msgspec.json.Decoder(_IndexRequest).decode
_decode_repository = msgspec.json.Decoder(_RepositoryRequest).decode


def encode_server_metadata(name: str, version: str, extensions: Sequence[str] = EXTENSIONS) -> bytes:
    """The body of `GET /v2`."""
    return orjson.dumps({"name": name, "version": version, "extensions": list(extensions)})


def encode_model_metadata(name: str, versions: Sequence[str], platform: str, signature: Signature) -> bytes:
    """The body of `GET /v2/models/{name}`."""
    return orjson.dumps(
        {
            "name": name,
            "versions": list(versions),
            "platform": platform,
            "inputs": [_spec(spec) for spec in signature.inputs],
            "outputs": [_spec(spec) for spec in signature.outputs],
        }
    )


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def encode_index(states: Iterable[ModelState]) -> bytes:
    """The body of `POST /v2/repository/index`."""
    return orjson.dumps(
        [{"name": one.name, "version": one.version, "state": one.state, "reason": one.reason} for one in states]
    )


def decode_index_request(body: Buffer, limits: WireLimits) -> bool:
    """If only ready models are asked for. An empty body asks for all. Raises MalformedRequest, TooLarge."""
    return decode_envelope(_decode_index, body, limits, _REQUEST).ready if len(body) else False


def decode_repository_parameters(body: Buffer, limits: WireLimits) -> Parameters:
    """The parameters of a load or unload request; an empty body has none. Raises MalformedRequest, TooLarge."""
    return (decode_envelope(_decode_repository, body, limits, _REQUEST).parameters or {}) if len(body) else {}
