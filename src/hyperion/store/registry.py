"""The registry: versions of models, which never change, and aliases, which move.

Called by `api` (push, import) and `control` (what an endpoint's reference means). Every function takes a transaction of
`Database`; those that change something append to the ledger in it.
"""

import difflib
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from hyperion.schema.errors import Conflict, ModelRefused, UnknownModel
from hyperion.schema.registry import Manifest
from hyperion.store import ledger
from hyperion.store.names import check_name, is_valid_name
from hyperion.store.tables import MODEL_ALIAS, MODEL_VERSION
from hyperion.store.transaction import now, reached
from hyperion.store.versions.manifest import content_of

PAGE_MAX = 1000


class ModelRow(msgspec.Struct, frozen=True):
    """A model in the list. `newest` is its last version; `updated_at` when that was put there."""

    name: str
    versions: int
    newest: str
    aliases: dict[str, str]
    updated_at: float


class VersionRow(msgspec.Struct, frozen=True):
    """A version in the list, without its files. `number` counts the model's versions in the order they came, from 1."""

    model: str
    version: str
    number: int
    digest: str
    format: str
    signed: bool
    created_by: str
    created_at: float
    aliases: tuple[str, ...] = ()


def put_version(tx: Connection, manifest: Manifest, *, actor: str, reason: str = "", signature: str = "") -> bool:
    """Adds a version for ever. False where it is there with the same content already; a signature that it had not is
    kept then, too. Conflict where it is there with another content, ModelRefused for a name that cannot be one."""
    check_name(manifest.model, "the model's name")
    check_name(manifest.version, "the version")
    name = f"{manifest.model}@{manifest.version}"
    old = get_manifest(tx, manifest.model, manifest.version)
    if old is not None:
        if content_of(old) != content_of(manifest):
            raise Conflict(
                f"{name} is there already with {_differ(old, manifest)}; versions never change, push a new one"
            )
        _sign(tx, old, signature, actor, reason)
        return False
    if manifest.version in aliases(tx, manifest.model):
        raise Conflict(f"{name}: {manifest.version} is an alias of {manifest.model}; choose another version")
    number = tx.execute(
        select(func.coalesce(func.max(MODEL_VERSION.c.number), 0) + 1).where(MODEL_VERSION.c.model == manifest.model)
    ).scalar_one()
    tx.execute(
        insert(MODEL_VERSION).values(
            model=manifest.model,
            version=manifest.version,
            number=number,
            digest=manifest.digest,
            manifest=ledger.canonical(ledger.plain(manifest)).decode(),
            signature=signature,
            created_at=manifest.created_at or now(tx),
        )
    )
    reached(tx, "registry.version")
    detail = {
        "digest": manifest.digest,
        "format": manifest.format,
        "files": len(manifest.files),
        "size_bytes": sum(file.size_bytes for file in manifest.files),
        "signed": bool(signature),
        "lineage": manifest.lineage,
    }
    after = ledger.digest_of(manifest)
    ledger.append(tx, "model.push", name, actor=actor, reason=reason, after=after, detail=detail)
    return True


def _differ(old: Manifest, new: Manifest) -> str:
    """What keeps two pushes from being the same: the files, or else what is said of them."""
    if old.digest != new.digest:
        return f"another content ({old.digest})"
    before, after = content_of(old), content_of(new)
    fields = [name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)]
    return f"the same files, and another {' and '.join(fields)} than given now"


def get_manifest(tx: Connection, model: str, version: str) -> Manifest | None:
    """The manifest of a version, None where there is none."""
    text = tx.execute(_version(select(MODEL_VERSION.c.manifest), model, version)).scalar()
    return None if text is None else msgspec.json.decode(text, type=Manifest)


def get_signature(tx: Connection, model: str, version: str) -> str:
    """The signature of a version, "" where there is none."""
    return str(tx.execute(_version(select(MODEL_VERSION.c.signature), model, version)).scalar() or "")


def list_models(tx: Connection, after: str = "", limit: int = 100) -> list[ModelRow]:
    """Up to `limit` (at most PAGE_MAX) models behind the name `after`, by name."""
    found = tx.execute(
        select(MODEL_VERSION.c.model, func.count().label("versions"), func.max(MODEL_VERSION.c.number).label("last"))
        .where(MODEL_VERSION.c.model > after)
        .group_by(MODEL_VERSION.c.model)
        .order_by(MODEL_VERSION.c.model)
        .limit(max(0, min(limit, PAGE_MAX)))
        .subquery()
        .select()
    ).all()
    if not found:
        return []
    within = (found[0].model, found[-1].model)
    named: dict[str, dict[str, str]] = {}
    pointers = select(MODEL_ALIAS).where(MODEL_ALIAS.c.model.between(*within)).order_by(MODEL_ALIAS.c.alias)
    for row in tx.execute(pointers):
        named.setdefault(row.model, {})[row.alias] = row.version
    counts = {row.model: (row.versions, row.last) for row in found}
    newest = tx.execute(
        select(MODEL_VERSION.c.model, MODEL_VERSION.c.version, MODEL_VERSION.c.number, MODEL_VERSION.c.created_at)
        .where(MODEL_VERSION.c.model.between(*within))
        .order_by(MODEL_VERSION.c.model)
    )
    return [
        ModelRow(row.model, counts[row.model][0], row.version, named.get(row.model, {}), row.created_at)
        for row in newest
        if row.number == counts[row.model][1]
    ]


def list_versions(tx: Connection, model: str) -> list[VersionRow]:
    """The versions of a model, newest first. UnknownModel where it has none."""
    named: dict[str, list[str]] = {}
    for alias, version in aliases(tx, model).items():
        named.setdefault(version, []).append(alias)
    rows = tx.execute(
        select(MODEL_VERSION).where(MODEL_VERSION.c.model == model).order_by(MODEL_VERSION.c.number.desc())
    ).all()
    if not rows:
        raise unknown(tx, model)
    versions = []
    for row in rows:
        manifest = msgspec.json.decode(row.manifest, type=Manifest)
        versions.append(
            VersionRow(
                model,
                row.version,
                row.number,
                row.digest,
                manifest.format,
                bool(row.signature),
                manifest.created_by,
                row.created_at,
                tuple(named.get(row.version, ())),
            )
        )
    return versions


def next_version(tx: Connection, model: str) -> str:
    """The version that a push without one gets: one more than the greatest that is a whole number, or "1"."""
    taken = tx.execute(select(MODEL_VERSION.c.version).where(MODEL_VERSION.c.model == model)).scalars()
    return str(max((int(version) for version in taken if version.isascii() and version.isdigit()), default=0) + 1)


def set_alias(tx: Connection, model: str, alias: str, version: str, *, actor: str, reason: str = "") -> bool:
    """Points the alias to a version that is there. False where it did so already. UnknownModel, or ModelRefused for an
    alias that could be taken for a version."""
    if not is_valid_name(alias) or alias.isdigit():
        raise ModelRefused(
            f"alias {alias[:80]!r}: expected 1 to 128 letters, digits, '.', '_' or '-', and not a number alone, as "
            "versions are numbers"
        )
    if get_manifest(tx, model, version) is None:
        raise unknown(tx, model, version)
    if get_manifest(tx, model, alias) is not None:
        raise ModelRefused(f"alias {alias!r}: {model} has a version of that name; choose another alias")
    old = aliases(tx, model).get(alias)
    if old == version:
        return False
    tx.execute(_alias(delete(MODEL_ALIAS), model, alias))
    tx.execute(insert(MODEL_ALIAS).values(model=model, alias=alias, version=version, updated_at=now(tx)))
    reached(tx, "registry.alias")
    _record_alias(tx, model, alias, old, version, actor, reason)
    return True


def drop_alias(tx: Connection, model: str, alias: str, *, actor: str, reason: str = "") -> bool:
    """Removes the alias. False where there is none."""
    old = aliases(tx, model).get(alias)
    if old is None:
        return False
    tx.execute(_alias(delete(MODEL_ALIAS), model, alias))
    reached(tx, "registry.alias")
    _record_alias(tx, model, alias, old, None, actor, reason)
    return True


def aliases(tx: Connection, model: str) -> dict[str, str]:
    """The versions that the model's aliases point to, by alias."""
    rows = tx.execute(select(MODEL_ALIAS).where(MODEL_ALIAS.c.model == model).order_by(MODEL_ALIAS.c.alias))
    return {row.alias: row.version for row in rows}


def resolve(tx: Connection, reference: str) -> Manifest:
    """The version that NAME@VERSION, NAME@ALIAS or NAME (the newest) means now. UnknownModel names the nearest ones."""
    model, mark, wanted = reference.partition("@")
    if not mark:
        newest = tx.execute(
            select(MODEL_VERSION.c.manifest)
            .where(MODEL_VERSION.c.model == model)
            .order_by(MODEL_VERSION.c.number.desc())
            .limit(1)
        ).scalar()
        if newest is None:
            raise unknown(tx, model)
        return msgspec.json.decode(newest, type=Manifest)
    found = get_manifest(tx, model, wanted)
    if found is None:
        version = tx.execute(_alias(select(MODEL_ALIAS.c.version), model, wanted)).scalar()
        found = None if version is None else get_manifest(tx, model, version)
    if found is None:
        raise unknown(tx, model, wanted)
    return found


def unknown(tx: Connection, model: str, version: str | None = None) -> UnknownModel:
    """The error for a model, or a version or alias of it, that is not there: it names what comes nearest."""
    of_model = select(MODEL_VERSION.c.version).where(MODEL_VERSION.c.model == model)
    versions = tx.execute(of_model.order_by(MODEL_VERSION.c.number.desc())).scalars().all()
    if versions and version is not None:
        known = [*aliases(tx, model), *versions]
        return UnknownModel(
            f"model {model!r} has no version or alias {version[:128]!r}; " + _nearest(version, known, "it has")
        )
    models = list(tx.execute(select(MODEL_VERSION.c.model).distinct().order_by(MODEL_VERSION.c.model)).scalars())
    if not models:
        return UnknownModel(f"no model {model[:128]!r} is registered, nor any other; hyperion model push does it")
    return UnknownModel(f"no model {model[:128]!r} is registered; " + _nearest(model, models, "there are"))


def _nearest(word: str, known: list[str], verb: str) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"{verb} {', '.join(known[:5])}" + (f" and {len(known) - 5} more" if len(known) > 5 else "")


def _sign(tx: Connection, manifest: Manifest, signature: str, actor: str, reason: str) -> None:
    if not signature or signature == get_signature(tx, manifest.model, manifest.version):
        return
    tx.execute(_version(update(MODEL_VERSION), manifest.model, manifest.version).values(signature=signature))
    reached(tx, "registry.signature")
    digest = ledger.digest_of(manifest)
    name = f"{manifest.model}@{manifest.version}"
    detail = {"digest": manifest.digest, "signature": ledger.digest_of(signature)}
    ledger.append(tx, "model.sign", name, actor=actor, reason=reason, before=digest, after=digest, detail=detail)


def _record_alias(
    tx: Connection, model: str, alias: str, old: str | None, new: str | None, actor: str, reason: str
) -> None:
    before, after = (
        ledger.digest_of(None if version is None else {"model": model, "alias": alias, "version": version})
        for version in (old, new)
    )
    detail = {"from": old or "", "to": new or ""}
    subject = f"{model}@{alias}"
    ledger.append(tx, "model.alias", subject, actor=actor, reason=reason, before=before, after=after, detail=detail)


def _version(statement: Any, model: str, version: str) -> Any:
    return statement.where(MODEL_VERSION.c.model == model, MODEL_VERSION.c.version == version)


def _alias(statement: Any, model: str, alias: str) -> Any:
    return statement.where(MODEL_ALIAS.c.model == model, MODEL_ALIAS.c.alias == alias)
