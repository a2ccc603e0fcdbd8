"""`hyperion diff -f FILE…`: what `apply` would change."""

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.changes import print_changes
from hyperion.cli.show import print_json
from hyperion.store.resource_yaml import read_resources, to_document


@click.command("diff", short_help="Show what apply would change.")
@click.option("-f", "--file", "files", multiple=True, required=True, help="a YAML file or a directory; - is stdin")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def command(admin: Admin, files: tuple[str, ...], as_json: bool) -> int:
    """Show what `apply` would change. Exits 0 where nothing would, and 1 where something would."""
    documents = [to_document(resource) for resource in read_resources(files)]
    found = admin.post("resources", body=documents, dry_run=True)
    changed = [change for change in found["changes"] if change["action"] != "unchanged"]
    if as_json:
        print_json(found)
    else:
        print_changes(changed)
    return 1 if changed else 0
