"""`hyperion apply -f FILE…`: make things as resources say, after showing what that changes."""

import sys

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.commands.resource_files import add_files, add_output, read_documents, show_changes


@click.command("apply", short_help="Make endpoints, tenants, issuers as files say.")
@add_files
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--dry-run", is_flag=True, help="show what would change, and change nothing")
@click.option("--reason", default="", help="why; the ledger keeps it")
@add_output
@add_connection
def command(
    admin: Admin, files: tuple[str, ...], yes: bool, dry_run: bool, reason: str, output: str, as_json: bool
) -> None:
    """Make things as the resources in FILEs say, whatever their kinds: all of them, or none. The same again changes
    nothing."""
    output = "json" if as_json else output
    documents = read_documents(files)
    found = {**admin.post("resources", body=documents, dry_run=True), "dry_run": dry_run}
    if output == "table":
        show_changes(found, output)
    changed = [change for change in found["changes"] if change["action"] != "unchanged"]
    if not dry_run and changed:
        if not yes and output == "table" and sys.stdin.isatty() and "-" not in files:
            click.confirm(f"Apply {len(changed)} change{'s' if len(changed) > 1 else ''}?", abort=True, err=True)
        found = admin.post("resources", body=documents, reason=reason)
    if output != "table":
        show_changes(found, output)
