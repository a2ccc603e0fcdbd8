"""`hyperion completion SHELL`: the script that completes commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script; for bash: eval "$(hyperion completion bash)" in ~/.bashrc."""
    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"no completion for {shell} in this version of click")
    click.echo(complete(context.find_root().command, {}, "hyperion", "_HYPERION_COMPLETE").source())
