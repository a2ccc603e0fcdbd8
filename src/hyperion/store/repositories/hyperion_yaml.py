"""Read `hyperion.yaml`, the options that lie beside a model.

Called by `discover` for every kind of model directory. What only the operator may decide (trust in executable formats,
the variables that decide which code a process loads) is refused here: the file came from whoever made the model.
"""

import re
from pathlib import Path
from typing import Any

from hyperion.schema.errors import HyperionError, InvalidConfig
from hyperion.schema.model import ModelOptions
from hyperion.store.reading import suggest
from hyperion.store.repositories.options import Layers
from hyperion.store.yaml_text import read_yaml_mapping

FILE_NAME = "hyperion.yaml"
LIMIT_BYTES = 64 * 1024
_OPERATORS = frozenset({"trust_pickle"})
_KNOWN = ("name", *(field for field in ModelOptions.__struct_fields__ if field not in _OPERATORS))
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# These choose which code the runner's process executes, so a data file beside a model must not set them.
_CODE_VARIABLES = re.compile(
    r"(LD_|DYLD_|PYTHON|HYPERION_|GCONV_|GLIBC_|OPENSSL_|BASH_).*|PATH|IFS|ENV|HOME", re.IGNORECASE
)


def read_hyperion_yaml(directory: Path, layers: Layers) -> tuple[str, Layers]:
    """The name that `hyperion.yaml` gives ("" when none), and the options with those of the file on top.

    A directory without the file changes nothing. InvalidConfig names the key, its line and the nearest valid key.
    """
    path = directory / FILE_NAME
    if not path.exists() and not path.is_symlink():
        return "", layers
    given, lines = read_yaml_mapping(path, LIMIT_BYTES, InvalidConfig)
    for key, line in lines.items():
        if key in _OPERATORS:
            raise InvalidConfig(
                f"{FILE_NAME} line {line}: {key} cannot be granted by a file that came with the model; "
                "use --trust-pickle when you start the server"
            )
        if key not in _KNOWN:
            raise InvalidConfig(
                f'{FILE_NAME} line {line}: unknown key "{key[:80]}"{suggest(key, _KNOWN)} (known: {", ".join(_KNOWN)})'
            )
    name = _take_name(given, lines)
    for key in ("env", "labels"):
        if key in given:
            given[key] = _texts(given[key], key, lines[key])
    if "env" in given:
        check_variables(given["env"], f"{FILE_NAME} line {lines['env']}")
    # One by one, so that the message can name the line; `buckets` last, because it is checked against max_batch_size.
    for key in sorted(given, key=lambda field: field == "buckets"):
        layers = layers.put({key: given[key]}, f"{FILE_NAME} line {lines[key]}")
    return name, layers


def _take_name(given: dict[str, Any], lines: dict[str, int]) -> str:
    name = given.pop("name", "")
    if not isinstance(name, str):
        raise InvalidConfig(f"{FILE_NAME} line {lines['name']}: name: expected text, got {type(name).__name__}")
    return name


def _texts(value: Any, key: str, line: int) -> dict[str, str]:
    """A mapping of text to text. Numbers and truth values become text as YAML wrote them in the common cases."""
    if not isinstance(value, dict):
        raise InvalidConfig(f"{FILE_NAME} line {line}: {key}: expected a mapping of names to texts")
    texts: dict[str, str] = {}
    for name, text in value.items():
        if not isinstance(name, str) or isinstance(text, bool) or not isinstance(text, str | int | float):
            raise InvalidConfig(
                f'{FILE_NAME} line {line}: {key}: expected texts; put quotes around the value of "{name}"'
            )
        texts[name] = str(text)
    return texts


def check_variables(env: dict[str, str], source: str, error: type[HyperionError] = InvalidConfig) -> None:
    """Raises `error` for what is no environment variable, or one that chooses which code the runner loads."""
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise error(f"{source}: env: {name[:80]!r} is not an environment variable's name")
        if _CODE_VARIABLES.fullmatch(name):
            raise error(
                f"{source}: env: {name} decides which code the runner loads, so a file that came with "
                "the model cannot set it; set it in the environment of `hyperion serve`"
            )
