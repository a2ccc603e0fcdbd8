"""`hyperion runner`: one replica of one model version on a Unix socket, for clusters or to look at a model alone."""

from pathlib import Path

import click
import msgspec

from hyperion.cli.process import run_role
from hyperion.schema.config import RunnerConfig
from hyperion.schema.errors import InvalidConfig
from hyperion.schema.model import ModelOptions
from hyperion.store.repositories.discover import discover


@click.command("runner", short_help="Run one replica of one model version.")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--socket", required=True, type=click.Path(path_type=Path), help="Unix socket to listen on")
@click.option("--name", help="name of the model (default: from the path)")
@click.option("--version", "wanted", help="version, where PATH holds several (default: the only one)")
@click.option("--trust-pickle", is_flag=True, help="load pickle and joblib files, which can run any code")
def command(path: Path, socket: Path, name: str | None, wanted: str | None, trust_pickle: bool) -> int:
    """Load the model at PATH, warm it up, and answer frames on the socket until SIGTERM."""
    specs = discover(path, ModelOptions(trust_pickle=trust_pickle), name=name)
    chosen = [spec for spec in specs if wanted in (None, spec.version)]
    if len(chosen) != 1:
        held = ", ".join(f"{spec.name}@{spec.version}" for spec in specs)
        raise InvalidConfig(f"{path}: expected one version to run, found {held}; choose with --version")
    spec = chosen[0]
    config = RunnerConfig(f"{spec.name}@{spec.version}", str(socket.absolute()), spec)
    return run_role("runner", msgspec.json.encode(config).decode(), print_notice)


def print_notice(line: str) -> None:
    """Show on stderr what a supervisor would have been told."""
    key, _, value = line.partition("=")
    if line == "READY=1":
        click.echo("ready", err=True)
    elif key == "ERROR":
        click.echo(f"hyperion: {value}", err=True)
