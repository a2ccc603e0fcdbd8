"""`hyperion delete KIND NAME`."""

import sys

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.changes import print_changes
from hyperion.cli.kinds import find_kind
from hyperion.cli.show import print_json


@click.command("delete", short_help="Stop serving an endpoint and forget it.")
@click.argument("kind")
@click.argument("name")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--dry-run", is_flag=True, help="show what would change, and change nothing")
@click.option("--reason", default="", help="why; the ledger keeps it")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def command(admin: Admin, kind: str, name: str, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Stop serving the endpoint NAME and forget it. Its versions stay in the registry, its entries in the ledger."""
    find_kind(kind, ("endpoints",))
    admin.delete("endpoints", name, dry_run=True)  # unknown: said before anybody is asked
    if not (yes or dry_run or as_json) and sys.stdin.isatty():
        click.confirm(f"Delete endpoint {name}?", abort=True, err=True)
    found = admin.delete("endpoints", name, dry_run=dry_run, reason=reason)
    if as_json:
        print_json(found)
    else:
        print_changes(found["changes"], dry_run=dry_run)
