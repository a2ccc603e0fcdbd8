"""The entry point of `hyperion`, and the one place where errors become one line and an exit code."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from hyperion.schema.errors import GateRefused, HyperionError, InvalidConfig

EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 3 refused by a gate."""
    _open_streams()
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except HyperionError as error:
        _fail(error.message, _choose_code(error))
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_FAILED)
    except BrokenPipeError:
        _drop_output()  # whoever read it has enough
        sys.exit(EXIT_FAILED)
    except OSError as error:
        _drop_output()  # which may be what failed: a full disk
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), EXIT_FAILED)
    except UnicodeError as error:
        _fail(f"not text that can be sent or shown: {error}", EXIT_USAGE)
    sys.exit(code)


def _open_streams() -> None:
    """Let a locale that lacks some characters show others instead of failing, and do without closed streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for as long as we run
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _drop_output() -> None:
    """Keep Python from complaining when it flushes at exit what nobody took."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        _fail(f"which command? (see: {error.ctx.command_path} --help)", EXIT_USAGE)
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
