"""What `apply` and `diff` share: the option that names files, what these hold, and how changes are shown."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from hyperion.cli.changes import print_changes
from hyperion.cli.show import print_json

Command = TypeVar("Command", bound=Callable[..., Any])
add_files = click.option(
    "-f", "--file", "files", multiple=True, required=True, help="a YAML file or a directory; - is stdin"
)


def add_output(function: Command) -> Command:
    """Give a command that changes resources `-o` and `--json`."""
    function = click.option("--json", "as_json", is_flag=True, help="for scripts; as -o json")(function)
    return click.option("-o", "--output", type=click.Choice(("table", "json", "yaml")), default="table")(function)


def read_documents(files: Sequence[str]) -> list[dict[str, Any]]:
    """The resources in `files`, as the management API takes them. Raises `InvalidResource` or `InvalidConfig`."""
    from hyperion.store.resource_yaml import read_resources, to_document

    return [to_document(resource) for resource in read_resources(files)]


def show_changes(found: dict[str, Any], output: str) -> None:
    """Print what changes, or changed, in the form that was asked for."""
    if output == "json":
        print_json(found)
    elif output == "yaml":
        from hyperion.store.resource_yaml import write_yaml

        print(write_yaml([found]), end="")
    else:
        print_changes(found["changes"], dry_run=found["dry_run"])
