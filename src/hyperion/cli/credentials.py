"""The key with which a command calls models. Used by the commands that send inference requests."""

from collections.abc import Callable
from typing import Any

import click

from hyperion.schema.errors import InvalidConfig

KEY_VARIABLE = "HYPERION_API_KEY"


def add_key(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--key`. Other users of a machine see the arguments of its processes, but not their environment:
    so the variable is the better place."""
    shown = f"API key or token, if callers need one  [default: ${KEY_VARIABLE}]"
    wrapped: Callable[..., Any] = click.option("--key", envvar=KEY_VARIABLE, callback=_check, help=shown)(function)
    return wrapped


def _check(_context: click.Context, _option: click.Parameter, given: str | None) -> str:
    """The key without what was copied around it. Raises `InvalidConfig`, which does not show it."""
    key = (given or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidConfig(f"--key (or ${KEY_VARIABLE}): expected one word of ASCII, as hyperion key create prints it")
    return key
