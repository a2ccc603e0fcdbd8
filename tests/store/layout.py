"""Write a directory layout in one call, and say in one line that a path is refused and why."""

import shutil
from pathlib import Path

import pytest

from hyperion.schema.errors import HyperionError, ModelRefused
from hyperion.schema.model import ModelOptions, ModelSpec
from hyperion.store.repositories.discover import discover

DEFAULTS = ModelOptions()
PYTHON_MODEL = "class Model:\n    inputs = {}\n    outputs = {}\n    def predict(self, inputs): return inputs\n"


def lay_out(root: Path, entries: dict[str, str | bytes | Path]) -> Path:
    """Writes `entries` (relative name: text, bytes, or a file to copy) under `root` and returns it."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in entries.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def only(path: Path, options: ModelOptions = DEFAULTS, name: str | None = None) -> ModelSpec:
    """The one spec at `path`."""
    specs = discover(path, options, name=name)
    assert len(specs) == 1, specs
    return specs[0]


def refusal(
    path: Path,
    options: ModelOptions = DEFAULTS,
    error: type[HyperionError] = ModelRefused,
    name: str | None = None,
) -> str:
    """The message with which `path` is refused; it never shows where on this machine the path lies."""
    with pytest.raises(error) as caught:
        discover(path, options, name=name)
    assert type(caught.value) is error
    assert str(path.parent) not in caught.value.message
    return caught.value.message
