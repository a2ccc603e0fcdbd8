"""`hyperion config show`: every setting, its value, and where that came from."""

import os
from pathlib import Path

import click

from hyperion.cli.commands.serve import add_options
from hyperion.cli.resolve import find_files, resolve
from hyperion.cli.show import print_json, print_table


@click.group("config", short_help="Show the configuration.")
def command() -> None:
    """Settings come from flags, then HYPERION_* in the environment, then ./hyperion.toml, then the user's own file
    (~/.config/hyperion/config.toml), then the defaults."""


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_options
def show(as_json: bool, **flags: object) -> None:
    """Show what `hyperion serve` would use here, given the same flags; of URLs no passwords and no tokens."""
    settings = resolve(flags, os.environ, find_files(os.environ, Path.cwd()))
    entries = settings.entries.values()
    if as_json:
        print_json([{"key": e.setting.key, "value": e.shown, "source": e.source} for e in entries])
        return
    print_table(("setting", "value", "source"), [(e.setting.key, str(e.shown), e.source) for e in entries])
