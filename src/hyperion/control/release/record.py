"""What control keeps of an endpoint's release between its lives: the policy's state, and which replicas that means.

One JSON text per endpoint in the store: the fields of `ReleaseState`, and under "control" those of `Kept`, so that
whoever only wants the state reads it as such.
"""

from typing import Any

import msgspec
from msgspec import Struct

from hyperion.policy.release.state import ReleaseState


class Runtime(Struct, frozen=True):
    """One version of an endpoint as it is to run: where the registry has it, and the generation of its replicas, which
    grows when they have to be others (`options_key`)."""

    model: str
    version: str
    digest: str
    generation: int = 1
    options_key: str = ""


class Kept(Struct, frozen=True):
    """`target` is what the endpoint's resource named when this release began: a new release begins when it names
    another, and only then, so that neither an undo nor a halt is undone. `runtimes` are by the version's label."""

    target: str = ""
    runtimes: dict[str, Runtime] = {}


class Record(Struct, frozen=True):
    """Both, and the revision of the row in the store (0: none yet)."""

    state: ReleaseState
    kept: Kept = Kept()
    revision: int = 0


def encode_record(record: Record) -> bytes:
    """Return what the store keeps."""
    body: dict[str, Any] = msgspec.to_builtins(record.state)
    return msgspec.json.encode({**body, "control": msgspec.to_builtins(record.kept)})


def decode_record(body: bytes, revision: int) -> Record:
    """Return the record. Raises `msgspec.DecodeError` for a damaged one."""
    part = msgspec.json.decode(body, type=_Control)
    return Record(msgspec.json.decode(body, type=ReleaseState), part.control, revision)


class _Control(Struct, frozen=True):
    control: Kept = Kept()
