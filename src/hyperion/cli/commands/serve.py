"""`hyperion serve`: its options, made from the table of settings."""

from collections.abc import Callable
from typing import Any

import click

from hyperion.cli.settings import SETTINGS, Setting

_TYPES: dict[str, Any] = {"text": click.STRING, "int": click.INT, "float": click.FLOAT}


def add_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one option per setting. What is not given is None, so that it can be told from a default."""
    for setting in reversed(SETTINGS):
        function = _make_option(setting)(function)
    return function


def _make_option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    shown = f"{setting.help}  [default: {setting.default}]" if setting.default not in ("", None) else setting.help
    if setting.kind == "flag":
        off = setting.off_name or f"no-{setting.name}"
        return click.option(f"--{setting.name}/--{off}", setting.key, default=None, help=shown)
    kind = click.Choice(setting.choices) if setting.choices else _TYPES[setting.kind]
    return click.option(f"--{setting.name}", setting.key, type=kind, default=None, help=shown)


@click.command("serve", short_help="Start the platform and serve models.")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@add_options
def command(paths: tuple[str, ...], **flags: object) -> int:
    """Start the platform. Each PATH (a model file, a model directory, an existing Triton, MLServer or MLflow
    repository) becomes a model and an endpoint of that name; with no PATH, what the home holds is served.

    Every option can also be set in the environment (HYPERION_PORT) or in hyperion.toml; `hyperion config show` tells
    where each value comes from.
    """
    from hyperion.cli.serve import serve_here

    return serve_here(paths, flags)
