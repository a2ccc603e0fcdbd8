"""Resources as people write them (YAML files, directories, standard input) and as programs do (JSON): strictly read.

Called by `cli` for files and by `api` for bodies. An unknown field names the nearest valid one and its line; a field
that this version does not do yet is refused by name, never ignored.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec
import yaml
from msgspec import Struct, inspect

from hyperion.schema.errors import InvalidConfig, InvalidResource
from hyperion.schema.resource import API_VERSION, BatchJob, Endpoint, Issuer, Resource, Tenant
from hyperion.store.checks.access import check_issuer, check_tenant
from hyperion.store.checks.batch import check_batch_job
from hyperion.store.checks.endpoint import check_endpoint
from hyperion.store.checks.rollout import idle_fields
from hyperion.store.reading import list_entries, read_text, suggest
from hyperion.store.yaml_text import Key, read_yaml_documents

LIMIT_BYTES = 1 << 20
KINDS: dict[str, type[Resource]] = {"Endpoint": Endpoint, "Tenant": Tenant, "Issuer": Issuer, "BatchJob": BatchJob}
KINDS_NOT_YET = ("Policy", "Alert")
_SUFFIXES = (".yaml", ".yml", ".json")
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")
FieldPath = tuple[Key, ...]
_FIELDS_NOT_YET: frozenset[FieldPath] = frozenset((("spec", "replicas", "idle_s"),))


class Origin(Struct, frozen=True):
    """Where a resource was written: the name of its file ("" for a body), and the lines of its fields by path."""

    name: str = ""
    lines: dict[FieldPath, int] = {}

    def refuse(self, path: FieldPath, message: str) -> InvalidResource:
        """The error about the field at `path`: `fraud.yaml:12: spec.batchin: unknown field`."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known)
        place = f"{self.name}:{line}: " if self.name and line else f"{self.name}: " if self.name else ""
        field = write_path(path)
        return InvalidResource(f"{place}{field}{': ' if field else ''}{message}")


def read_resources(paths: Sequence[str], stdin: TextIO | None = None) -> list[Resource]:
    """The resources of all files, in their order. A directory gives its YAML and JSON files; `-` is standard input.

    Raises `InvalidResource` for the first thing that is wrong, also where one name of a kind is given twice.
    """
    found: dict[tuple[str, str], str] = {}
    resources: list[Resource] = []
    for name, text in _read_texts(paths, stdin or sys.stdin):
        for document in read_yaml_documents(text, name, InvalidResource):
            origin = Origin(name, document.lines)
            resource = read_resource(document.value, origin)
            key = resource.kind, resource.metadata.name
            if key in found:
                raise origin.refuse(("metadata", "name"), f"{key[1]!r} is given twice, first in {found[key]}")
            found[key] = f"{name}:{document.lines[()]}"
            resources.append(resource)
    if not resources:
        raise InvalidResource(f"{', '.join(paths)}: no resource in there")
    return resources


def read_resource(value: Any, origin: Origin | None = None) -> Resource:
    """The resource that plain values describe. Raises `InvalidResource`.

    >>> read_resource({"kind": "Tenant", "metadata": {"name": "acme"}, "spec": {"priority": 3}}).spec.priority
    3
    """
    origin = origin or Origin()
    if not isinstance(value, dict):
        raise origin.refuse((), "expected a mapping of keys to values")
    value = {key: item for key, item in value.items() if key != "status"}  # as `get` shows it: not for us to set
    kind = _check_kind(value, origin)
    _check_fields(value, inspect.type_info(kind), (), origin, _FIELDS_NOT_YET if kind is Endpoint else frozenset())
    try:
        resource = msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        raise origin.refuse(*_translate(problem)) from problem
    if isinstance(resource, Endpoint):
        check_endpoint(resource, value, origin.refuse)
    elif isinstance(resource, Tenant):
        check_tenant(resource, origin.refuse)
    elif isinstance(resource, Issuer):
        check_issuer(resource, origin.refuse)
    else:
        check_batch_job(resource, origin.refuse)
    return resource


def to_document(resource: Resource) -> dict[str, Any]:
    """Plain values of a resource, without the fields that are as they are by default, and without those that mean
    nothing to its strategy (which a deploy may have changed): what comes out can be applied again.

    >>> to_document(read_resource({"kind": "Endpoint", "metadata": {"name": "a"}, "spec": {"model": "a@1"}}))
    {'apiVersion': 'hyperion/v1', 'kind': 'Endpoint', 'metadata': {'name': 'a'}, 'spec': {'model': 'a@1'}}
    """
    document: dict[str, Any] = _strip(resource)
    if isinstance(resource, Endpoint):
        rollout = document["spec"].get("rollout", {})
        for field in idle_fields(resource.spec.rollout.strategy):
            rollout.pop(field, None)
    return {"apiVersion": API_VERSION, "kind": resource.kind, **document}


def write_yaml(documents: Iterable[Mapping[str, Any]]) -> str:
    """One YAML document per resource, in the order of their fields."""
    return yaml.safe_dump_all(map(dict, documents), sort_keys=False, allow_unicode=True, default_flow_style=False)


def write_path(path: FieldPath) -> str:
    """`spec.rollout.steps[0].percent`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _read_texts(paths: Sequence[str], stdin: TextIO) -> Iterable[tuple[str, str]]:
    for given in paths:
        if given == "-":
            text = stdin.read(LIMIT_BYTES + 1)
            if len(text) > LIMIT_BYTES:
                raise InvalidResource(f"standard input: larger than {LIMIT_BYTES // 1024} KiB")
            yield "-", text
            continue
        path = Path(given)
        if not path.exists():
            raise InvalidConfig(f"{given}: no such file or directory")
        if not path.is_dir():
            yield given, read_text(path, LIMIT_BYTES)
            continue
        files = [entry for entry in list_entries(path) if entry.suffix in _SUFFIXES and entry.is_file()]
        if not files:
            raise InvalidResource(f"{given}: no file in there ends in {', '.join(_SUFFIXES)}")
        for file in files:
            yield os.path.join(given, file.name), read_text(file, LIMIT_BYTES)


def _check_kind(value: dict[str, Any], origin: Origin) -> type[Resource]:
    kind, known = value.get("kind"), ", ".join(KINDS)
    if kind in KINDS_NOT_YET:
        raise origin.refuse(("kind",), f"{kind} is not done by this version; it knows {known}")
    if not isinstance(kind, str) or kind not in KINDS:
        given = "is missing" if kind is None else f"{str(kind)[:80]!r} is unknown{suggest(str(kind), KINDS)}"
        raise origin.refuse(("kind",), f"{given} (known: {known})")
    version = value.get("apiVersion", API_VERSION)
    if version != API_VERSION:
        raise origin.refuse(("apiVersion",), f"expected {API_VERSION}, got {str(version)[:80]!r}")
    return KINDS[kind]


def _check_fields(
    value: Any, kind: inspect.Type, path: FieldPath, origin: Origin, not_yet: frozenset[FieldPath]
) -> None:
    """Refuse unknown fields, and words that are none of those expected, wherever they are."""
    if isinstance(kind, inspect.UnionType):
        fitting: tuple[type[inspect.Type], ...] = (inspect.LiteralType,)
        if isinstance(value, dict):
            fitting = (inspect.StructType, inspect.DictType)
        kind = next((part for part in kind.types if isinstance(part, fitting)), inspect.AnyType())
    if isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        for index, item in enumerate(value):
            _check_fields(item, kind.item_type, (*path, index), origin, not_yet)
    elif isinstance(kind, inspect.DictType) and isinstance(value, dict):
        for key, item in value.items():
            _check_fields(item, kind.value_type, (*path, key), origin, not_yet)
    elif isinstance(kind, inspect.LiteralType) and isinstance(value, str) and value not in kind.values:
        words = [str(word) for word in kind.values]
        raise origin.refuse(path, f"expected {', '.join(words)}, got {value[:80]!r}{suggest(value, words)}")
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field for field in kind.fields}
        for key, item in value.items():
            here = (*path, key)
            if here in not_yet and item is not None:
                raise origin.refuse(here, "not done by this version; leave it out")
            if key not in fields:
                near = suggest(key, fields) or f" (known: {', '.join(fields)})"
                raise origin.refuse(here, f"unknown field{near}")
            _check_fields(item, fields[key].type, here, origin, not_yet)


def _translate(problem: msgspec.ValidationError) -> tuple[FieldPath, str]:
    """The path and the message of msgspec's "Expected `int`, got `str` - at `$.spec.deadline_ms`"."""
    text, _, where = str(problem).partition(" - at `$")
    path = tuple(int(index) if index else name for name, index in _STEP.findall(where))
    missing = re.fullmatch(r"Object missing required field `(\w+)`", text)
    if missing:
        return path, f'the field "{missing[1]}" is missing'
    text = text.replace("`", "").replace("object", "a mapping").replace("array", "a list").replace("str", "text")
    return path, text[:1].lower() + text[1:]


def _strip(value: Any) -> Any:
    if isinstance(value, Struct):
        kept: dict[str, Any] = {}
        for field in msgspec.structs.fields(value):
            item = getattr(value, field.name)
            default = field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            if item != default:
                kept[field.encode_name] = _strip(item)
        return kept
    if isinstance(value, tuple | list):
        return [_strip(item) for item in value]
    if isinstance(value, dict):
        return {key: _strip(item) for key, item in value.items()}
    return value
