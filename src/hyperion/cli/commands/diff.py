"""`hyperion diff -f FILE…`: what `apply` would change."""

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.changes import print_changes
from hyperion.cli.commands.resource_files import add_files, add_output, read_documents, show_changes


@click.command("diff", short_help="Show what apply would change.")
@add_files
@add_output
@add_connection
def command(admin: Admin, files: tuple[str, ...], output: str, as_json: bool) -> int:
    """Show what `apply` would change. Exits 0 where nothing would, and 1 where something would."""
    found = admin.post("resources", body=read_documents(files), dry_run=True)
    changed = [change for change in found["changes"] if change["action"] != "unchanged"]
    if as_json or output != "table":
        show_changes(found, "json" if as_json else output)
    else:
        print_changes(changed)
    return 1 if changed else 0
