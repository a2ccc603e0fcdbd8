"""Look at a `model.py` without running it: does it define what a Python model must?

Called by `discover`. The file is parsed, never imported.
"""

import ast
from pathlib import Path

from hyperion.schema.errors import ModelRefused
from hyperion.store.reading import MIB, read_text


def check_python_model(path: Path) -> None:
    """Raises ModelRefused unless `path` binds the name `Model` at its top level and is valid Python."""
    text = read_text(path, MIB)
    try:
        names = _bound_names(ast.parse(text))
    except SyntaxError as error:
        raise ModelRefused(f"{path.name} line {error.lineno or 1}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ModelRefused(f"{path.name}: not valid Python: {str(error)[:200]}") from error
    if "Model" in names or "*" in names:
        return
    if "TritonPythonModel" in names:
        raise ModelRefused(
            f"{path.name}: a TritonPythonModel talks to Triton's own Python API (pb_utils), which Hyperion does not "
            "have; write its computation as a class Model with predict(inputs) that takes and returns numpy arrays"
        )
    raise ModelRefused(
        f"{path.name}: no class Model in it; expected `class Model:` with `inputs`, `outputs` and "
        "`predict(self, inputs)`"
    )


def _bound_names(tree: ast.Module) -> set[str]:
    """Names that the top level binds, also inside `if` and `try`; `*` for a star import."""
    names: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        statement = pending.pop()
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name for alias in aliases)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.If(body=body, orelse=orelse):
                pending += body + orelse
            case ast.Try(body=body, orelse=orelse, finalbody=final, handlers=handlers):
                pending += body + orelse + final + [inner for handler in handlers for inner in handler.body]
            case _:
                pass
    return names
