"""What would change, field by field, from one resource to another. Called by `control` and shown by `cli`; pure."""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from hyperion.schema.resource import Resource
from hyperion.store.resource_yaml import to_document

Action = Literal["created", "configured", "unchanged", "deleted"]


class FieldChange(Struct, frozen=True):
    """One field: its path (`spec.batching.max_size`), and its plain value before and after; None is not there."""

    path: str
    before: Any = None
    after: Any = None


class Change(Struct, frozen=True):
    """What happens, or would happen, to one resource."""

    kind: str
    name: str
    action: Action
    fields: tuple[FieldChange, ...] = ()


def compare(old: Resource | None, new: Resource) -> Change:
    """The change from `old` (None: there is none) to `new`. A new resource shows what it says, not its defaults."""
    name = new.metadata.name
    if old is None:
        given = _flatten(to_document(new))
        return Change(new.kind, name, "created", tuple(FieldChange(p, None, v) for p, v in given.items()))
    before, after = _flatten(msgspec.to_builtins(old)), _flatten(msgspec.to_builtins(new))
    paths = [*before, *(path for path in after if path not in before)]
    fields = tuple(
        FieldChange(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    )
    return Change(new.kind, name, "configured" if fields else "unchanged", fields)


def delete(old: Resource) -> Change:
    """The change that removes a resource."""
    return Change(old.kind, old.metadata.name, "deleted")


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by their path; a list is one leaf, because its items move together."""
    if isinstance(value, dict) and value:
        leaves: dict[str, Any] = {}
        for key, item in value.items():
            leaves |= _flatten(item, f"{path}.{key}" if path else str(key))
        return leaves
    return {path: list(value) if isinstance(value, tuple) else value}
