"""`hyperion gateway`: one gateway worker by itself, for clusters."""

import os
import sys
from pathlib import Path

import click
import msgspec

from hyperion.cli.commands.runner import print_notice
from hyperion.cli.commands.serve import add_options
from hyperion.cli.process import run_role
from hyperion.cli.resolve import find_files, resolve
from hyperion.cli.tree import check_gateway, choose_log_format, plan_gateways
from hyperion.fleet.home import find_run_dir
from hyperion.schema.errors import InvalidConfig


@click.command("gateway", short_help="Run one gateway worker.")
@click.option("--worker", type=click.IntRange(0, 63), default=0, show_default=True, help="number of this worker")
@add_options
def command(worker: int, **flags: object) -> int:
    """Serve the snapshot that control publishes in the home; until there is one, the last good one."""
    settings = resolve(flags, os.environ, find_files(os.environ, Path.cwd()))
    check_gateway(settings)
    home = Path(settings.text("home")).absolute()
    run_dir = find_run_dir(home)
    if not run_dir.is_dir():
        raise InvalidConfig(
            f"{home} is no home of a platform: a gateway joins one that hyperion serve has made; see --home"
        )
    grpc_port = settings.integer("grpc_port") if settings.flag("grpc") else 0
    log_format = choose_log_format(settings, sys.stderr)
    configs = plan_gateways(settings, home, run_dir, settings.integer("port"), grpc_port, log_format)
    config = msgspec.structs.replace(configs[0], worker=worker)
    return run_role("gateway", msgspec.json.encode(config).decode(), print_notice)
