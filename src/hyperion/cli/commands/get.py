"""`hyperion get KIND [NAME]`: what is there."""

import time
from collections.abc import Callable
from typing import Any

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.kinds import find_kind
from hyperion.cli.show import print_json, print_table
from hyperion.policy.placement import UNLOADED

Row = tuple[str, ...]
_RESOURCES = frozenset(("endpoints", "tenants", "issuers", "batchjobs"))  # what can be applied


@click.command("get", short_help="List or show endpoints, tenants, models, …")
@click.argument("kind")
@click.argument("name", required=False)
@click.option("-o", "--output", type=click.Choice(("table", "json", "yaml")), default="table")
@click.option("--json", "as_json", is_flag=True, help="for scripts; as -o json")
@add_connection
def command(admin: Admin, kind: str, name: str | None, output: str, as_json: bool) -> None:
    """Show the resources of a KIND (endpoints, tenants, issuers, batchjobs, models, rollouts, replicas), or the one
    called NAME.

    The table of endpoints has those of PATHs, too, which are no resources.

    What `get -o yaml` shows of endpoints, tenants, issuers and batch jobs can be applied again.
    """
    kind = find_kind(kind, _READERS)
    items = _READERS[kind](admin, name)
    if as_json or output == "json":
        print_json(items[0] if name else {"items": items})
    elif output == "yaml":
        from hyperion.store.resource_yaml import write_yaml

        print(write_yaml([_shorten(item) if kind in _RESOURCES else item for item in items]), end="")
    else:
        titles, write = _TABLES[kind]
        rows = [write(item) for item in items]
        if kind == "endpoints" and not name:
            rows += _list_paths(admin, {row[0] for row in rows})
        print_table(titles, rows)


def _list_paths(admin: Admin, known: set[str]) -> list[Row]:
    """What is served from a PATH: an endpoint to its callers, but no resource."""
    return [
        (model["name"], "a PATH", version["version"], version["state"].lower(), "-", "-", "-")
        for model in admin.get("models")
        if model["name"] not in known and "~" not in model["name"]
        for version in model["versions"]
        if version["reason"] != UNLOADED
    ]


def _shorten(item: dict[str, Any]) -> dict[str, Any]:
    """The resource without defaults, for people; its status below."""
    from hyperion.store.resource_yaml import read_resource, to_document

    return {**to_document(read_resource(item)), "status": item["status"]}


def _read_endpoints(admin: Admin, name: str | None) -> list[Any]:
    return [admin.get("endpoints", name)] if name else list(admin.pages("endpoints"))


def _read_tenants(admin: Admin, name: str | None) -> list[Any]:
    return [admin.get("tenants", name)] if name else list(admin.pages("tenants"))


def _read_issuers(admin: Admin, name: str | None) -> list[Any]:
    return [admin.get("issuers", name)] if name else list(admin.pages("issuers"))


def _read_batches(admin: Admin, name: str | None) -> list[Any]:
    return [admin.get("batchjobs", name)] if name else list(admin.pages("batchjobs"))


def _read_rollouts(admin: Admin, name: str | None) -> list[Any]:
    if name:
        return [admin.get("rollouts", name)]
    return [item["status"]["rollout"] for item in admin.pages("endpoints")]


def _read_models(admin: Admin, name: str | None) -> list[Any]:
    return [admin.get("registry", "models", name)] if name else list(admin.pages("registry", "models"))


def _read_replicas(admin: Admin, name: str | None) -> list[Any]:
    return [item for item in admin.get("replicas") if name in (None, item["name"], item["model"])]


def _write_endpoint(item: dict[str, Any]) -> Row:
    status, spec = item["status"], item["spec"]
    age = write_age(status["created_at"])
    if not spec["model"]:
        state = "ready" if status["ready"] else "not ready"
        return (item["metadata"]["name"], name_backend(spec), "-", state, "-", str(status["generation"]), age)
    rollout = status["rollout"]
    live = rollout["to"] if rollout["state"] == "promoted" else rollout["from"]
    return (
        item["metadata"]["name"],
        spec["model"],
        live or "-",
        rollout["state"],
        f"{rollout['weight'] * 100:g} %",
        str(status["generation"]),
        age,
    )


def name_backend(spec: dict[str, Any]) -> str:
    """What answers for an endpoint without a model.

    >>> name_backend({"upstream": None, "graph": {"kind": "cascade", "steps": [{}, {}]}})
    'cascade of 2'
    """
    if spec["upstream"]:
        return str(spec["upstream"]["url"])
    return f"{spec['graph']['kind']} of {len(spec['graph']['steps'])}"


def _write_tenant(item: dict[str, Any]) -> Row:
    spec, status = item["spec"], item["status"]
    limits, quotas = spec["limits"] or {}, spec["quotas"] or {}
    return (
        item["metadata"]["name"],
        f"{limits['requests_per_second']:g}/s" if limits.get("requests_per_second") else "-",
        ", ".join(name for name, value in quotas.items() if value) or "-",
        str(spec["priority"]),
        f"{spec['weight']:g}",
        str(status["live_keys"]),
        write_age(status["created_at"]),
    )


def _write_issuer(item: dict[str, Any]) -> Row:
    spec, status = item["spec"], item["status"]
    return (
        item["metadata"]["name"],
        spec["issuer"],
        spec["audience"],
        spec["tenant"] or f"claim {spec['tenant_claim']}",
        str(len(status["keys"])),
        write_age(status["read_at"]) if status["read_at"] else "never",
        status["problem"] or "-",
    )


def _write_batch(item: dict[str, Any]) -> Row:
    spec, status = item["spec"], item["status"]
    progress = status["progress"]
    return (
        item["metadata"]["name"],
        spec["model"] or spec["endpoint"],
        status["state"],
        f"{progress['rows']:,}",
        f"{progress['fraction']:.0%}".replace("%", " %"),
        f"{progress['rows_per_s']:,.0f}",
        write_age(status["started_at"]) if status["started_at"] else "-",
        status["reason"] or "-",
    )


def _write_rollout(item: dict[str, Any]) -> Row:
    steps = f"{item['step']}/{item['steps']}" if item["steps"] else "-"
    return (
        item["endpoint"],
        item["state"],
        item["from"] or "-",
        item["to"] or "-",
        steps,
        f"{item['weight'] * 100:g} %",
        item["verdict"],
        item["reason"],
    )


def _write_model(item: dict[str, Any]) -> Row:
    if "items" in item:  # one model with its versions
        aliases = ", ".join(f"{alias}={version}" for alias, version in item["aliases"].items())
        return (item["model"], str(len(item["items"])), item["items"][0]["version"], aliases, "")
    aliases = ", ".join(f"{alias}={version}" for alias, version in item["aliases"].items())
    return (item["name"], str(item["versions"]), item["newest"], aliases, write_age(item["updated_at"]))


def _write_replica(item: dict[str, Any]) -> Row:
    return (item["name"], item["model"], item["version"], item["state"], str(item["pid"]), str(item["restarts"]))


def write_age(then: float) -> str:
    """How long ago, in one unit.

    >>> write_age(time.time() - 7300)
    '2h'
    """
    seconds = max(0.0, time.time() - then)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


_READERS: dict[str, Callable[[Admin, str | None], list[Any]]] = {
    "endpoints": _read_endpoints,
    "tenants": _read_tenants,
    "issuers": _read_issuers,
    "batchjobs": _read_batches,
    "models": _read_models,
    "rollouts": _read_rollouts,
    "replicas": _read_replicas,
}
_TABLES: dict[str, tuple[Row, Callable[[dict[str, Any]], Row]]] = {
    "endpoints": (("endpoint", "model", "live", "rollout", "weight", "generation", "age"), _write_endpoint),
    "tenants": (("tenant", "rate", "quotas", "priority", "weight", "keys", "age"), _write_tenant),
    "issuers": (("issuer", "url", "audience", "tenant", "keys", "read", "problem"), _write_issuer),
    "batchjobs": (("batch job", "model", "state", "rows", "done", "rows/s", "started", "reason"), _write_batch),
    "models": (("model", "versions", "newest", "aliases", "age"), _write_model),
    "rollouts": (("endpoint", "state", "from", "to", "step", "weight", "verdict", "reason"), _write_rollout),
    "replicas": (("replica", "endpoint", "version", "state", "pid", "restarts"), _write_replica),
}
