"""`hyperion apply -f FILE…`: make things as resources say, after showing what that changes."""

import sys

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.changes import print_changes
from hyperion.cli.show import print_json
from hyperion.store.resource_yaml import read_resources, to_document


@click.command("apply", short_help="Make endpoints, tenants, issuers as files say.")
@click.option("-f", "--file", "files", multiple=True, required=True, help="a YAML file or a directory; - is stdin")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--dry-run", is_flag=True, help="show what would change, and change nothing")
@click.option("--reason", default="", help="why; the ledger keeps it")
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table")
@click.option("--json", "as_json", is_flag=True, help="for scripts; as -o json")
@add_connection
def command(
    admin: Admin, files: tuple[str, ...], yes: bool, dry_run: bool, reason: str, output: str, as_json: bool
) -> None:
    """Make things as the resources in FILEs say, whatever their kinds: all of them, or none. The same again changes
    nothing."""
    documents = [to_document(resource) for resource in read_resources(files)]
    found = admin.post("resources", body=documents, dry_run=True)
    as_json = as_json or output == "json"
    if not as_json:
        print_changes(found["changes"], dry_run=dry_run)
    changed = [change for change in found["changes"] if change["action"] != "unchanged"]
    if not dry_run and changed:
        if not (yes or as_json) and sys.stdin.isatty() and "-" not in files:
            click.confirm(f"Apply {len(changed)} change{'s' if len(changed) > 1 else ''}?", abort=True, err=True)
        found = admin.post("resources", body=documents, reason=reason)
    if as_json:
        print_json(found)
