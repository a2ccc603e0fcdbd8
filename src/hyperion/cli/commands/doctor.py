"""`hyperion doctor`: what is missing on this machine, and how to get it."""

import os
import sys
from pathlib import Path

import click
import msgspec

from hyperion.cli.checks import run_checks
from hyperion.cli.commands.serve import add_options
from hyperion.cli.resolve import find_files, resolve
from hyperion.cli.show import print_json, print_table


@click.command("doctor", short_help="Check this machine.")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_options
def command(as_json: bool, **flags: object) -> int:
    """Check what serving needs: exit code 0 if it can work here, 1 if not."""
    settings = resolve(flags, os.environ, find_files(os.environ, Path.cwd()))
    checks = list(run_checks(settings))
    bad = [check for check in checks if check.verdict == "bad"]
    if as_json:
        print_json([msgspec.structs.asdict(check) for check in checks])
    else:
        print_table(("check", "verdict", "detail"), [(c.name, c.verdict, c.detail) for c in checks])
    if bad:
        sys.stderr.write(f"hyperion: {len(bad)} of {len(checks)} checks failed: {bad[0].name}: {bad[0].detail}\n")
    return 1 if bad else 0
