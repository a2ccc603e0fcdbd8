"""The entry point of `hyperion`, and the one place where errors become one line and an exit code."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from hyperion.schema.errors import GateRefused, HyperionError, InvalidConfig

EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 3 refused by a gate."""
    try:
        code = _run(sys.argv[1:])
    except HyperionError as error:
        _fail(error.message, _choose_code(error))
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read our output has enough; keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["serve"]:
        from hyperion.cli.quick import parse_serve

        parsed = parse_serve(arguments[1:])
        if parsed is not None:  # the first answer waits for us: not for click, too
            from hyperion.cli.serve import serve_here

            return serve_here(*parsed)
    return _run_with_click()


def _run_with_click() -> int:
    import click

    from hyperion.cli.group import cli

    try:
        code = cli.main(standalone_mode=False, prog_name="hyperion")
    except click.UsageError as error:
        hint = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(f"{error.format_message()}{hint}", EXIT_USAGE)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except click.Abort:
        _fail("interrupted", EXIT_FAILED)
    return code if isinstance(code, int) else 0


def _choose_code(error: HyperionError) -> int:
    if isinstance(error, GateRefused):
        return EXIT_REFUSED
    return EXIT_USAGE if isinstance(error, InvalidConfig) else EXIT_FAILED


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"hyperion: {' '.join(message.split())}\n")
    sys.exit(code)
