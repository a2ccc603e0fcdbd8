"""The subcommands of `hyperion`. Each one's module is imported when it is called, so that it waits for no other."""

from importlib import import_module

import click

from hyperion import __version__

# Each is a module of `commands/`, which holds it as `command`; in the order in which `--help` shows them.
COMMANDS = (
    "serve",
    "apply",
    "diff",
    "get",
    "delete",
    "model",
    "deploy",
    "rollout",
    "key",
    "usage",
    "job",
    "graph",
    "ledger",
    "explain",
    "predict",
    "batch",
    "bench",
    "config",
    "doctor",
    "gateway",
    "control",
    "runner",
    "completion",
)


class LazyGroup(click.Group):
    """Imports a subcommand when it is asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names, in the order in which `--help` shows them."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """The subcommand, or None where there is none of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"hyperion.cli.commands.{name}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="hyperion %(version)s")
def cli() -> None:
    """Serve, protect, release and watch any model."""
