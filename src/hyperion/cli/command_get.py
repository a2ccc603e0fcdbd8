"""`hyperion get KIND [NAME]`: what is there."""

import time
from collections.abc import Callable
from typing import Any

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.kinds import find_kind
from hyperion.cli.show import print_json, print_table

Row = tuple[str, ...]


@click.command("get", short_help="List or show endpoints, models, rollouts.")
@click.argument("kind")
@click.argument("name", required=False)
@click.option("-o", "--output", type=click.Choice(("table", "json", "yaml")), default="table")
@click.option("--json", "as_json", is_flag=True, help="for scripts; as -o json")
@add_connection
def command(admin: Admin, kind: str, name: str | None, output: str, as_json: bool) -> None:
    """Show the resources of a KIND (endpoints, models, rollouts, replicas), or the one called NAME.

    What `get endpoints -o yaml` shows can be applied again.
    """
    kind = find_kind(kind, _READERS)
    items = _READERS[kind](admin, name)
    if as_json or output == "json":
        print_json(items[0] if name else {"items": items})
    elif output == "yaml":
        from hyperion.store.resource_yaml import write_yaml

        print(write_yaml([_shorten(item) if kind == "endpoints" else item for item in items]), end="")
    else:
        titles, write = _TABLES[kind]
        print_table(titles, [write(item) for item in items])


def _shorten(item: dict[str, Any]) -> dict[str, Any]:
    """The resource without defaults, for people; its status below."""
    from hyperion.store.resource_yaml import read_resource, to_document

    return {**to_document(read_resource(item)), "status": item["status"]}


def _read_endpoints(admin: Admin, name: str | None) -> list[Any]:
    return [admin.get("endpoints", name)] if name else list(admin.pages("endpoints"))


def _read_rollouts(admin: Admin, name: str | None) -> list[Any]:
    if name:
        return [admin.get("rollouts", name)]
    return [item["status"]["rollout"] for item in admin.pages("endpoints")]


def _read_models(admin: Admin, name: str | None) -> list[Any]:
    return [admin.get("registry", "models", name)] if name else list(admin.pages("registry", "models"))


def _read_replicas(admin: Admin, name: str | None) -> list[Any]:
    return [item for item in admin.get("replicas") if name in (None, item["name"], item["model"])]


def _write_endpoint(item: dict[str, Any]) -> Row:
    rollout = item["status"]["rollout"]
    live = rollout["to"] if rollout["state"] == "promoted" else rollout["from"]
    return (
        item["metadata"]["name"],
        item["spec"]["model"],
        live or "-",
        rollout["state"],
        f"{rollout['weight'] * 100:g} %",
        str(item["status"]["generation"]),
        write_age(item["status"]["created_at"]),
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
    "models": _read_models,
    "rollouts": _read_rollouts,
    "replicas": _read_replicas,
}
_TABLES: dict[str, tuple[Row, Callable[[dict[str, Any]], Row]]] = {
    "endpoints": (("endpoint", "model", "live", "rollout", "weight", "generation", "age"), _write_endpoint),
    "models": (("model", "versions", "newest", "aliases", "age"), _write_model),
    "rollouts": (("endpoint", "state", "from", "to", "step", "weight", "verdict", "reason"), _write_rollout),
    "replicas": (("replica", "endpoint", "version", "state", "pid", "restarts"), _write_replica),
}
