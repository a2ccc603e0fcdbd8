"""The page on resources, from the structs of `schema/resource.py`, and the one on the management API, from OpenAPI."""

import json
from collections.abc import Iterator
from typing import Any, cast

import msgspec
from msgspec import inspect

from docs.resource_fields import FIELDS
from docs.resource_fields_access import ISSUER, TENANT
from docs.resource_fields_batch import BATCH_JOB
from hyperion.api.app import make_app
from hyperion.api.records import Management
from hyperion.schema.resource import BatchJob, Endpoint, Issuer, Tenant

WORDS = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.AnyType: "anything",
    inspect.NoneType: "null",
}
# Each kind with the meanings of its fields.
KINDS: dict[str, tuple[type[msgspec.Struct], dict[str, str]]] = {
    "Endpoint": (Endpoint, FIELDS),
    "Tenant": (Tenant, TENANT),
    "Issuer": (Issuer, ISSUER),
    "BatchJob": (BatchJob, BATCH_JOB),
}
METHODS = ("get", "head", "put", "post", "delete")


def resource_sections(name: str) -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    """A path and the rows (field, type, default, meaning) of its fields, for every struct of a kind, outermost
    first."""
    resource, meanings = KINDS[name]
    pending: list[tuple[str, inspect.Type]] = [("", inspect.type_info(resource))]
    while pending:
        path, kind = pending.pop(0)
        rows, inner = [], []
        for field in cast(inspect.StructType, kind).fields:
            here = f"{path}.{field.encode_name}" if path else field.encode_name
            rows.append((f"`{field.encode_name}`", name_type(field.type), show_default(field), meanings[here]))
            struct, mark = find_struct(field.type)
            if struct is not None:
                inner.append((here + mark, struct))
        pending = inner + pending
        yield path, rows


def find_struct(kind: inspect.Type, mark: str = "") -> tuple[inspect.Type | None, str]:
    """The struct within a type, and `[]` or `.NAME` where it is one of many."""
    if isinstance(kind, inspect.StructType):
        return kind, mark
    parts = kind.types if isinstance(kind, inspect.UnionType) else ()
    if isinstance(kind, inspect.VarTupleType):
        return find_struct(kind.item_type, "[]")
    if isinstance(kind, inspect.DictType):
        return find_struct(kind.value_type, ".NAME")
    found = (find_struct(part, mark) for part in parts)
    return next((one for one in found if one[0] is not None), (None, ""))


def name_type(kind: inspect.Type) -> str:
    """A type in words."""
    if isinstance(kind, inspect.UnionType):
        return " or ".join(name_type(part) for part in kind.types)
    if isinstance(kind, inspect.VarTupleType):
        return f"list of {name_type(kind.item_type)}"
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, inspect.DictType):
        return f"mapping of text to {name_type(kind.value_type)}"
    return "mapping" if isinstance(kind, inspect.StructType) else WORDS[type(kind)]


def show_default(field: inspect.Field) -> str:
    """The default as one writes it; a mapping's own is below."""
    default: Any = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = cast(Any, field.default_factory)()
    if default is msgspec.NODEFAULT:
        return "**needed**"
    if isinstance(default, msgspec.Struct):
        return "as below"
    return "–" if default in ("", None) else f"`{json.dumps(msgspec.to_builtins(default))}`"


def resources_text() -> str:
    """What stands before the tables."""
    return (
        "`hyperion apply -f FILE` makes things as files say: all of them or none, and the same again changes "
        "nothing. `hyperion diff -f FILE` shows what would change. An unknown field is an error that names the line "
        "and the nearest one; a field that means nothing to the chosen strategy is refused, too.\n\n"
        "```yaml\napiVersion: hyperion/v1\nkind: Endpoint\nmetadata: {name: fraud}\nspec:\n  model: fraud@champion\n"
        "```\n\n"
        "That is enough: everything else has a default. `hyperion get endpoint fraud -o yaml` shows what differs from "
        "it, with a `status` that `apply` leaves alone. The other kinds: [Tenant](#tenant) and [Issuer](#issuer) say "
        "[who may call](access.md), [BatchJob](#batchjob) [scores a table](batch.md).\n\n"
        "Not done by this version, and refused by name: `replicas.idle_s`, `upstream.protocol: openai`, and the "
        "kinds Policy and Alert.\n"
    )


def routes() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each group of routes with its rows (route, what it does), as OpenAPI has them."""
    document = make_app(cast(Management, None), "", ()).openapi()  # no request is made
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                one = methods[method]
                text = " ".join(one.get("description", "").split("\n\n")[0].split())
                groups.setdefault(one["tags"][0], []).append((f"`{method.upper()} {path}`", text))
    yield from groups.items()
