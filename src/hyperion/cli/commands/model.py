"""`hyperion model …`: the registry."""

from typing import Any

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.commands.get import write_age
from hyperion.cli.commands.model_convert import convert, import_repository
from hyperion.cli.commands.model_push import push
from hyperion.cli.show import print_json, print_table

EXIT_FAILED = 1


@click.group("model", short_help="Push, show and verify versions of models.")
def command() -> None:
    """The registry: versions of models, which never change, and aliases, which move."""


command.add_command(push)
command.add_command(import_repository)
command.add_command(convert)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def list_models(admin: Admin, as_json: bool) -> None:
    """List the registered models."""
    items = list(admin.pages("registry", "models"))
    if as_json:
        print_json({"items": items})
        return
    rows = [
        (
            item["name"],
            str(item["versions"]),
            item["newest"],
            _write_aliases(item["aliases"]),
            write_age(item["updated_at"]),
        )
        for item in items
    ]
    print_table(("model", "versions", "newest", "aliases", "age"), rows)


@command.command("show")
@click.argument("name", metavar="NAME[@VERSION]")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def show(admin: Admin, name: str, as_json: bool) -> None:
    """Show the versions of a model, or one version (or alias) with its manifest."""
    model, mark, version = name.partition("@")
    if not mark:
        _show_versions(admin.get("registry", "models", model), as_json)
        return
    found = admin.get("registry", "models", model, "versions", version)
    if as_json:
        print_json(found)
        return
    manifest = found["manifest"]
    lineage = manifest["lineage"]
    size = sum(file["size_bytes"] for file in manifest["files"])
    rows = [
        ("model", f"{found['model']}@{found['version']}"),
        ("digest", found["digest"]),
        ("aliases", ", ".join(found["aliases"])),
        ("format", manifest["format"]),
        ("files", f"{len(manifest['files'])}, {size:,} bytes"),
        ("signed", "yes" if found["signed"] else "no"),
        ("git commit", lineage["git_commit"]),
        ("data version", lineage["data_version"]),
        ("parent", lineage["parent"]),
        *((f"source {key}", value) for key, value in lineage["source"].items()),
        *((f"metric {key}", f"{value:g}") for key, value in manifest["metrics"].items()),
        *((f"parameter {key}", value) for key, value in manifest["parameters"].items()),
        *((f"tag {key}", value) for key, value in manifest["tags"].items()),
        *((f"library {key}", value) for key, value in manifest["libraries"].items()),
        ("owner", manifest["owner"]),
        ("risk class", manifest["risk_class"]),
        ("intended use", manifest["intended_use"]),
        ("pushed by", manifest["created_by"]),
    ]
    print_table(("field", "value"), [row for row in rows if row[1]])
    if manifest["card"]:
        print(f"\n{manifest['card'].rstrip()}")


@command.command("verify")
@click.argument("name", metavar="NAME@VERSION")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def verify(admin: Admin, name: str, as_json: bool) -> int:
    """Let the platform read every file of a version again and judge its signature. Exits 1 where something is wrong."""
    model, version = split_reference(name)
    found = admin.post("registry", "models", model, "versions", version, "verify")
    if as_json:
        print_json(found)
    elif found["ok"]:
        signed = (
            f"signed by {found['signed_by']}" if found["signed_by"] else "signed" if found["signed"] else "not signed"
        )
        print(
            f"{found['model']}@{found['version']}: {found['files']} files, {found['size_bytes']:,} bytes, "
            f"all as pushed; {signed}"
        )
    for problem in found["problems"]:
        click.echo(f"hyperion: {name}: {problem}", err=True)
    return 0 if found["ok"] else EXIT_FAILED


@command.command("alias")
@click.argument("name")
@click.argument("alias")
@click.argument("version")
@click.option("--reason", default="", help="why; the ledger keeps it")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def set_alias(admin: Admin, name: str, alias: str, version: str, reason: str, as_json: bool) -> None:
    """Let ALIAS of the model NAME mean VERSION. Endpoints that name the alias begin a rollout to it."""
    done = admin.put("registry", "models", name, "aliases", alias, body={"version": version, "reason": reason})
    if as_json:
        print_json(done)
    else:
        print(f"{name}@{alias} is {name}@{done['version']}")


def split_reference(name: str) -> tuple[str, str]:
    """Return model and version of NAME@VERSION. Raises `UsageError`."""
    model, mark, version = name.partition("@")
    if not (model and mark and version):
        raise click.UsageError(f"{name}: expected NAME@VERSION or NAME@ALIAS")
    return model, version


def _show_versions(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return

    rows = [
        (
            str(item["version"]),
            ", ".join(map(str, item["aliases"])),
            str(item["format"]),
            "yes" if item["signed"] else "no",
            str(item["digest"])[:19],
            str(item["created_by"]),
        )
        for item in found["items"]
    ]
    print_table(("version", "aliases", "format", "signed", "digest", "pushed by"), rows)


def _write_aliases(aliases: dict[str, str]) -> str:
    return ", ".join(f"{alias}={version}" for alias, version in aliases.items())
