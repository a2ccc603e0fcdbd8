"""What control remembers between its lives, beside the desired state: what each source held when it was last looked at.

Kept in the run directory, so that it lives exactly as long as the supervisor does. Without it, a control process that
is restarted would discover every source again, and a file that changed meanwhile would be served in part.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from hyperion.schema.model import ModelSpec
from hyperion.schema.protect import Directory


class Resolved(Struct, frozen=True):
    """One model's source as it was at one generation: its versions, or why there are none."""

    generation: int
    specs: tuple[ModelSpec, ...] = ()
    error: str = ""


class Memory(Struct, frozen=True):
    """All of it, by model name. `models` is replaced, never changed."""

    models: dict[str, Resolved] = {}

    def put(self, name: str, resolved: Resolved) -> "Memory":
        """A copy with this model's entry."""
        return Memory({**self.models, name: resolved})


def read_memory(path: Path) -> Memory | None:
    """Return what was remembered, or None at the first start. Raises `msgspec.DecodeError` for a damaged file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Memory)
    except FileNotFoundError:
        return None


def write_memory(path: Path, memory: Memory) -> None:
    """Replace the file; a crash leaves the old one or the new one."""
    replace_file(path, msgspec.json.encode(memory))


def read_directory(path: Path) -> Directory:
    """Whom gateways knew at last in this home, for the time until the store is open; nobody at the first start, or
    where the file cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Directory)
    except (OSError, msgspec.DecodeError):
        return Directory()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file of this user's own so that a reader sees all of the old or all of the new one."""
    temporary = path.with_name(f"{path.name}.new")
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    os.replace(temporary, path)
