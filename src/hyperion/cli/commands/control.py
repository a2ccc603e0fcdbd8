"""`hyperion control`: the control process by itself, beside a supervisor that runs already."""

import os
import sys
from pathlib import Path

import click
import msgspec

from hyperion.cli.commands.runner import print_notice
from hyperion.cli.commands.serve import add_options
from hyperion.cli.process import run_role
from hyperion.cli.resolve import find_files, resolve
from hyperion.cli.tree import check_settings, choose_log_format, plan_control
from hyperion.fleet.home import find_run_dir
from hyperion.schema.errors import NotReady


@click.command("control", short_help="Run the control process.")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@add_options
def command(paths: tuple[str, ...], **flags: object) -> int:
    """Keep what is desired true: start replicas through the home's supervisor, publish snapshots, serve the management
    API."""
    settings = resolve(flags, os.environ, find_files(os.environ, Path.cwd()))
    check_settings(settings, paths)
    home = Path(settings.text("home")).absolute()
    run_dir = find_run_dir(home)
    if not (run_dir / "supervisor.sock").exists():
        raise NotReady(f"no supervisor in {run_dir}: control starts replicas through one; see hyperion serve")
    url = f"http://{settings.text('host')}:{settings.integer('port')}"
    log_format = choose_log_format(settings, sys.stderr)
    config = plan_control(settings, home, run_dir, paths, None, settings.integer("admin_port"), url, log_format)
    return run_role("control", msgspec.json.encode(config).decode(), print_notice)
