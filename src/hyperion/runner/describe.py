"""Ask a model what it takes and gives: load it in a process of its own and read its signature.

Called by `cli` when a version is pushed, so that its manifest says inputs, outputs and datatypes. The process is this
module itself; it ends with the answer, and takes the model's memory, threads and crashes with it.
"""

import subprocess
import sys

import msgspec
from msgspec import Struct

from hyperion.schema.errors import MissingExtra, ModelRefused
from hyperion.schema.model import ModelSpec, Signature

TIMEOUT_S = 300
_MARK = b"\x1ehyperion-signature "


class _Answer(Struct, frozen=True):
    signature: Signature | None = None
    error: str = ""
    missing: bool = False


def describe(spec: ModelSpec, timeout_s: float = TIMEOUT_S) -> Signature:
    """The signature of the model that `spec` describes.

    Raises ModelRefused where it cannot be loaded (a pickle without trust is one), crashes or takes too long, and
    MissingExtra where its framework is not installed here.
    """
    command = [sys.executable, "-m", "hyperion.runner.describe"]
    try:
        done = subprocess.run(  # noqa: S603  this interpreter, fixed words
            command, input=msgspec.json.encode(spec), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ModelRefused(f"{spec.name}: loading it took longer than {timeout_s:g} s") from error
    # What the model itself prints comes before.
    _, mark, text = done.stdout.rpartition(_MARK)
    if not mark:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        last = (lines or ["without a word"])[-1][:200]
        raise ModelRefused(f"{spec.name}: the process that loaded it ended with {done.returncode}: {last}")
    answer = msgspec.json.decode(text, type=_Answer)
    if answer.signature is None:
        raise (MissingExtra if answer.missing else ModelRefused)(answer.error)
    return answer.signature


def _main() -> None:
    from hyperion.runner.load import load_model
    from hyperion.runner.threads import limit_threads

    limit_threads(1)
    # The model lies in its author's working directory: nothing is to be written there.
    sys.dont_write_bytecode = True
    try:
        answer = _Answer(load_model(msgspec.json.decode(sys.stdin.buffer.read(), type=ModelSpec)).signature)
    except (ModelRefused, MissingExtra) as error:
        answer = _Answer(error=error.message, missing=isinstance(error, MissingExtra))
    sys.stdout.flush()
    sys.stdout.buffer.write(_MARK + msgspec.json.encode(answer))


if __name__ == "__main__":
    _main()
