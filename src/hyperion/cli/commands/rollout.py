"""`hyperion rollout …`: see and drive the rollout of an endpoint."""

from collections.abc import Callable
from typing import Any

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.rollout_text import write_line, write_report
from hyperion.cli.rollout_watch import EXIT_REFUSED, watch
from hyperion.cli.show import print_json

_VERBS = {
    "promote": "Let the new version serve all requests now (at a pause: go on to the next step).",
    "pause": "Stay at this weight until somebody resumes. Evidence against the new version still halts it.",
    "resume": "Go on after a pause.",
    "abort": "Send all requests back to the old version.",
    "undo": "Go back to the version before, also after a promotion.",
}


@click.group("rollout", short_help="See and drive a rollout.")
def command() -> None:
    """See and drive the rollout of an endpoint."""


@command.command("status")
@click.argument("endpoint")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def status(admin: Admin, endpoint: str, as_json: bool) -> None:
    """Show how far the rollout is, and the evidence."""
    found = admin.get("rollouts", endpoint)
    if as_json:
        print_json(found)
    else:
        print(write_report(found))


@command.command("watch")
@click.argument("endpoint")
@click.option("--json", "as_json", is_flag=True, help="one JSON document per line and change")
@add_connection
def watch_command(admin: Admin, endpoint: str, as_json: bool) -> int:
    """Follow the rollout until it ends. Exits 0 where it was promoted (or none is on), 3 where it was halted or
    aborted."""
    last = watch(admin, endpoint, "", as_json=as_json)
    return EXIT_REFUSED if last["state"] in ("halted", "aborted") else 0


def _add_verb(verb: str, about: str) -> None:
    @click.argument("endpoint")
    @click.option("--reason", default="", help="why; the ledger keeps it")
    @click.option("--json", "as_json", is_flag=True, help="for scripts")
    @add_connection
    def run(admin: Admin, endpoint: str, reason: str, as_json: bool) -> None:
        done = admin.post("rollouts", endpoint, verb, body={"reason": reason})
        if as_json:
            print_json(done)
        else:
            print(f"{endpoint}: {done['outcome'] or f'{verb} is noted; control has not obeyed yet'}")
            print(write_line(done["rollout"]))

    run.__doc__ = about
    make: Callable[[Callable[..., Any]], click.Command] = command.command(verb)
    make(run)


for _verb, _about in _VERBS.items():
    _add_verb(_verb, _about)
