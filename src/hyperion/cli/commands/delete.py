"""`hyperion delete KIND NAME`."""

import sys

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.commands.resource_files import add_output, show_changes
from hyperion.cli.kinds import find_kind

# The kinds that can be deleted, and what one of them is called.
NOUNS = {"endpoints": "endpoint", "tenants": "tenant", "issuers": "issuer", "batchjobs": "batch job"}


@click.command("delete", short_help="Forget an endpoint, a tenant, an issuer, a batch job.")
@click.argument("kind")
@click.argument("name")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--dry-run", is_flag=True, help="show what would change, and change nothing")
@click.option("--reason", default="", help="why; the ledger keeps it")
@add_output
@add_connection
def command(
    admin: Admin, kind: str, name: str, yes: bool, dry_run: bool, reason: str, output: str, as_json: bool
) -> None:
    """Forget the endpoint, tenant, issuer or batch job NAME. An endpoint is served no more, its versions stay in the
    registry; a tenant goes when nobody can come in as it any more; a batch job that runs is stopped. Entries stay in
    the ledger."""
    kind = find_kind(kind, NOUNS)
    output = "json" if as_json else output
    admin.delete(kind, name, dry_run=True)  # what is unknown or refused is said before anybody is asked
    if not (yes or dry_run) and output == "table" and sys.stdin.isatty():
        click.confirm(f"Delete {NOUNS[kind]} {name}?", abort=True, err=True)
    show_changes(admin.delete(kind, name, dry_run=dry_run, reason=reason), output)
