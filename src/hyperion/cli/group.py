"""The subcommands of `hyperion`. Each one's module is imported when it is called, so that it waits for no other."""

from importlib import import_module

import click

from hyperion import __version__

# Name of the subcommand -> module of this room that holds it, as `command`.
COMMANDS = {
    "serve": "command_serve",
    "apply": "command_apply",
    "diff": "command_diff",
    "get": "command_get",
    "delete": "command_delete",
    "model": "command_model",
    "deploy": "command_deploy",
    "rollout": "command_rollout",
    "key": "command_key",
    "usage": "command_usage",
    "job": "command_job",
    "graph": "command_graph",
    "ledger": "command_ledger",
    "explain": "command_explain",
    "predict": "command_predict",
    "batch": "command_batch",
    "bench": "command_bench",
    "config": "command_config",
    "doctor": "command_doctor",
    "gateway": "command_gateway",
    "control": "command_control",
    "runner": "command_runner",
    "completion": "command_completion",
}


class LazyGroup(click.Group):
    """Imports a subcommand when it is asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names, in the order in which `--help` shows them."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """The subcommand, or None where there is none of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"hyperion.cli.{COMMANDS[name]}").command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="hyperion %(version)s")
def cli() -> None:
    """Serve, protect, release and watch any model."""
