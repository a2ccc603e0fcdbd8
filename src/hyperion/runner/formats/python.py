"""A Python model: a directory with `model.py`, whose class `Model` has typed inputs and outputs and a `predict`.

Called by `runner/load`. The code is the user's: it runs with this process's rights, in this process.
"""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hyperion.runner.model import Arrays
from hyperion.runner.sandbox.hint import explain_denial
from hyperion.runner.signature import (
    ANY,
    count_rows,
    fit_outputs,
    is_batched,
    read_tensors,
    select_outputs,
    settle_signature,
)
from hyperion.schema.errors import ModelRefused, Unsupported
from hyperion.schema.model import ModelSpec, Signature

FILE_NAME = "model.py"
CLASS_NAME = "Model"
# The directory becomes a package of this name, so that `from .tokenizer import …` works in model.py.
PACKAGE = "hyperion_model"


class PythonModel:
    """An instance of the user's class. What it returns is checked: it may return anything."""

    platform = "python"

    def __init__(self, instance: Any, signature: Signature) -> None:
        self.signature = signature
        self.instance = instance
        self._predict = instance.predict

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        answer = self._predict(inputs)
        if not isinstance(answer, dict):
            raise ValueError(
                f"predict must return a dict of arrays by output name, it returned {type(answer).__name__}"
            )
        return fit_outputs(select_outputs(self.signature, outputs), answer, count_rows(self.signature, inputs))

    def stream(self, inputs: Arrays) -> Iterator[Arrays]:
        if not self.signature.streams:
            raise Unsupported("this model has no method stream")
        specs = {spec.name: spec for spec in self.signature.outputs}
        for part in self.instance.stream(inputs):
            if not isinstance(part, dict) or not part.keys() <= specs.keys():
                raise ValueError("stream must yield dicts of arrays by output name")
            yield fit_outputs((specs[name] for name in part), part, ANY)


def load(spec: ModelSpec) -> PythonModel:
    """Imports `model.py` of the directory `spec.path`, makes a `Model` and calls its `load(directory)` if it has one.

    Raises ModelRefused naming the line where the code fails; the traceback goes to stderr, which is the log.
    """
    directory = Path(spec.path)
    path = directory / FILE_NAME
    if not path.is_file():
        raise ModelRefused(f"{spec.name}: there is no {FILE_NAME}; a Python model is a directory with one")
    try:
        module = _import(directory, path)
    except ImportError as error:
        raise _refuse(spec.name, directory, f"cannot be imported (missing package {error.name!r})", error) from error
    except Exception as error:
        raise _refuse(spec.name, directory, "cannot be imported", error) from error
    kind = getattr(module, CLASS_NAME, None)
    if not isinstance(kind, type):
        raise ModelRefused(f"{spec.name}: {FILE_NAME} has no class {CLASS_NAME}")
    signature = settle_signature(spec.name, read_signature(spec.name, kind), spec.signature)
    try:
        instance = kind()
        if hasattr(instance, "load"):
            instance.load(directory)
    except Exception as error:
        raise _refuse(spec.name, directory, f"{CLASS_NAME} cannot be loaded", error) from error
    return PythonModel(instance, signature)


def read_signature(model: str, kind: type) -> Signature:
    """The signature that the class declares in `inputs` and `outputs`; ModelRefused says what is wrong with it."""
    if not callable(getattr(kind, "predict", None)):
        raise ModelRefused(f"{model}: class {CLASS_NAME} has no method predict(inputs)")
    where = f"{model}: class {CLASS_NAME}"
    inputs = read_tensors(where, "inputs", getattr(kind, "inputs", None))
    outputs = read_tensors(where, "outputs", getattr(kind, "outputs", None))
    return Signature(inputs, outputs, is_batched(inputs, outputs), callable(getattr(kind, "stream", None)))


def _import(directory: Path, path: Path) -> ModuleType:
    """The module of `path`, as `hyperion_model.model`. What lies beside it can be imported, relatively or by name."""
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]
    package = ModuleType(PACKAGE)
    package.__path__ = [str(directory)]
    sys.modules[PACKAGE] = package
    sys.path.insert(0, str(directory))
    name = f"{PACKAGE}.{path.stem}"
    source = importlib.util.spec_from_file_location(name, path)
    if source is None or source.loader is None:
        raise ImportError(f"{path.name} is not a Python file", name=name)
    module = importlib.util.module_from_spec(source)
    # Registered before it runs, and under its short name, too: a sibling's `import model` must not run it twice.
    sys.modules[name] = sys.modules[path.stem] = module
    source.loader.exec_module(module)
    return module


def _refuse(model: str, directory: Path, what: str, error: Exception) -> ModelRefused:
    """A refusal that names the user's own line nearest to the failure, by file name; the whole traceback is logged."""
    traceback.print_exception(error)
    where = ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({Path(error.filename).name}, line {error.lineno})"
    else:
        root = str(directory)
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
        if lines:
            where = f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})"
    detail = error.msg if isinstance(error, SyntaxError) else str(error).replace(f"{directory}/", "")
    return ModelRefused(
        f"{model}: {FILE_NAME} {what}: {type(error).__name__}: {detail}{where}"[:600] + explain_denial(error)
    )
