"""YAML from strangers: plain documents, bounded in size, depth and expansion, with the line of every key.

Called by the readers of `hyperion.yaml`, `MLmodel` and resources. Never constructs anything but dicts, lists and
scalars.
"""

from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from hyperion.schema.errors import HyperionError, ModelRefused
from hyperion.store.reading import read_text

MAX_VALUES = 100_000  # after aliases are expanded: ten lines of aliases can otherwise mean a billion values
MAX_DEPTH = 32
MAX_DOCUMENTS = 1_000
Key = str | int
# What PyYAML lets escape for wrong explicit tags: `!!bool maybe` is a KeyError, `!!timestamp x` an AttributeError.
_UNREADABLE = (yaml.YAMLError, ValueError, OverflowError, LookupError, AttributeError, TypeError)


class Document(Struct, frozen=True):
    """One document: its values, and the line (from 1) of each of its keys and items by the path to it, `()` being the
    document itself. A key's line is where the key is."""

    value: dict[str, Any]
    lines: dict[tuple[Key, ...], int]


def read_yaml_documents(text: str, name: str, error: type[HyperionError] = ModelRefused) -> list[Document]:
    """The documents of a text, without the empty ones. `name` is what messages call it.

    Raises `error` for anything but plain mappings with distinct text keys, at every level.
    """
    documents: list[Document] = []
    try:
        loader = yaml.SafeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is None or node.tag == "tag:yaml.org,2002:null":
                continue
            if len(documents) == MAX_DOCUMENTS:
                raise error(f"{name}:{_line(node)}: more than {MAX_DOCUMENTS} documents")
            if not isinstance(node, yaml.MappingNode):
                raise error(f"{name}:{_line(node)}: expected a mapping of keys to values")
            _measure(node, name, error)
            lines: dict[tuple[str | int, ...], int] = {(): _line(node)}
            _locate(node, (), lines, name, error)
            documents.append(Document(loader.construct_document(node), lines))
    except _UNREADABLE as problem:
        raise error(f"{name}: not valid YAML: {_describe(problem)}") from problem
    except RecursionError as problem:
        raise error(f"{name}: nested deeper than {MAX_DEPTH} levels") from problem
    return documents


def _locate(
    node: yaml.Node, path: tuple[Key, ...], lines: dict[tuple[Key, ...], int], name: str, error: type[HyperionError]
) -> None:
    """Fills `lines` for what is under `node`. The expansion is bounded: `_measure` came before."""
    if isinstance(node, yaml.MappingNode):
        found = _key_lines(node, name, error)
        for key, value in node.value:
            lines[(*path, key.value)] = found[key.value]
            _locate(value, (*path, key.value), lines, name, error)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = _line(item)
            _locate(item, (*path, index), lines, name, error)


def read_yaml_mapping(
    path: Path, limit_bytes: int, error: type[HyperionError] = ModelRefused
) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in a YAML file, and the line (from 1) of each of its top-level keys; an empty file is {}.

    Raises `error` for anything that is not one plain mapping with distinct string keys at the top level.
    """
    text = read_text(path, limit_bytes)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None or node.tag == "tag:yaml.org,2002:null":
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise error(f"{path.name} line {_line(node)}: expected a mapping of keys to values")
        _measure(node, path.name, error)
        lines = _key_lines(node, path.name, error)
        return loader.construct_document(node), lines
    except _UNREADABLE as problem:
        raise error(f"{path.name}: not valid YAML: {_describe(problem)}") from problem
    except RecursionError as problem:
        raise error(f"{path.name}: nested deeper than {MAX_DEPTH} levels") from problem


def _key_lines(node: yaml.MappingNode, name: str, error: type[HyperionError]) -> dict[str, int]:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = _line(key)
        if isinstance(key, yaml.ScalarNode) and key.value == "null":
            key.tag = "tag:yaml.org,2002:str"  # the field `null` of a rule: no key is nothing
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise error(f"{name} line {line}: expected a plain text key")
        if key.value in lines:
            raise error(f'{name} line {line}: "{key.value}" is given twice, first in line {lines[key.value]}')
        lines[key.value] = line
    return lines


def _measure(root: yaml.Node, name: str, error: type[HyperionError]) -> None:
    """Refuses documents that are too deep, that contain themselves, or that aliases blow up."""
    sizes: dict[int, int] = {}

    def size_of(node: yaml.Node, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise error(f"{name} line {_line(node)}: nested deeper than {MAX_DEPTH} levels, or contains itself")
        if isinstance(node, yaml.ScalarNode):
            return 1
        known = sizes.get(id(node))
        if known is not None:
            return known
        children = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        size = 1 + sum(size_of(child, depth + 1) for child in children)
        if size > MAX_VALUES:
            raise error(f"{name} line {_line(node)}: expands to more than {MAX_VALUES} values")
        sizes[id(node)] = size
        return size

    size_of(root, 0)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _describe(problem: Exception) -> str:
    mark = getattr(problem, "problem_mark", None)
    text = getattr(problem, "problem", None) or (str(problem).splitlines() or ["unreadable"])[0]
    return f"{text} (line {mark.line + 1})" if mark is not None else str(text)
