"""`hyperion delete KIND NAME`."""

import sys

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.changes import print_changes
from hyperion.cli.kinds import find_kind
from hyperion.cli.show import print_json

# The kinds that can be deleted, and what one of them is called.
NOUNS = {"endpoints": "endpoint", "tenants": "tenant", "issuers": "issuer", "batchjobs": "batch job"}


@click.command("delete", short_help="Forget an endpoint, a tenant, an issuer, a batch job.")
@click.argument("kind")
@click.argument("name")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--dry-run", is_flag=True, help="show what would change, and change nothing")
@click.option("--reason", default="", help="why; the ledger keeps it")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def command(admin: Admin, kind: str, name: str, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Forget the endpoint, tenant, issuer or batch job NAME. An endpoint is served no more, its versions stay in the
    registry; a tenant goes when nobody can come in as it any more; a batch job that runs is stopped. Entries stay in
    the ledger."""
    kind = find_kind(kind, NOUNS)
    admin.delete(kind, name, dry_run=True)  # what is unknown or refused is said before anybody is asked
    if not (yes or dry_run or as_json) and sys.stdin.isatty():
        click.confirm(f"Delete {NOUNS[kind]} {name}?", abort=True, err=True)
    found = admin.delete(kind, name, dry_run=dry_run, reason=reason)
    if as_json:
        print_json(found)
    else:
        print_changes(found["changes"], dry_run=dry_run)
