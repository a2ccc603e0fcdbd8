"""`hyperion deploy ENDPOINT MODEL@VERSION`: start a rollout."""

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.rollout_watch import EXIT_REFUSED, watch
from hyperion.cli.show import print_json

STRATEGIES = ("all-at-once", "blue-green", "canary", "shadow", "champion-challenger")


@click.command("deploy", short_help="Start a rollout to another version.")
@click.argument("endpoint")
@click.argument("model", metavar="MODEL@VERSION")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="[default: the endpoint's own]")
@click.option("--wait", is_flag=True, help="watch the rollout until it ends; exit 3 unless it was promoted")
@click.option("--reason", default="", help="why; the ledger keeps it")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def command(
    admin: Admin, endpoint: str, model: str, strategy: str | None, wait: bool, reason: str, as_json: bool
) -> int:
    """Let ENDPOINT go live with MODEL@VERSION (or MODEL@ALIAS), step by step as its rollout says."""
    done = admin.post("endpoints", endpoint, "deploy", body={"model": model, "strategy": strategy, "reason": reason})
    name = f"{done['model']}@{done['version']}"
    if not wait:
        if as_json:
            print_json(done)
        elif done["started"]:
            print(f"{endpoint}: a rollout to {name} begins; follow it with: hyperion rollout watch {endpoint}")
        else:
            print(f"{endpoint}: {name} is live, or on its way, already")
        return 0
    last = watch(admin, endpoint, done["previous_rollout"] if done["started"] else "", as_json=as_json)
    return 0 if last["state"] == "promoted" and last["to_digest"] == done["digest"] else EXIT_REFUSED
