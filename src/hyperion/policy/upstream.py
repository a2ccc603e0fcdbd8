"""What control makes of another server's description of a model, and when it looks again. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from hyperion.schema.errors import UpstreamFailed
from hyperion.schema.model import Signature, TensorSpec
from hyperion.schema.protect import DeclaredTensor, Upstream

LOOK_S: Final = 10.0  # how old what is known may be
FIRST_S: Final = 0.5


def choose_tensors(
    kind: str, declared: Sequence[DeclaredTensor], described: Sequence[TensorSpec]
) -> Sequence[TensorSpec]:
    """The inputs or outputs (`kind` says which) of an upstream's model: as the endpoint declares them, or else as the
    server describes them. Raises `UpstreamFailed` where neither says anything.

    >>> choose_tensors("inputs", (DeclaredTensor("x", "FP32", (-1, 4)),), ())
    (TensorSpec(name='x', datatype='FP32', shape=(-1, 4)),)
    """
    if declared:
        return tuple([TensorSpec(one.name, one.datatype, one.shape) for one in declared])
    if not described:
        raise UpstreamFailed(f"its metadata names no {kind}: say them in spec.upstream.{kind}")
    return described


def make_signature(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
    """The signature of an upstream's model. Its first axes count rows where all of them may have any length.

    >>> make_signature([TensorSpec("x", "FP32", (-1, 4))], [TensorSpec("y", "FP32", (-1,))]).batched
    True
    >>> make_signature([TensorSpec("x", "FP32", (-1, 4))], [TensorSpec("y", "FP32", (1,))]).batched
    False
    """
    batched = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
    return Signature(tuple(inputs), tuple(outputs), batched)


def make_digest(upstream: Upstream, signature: Signature, platform: str) -> str:
    """Tells answers of one upstream from those of another: where it is, which model, and what it says of it. What only
    says how it is called (credentials, connections) changes nothing.

    >>> make_digest(Upstream("http://a:1"), Signature((), ()), "onnx")[:14]
    'sha256:8a61247'
    """
    what = (upstream.url, upstream.protocol, upstream.model, upstream.version, signature, platform)
    return f"sha256:{hashlib.sha256(msgspec.json.encode(what)).hexdigest()}"


def pause_s(failures: int) -> float:
    """Seconds until the next look after so many failed ones in a row: soon at first, as a server that is being started
    with this one is there in a moment.

    >>> [pause_s(failures) for failures in (0, 1, 2, 9)]
    [10.0, 0.5, 1.0, 10.0]
    """
    return min(LOOK_S, FIRST_S * 2.0 ** (min(failures, 30) - 1)) if failures > 0 else LOOK_S
