"""`hyperion ledger …`: the audit trail."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.show import print_json, print_table
from hyperion.schema.errors import MalformedRequest

EXIT_FAILED = 1


@click.group("ledger", short_help="Show, export and verify the audit trail.")
def command() -> None:
    """The ledger: an entry for everything that was decided, in a signed Merkle log that nobody can change unseen."""


@command.command("verify")
@click.option("--checkpoint", metavar="FILE", help="a checkpoint that was kept outside (see ledger export)")
@click.option("--key", default="", help="the public key that was kept outside")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def verify(admin: Admin, checkpoint: str | None, key: str, as_json: bool) -> int:
    """Recompute every hash and every signature. Exits 1 and names the entry where one was changed, dropped or moved.

    Who can write the database and has the key can write another history: only a checkpoint from outside finds that.
    """
    trusted = None if checkpoint is None else _read(checkpoint)
    found = admin.post("ledger", "verify", body={"checkpoint": trusted, "key": key})
    if as_json:
        print_json(found)
    elif found["ok"]:
        against = f", and continues {checkpoint}" if checkpoint else ""
        print(f"{found['size']} entries are as they were signed{against}; root {found['root']}")
    if not found["ok"]:
        click.echo(f"hyperion: ledger: {found['problem']}", err=True)
    return 0 if found["ok"] else EXIT_FAILED


@command.command("export")
@click.option("--checkpoint", metavar="FILE", help="write the newest signed checkpoint there, too")
@add_connection
def export(admin: Admin, checkpoint: str | None) -> None:
    """Write every entry, one JSON document per line, to standard output."""
    if checkpoint is not None:
        Path(checkpoint).write_text(admin.get("ledger", "checkpoint")["checkpoint"], "utf-8")
    for entry in admin.pages("ledger", "entries"):
        sys.stdout.write(json.dumps(entry) + "\n")


@command.command("show")
@click.argument("subject", required=False, default="")
@click.option("--kind", default="", help="only of this kind; `rollout.` means all that begin so")
@click.option("-n", "--last", type=click.IntRange(1, 1_000), default=20, show_default=True, help="how many")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def show(admin: Admin, subject: str, kind: str, last: int, as_json: bool) -> None:
    """Show the newest entries, of one SUBJECT (an endpoint, MODEL@VERSION, a key's id) where it is given."""
    page = admin.get("ledger", "entries", subject=subject, kind=kind, limit=last, newest=True)
    entries = page["items"][::-1]
    if as_json:
        print_json(entries)
        return
    rows = [
        (str(entry["seq"]), write_time(entry["time"]), entry["kind"], entry["subject"], entry["actor"], _say(entry))
        for entry in entries
    ]
    print_table(("entry", "time (UTC)", "what", "subject", "by", "why"), rows)


@command.command("live")
@click.argument("endpoint")
@click.option("--at", metavar="TIME", help="such as 2026-11-21T13:37, in UTC unless it says otherwise  [default: now]")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def live(admin: Admin, endpoint: str, at: str | None, as_json: bool) -> None:
    """Show what ENDPOINT served at a time, on what evidence, and who let it."""
    found = admin.get("ledger", "live", endpoint=endpoint, at=time.time() if at is None else read_time(at))
    if as_json:
        print_json(found)
        return
    shares = ", ".join(f"{version} ({share:.4g})" for version, share in found["versions"].items())
    step = found["step"]
    rows = [
        ("served", shares),
        *((f"digest of {version}", digest) for version, digest in found["digests"].items()),
        ("since (UTC)", write_time(step["time"])),
        ("by", f"{step['kind']} (entry {step['seq']}) {_say(step)}"),
        *((item["metric"], f"{item['verdict']} {item['detail']}") for item in step["detail"].get("evidence", ())),
        *(
            ("approved by", f"{entry['actor']}: {entry['kind']} (entry {entry['seq']}) {entry['reason']}")
            for entry in found["approvals"][:3]
        ),
    ]
    print_table(("", ""), rows)


def read_time(text: str) -> float:
    """Return the seconds since 1970 of an ISO 8601 time. Raises `UsageError`.

    >>> read_time("1970-01-01T01:00")
    3600.0
    """
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--at {text}: expected a time such as 2026-11-21T13:37") from None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


def write_time(seconds: float) -> str:
    """`2026-11-21 13:37:00`, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _say(entry: dict[str, Any]) -> str:
    return str(entry["reason"] or entry["detail"].get("reason", ""))


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"--checkpoint {path}: cannot be read: {error}") from error
