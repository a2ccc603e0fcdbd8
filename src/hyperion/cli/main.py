"""The `hyperion` command: its subcommands, and one place where errors become one line and an exit code.

Each subcommand's module is imported when it is called, so that `serve` waits for none of the others.
"""

import os
import sys
from importlib import import_module

import click

from hyperion import __version__
from hyperion.schema.errors import HyperionError, InvalidConfig

EXIT_FAILED, EXIT_USAGE = 1, 2
# Name of the subcommand -> module of this room that holds it, as `command`.
COMMANDS = {
    "serve": "command_serve",
    "predict": "command_predict",
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


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage."""
    try:
        code = cli.main(standalone_mode=False, prog_name="hyperion")
    except click.UsageError as error:
        hint = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(f"{error.format_message()}{hint}", EXIT_USAGE)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except click.Abort:
        _fail("interrupted", EXIT_FAILED)
    except HyperionError as error:
        _fail(error.message, EXIT_USAGE if isinstance(error, InvalidConfig) else EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read our output has enough; keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"hyperion: {' '.join(message.split())}\n")
    sys.exit(code)
