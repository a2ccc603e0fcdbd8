"""`hyperion key …`: API keys."""

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.show import print_json, print_table
from hyperion.schema.errors import NotFound

_UNITS_S = {"m": 60, "h": 3_600, "d": 86_400}


@click.group("key", short_help="Make, list, rotate and revoke API keys.")
def command() -> None:
    """API keys of tenants. They are shown once, when they are made; only their hashes are kept."""


@command.command("create")
@click.option("--tenant", required=True, help="whom it is for")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("infer",),
    show_default=True,
    type=click.Choice(("read", "infer", "deploy", "admin")),
    help="what it may do; may be given several times",
)
@click.option("--expires", "expires", metavar="DURATION", help="from now: 12h, 30d  [default: never]")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def create(admin: Admin, tenant: str, scopes: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Make a key and show it."""
    expires_at = None if expires is None else time.time() + read_duration(expires)
    done = admin.post("keys", body={"tenant": tenant, "scopes": list(scopes), "expires_at": expires_at})
    if as_json:
        print_json(done)
        return
    print(done["key"])
    click.echo(f"key {done['id']} of {tenant} ({', '.join(done['scopes'])}); it is not shown again", err=True)
    try:
        admin.get("tenants", tenant)
    except NotFound:  # which is all right, unless it is a slip of the pen
        click.echo(f'no limits hold for it: no resource says what tenant "{tenant}" may use', err=True)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def list_keys(admin: Admin, as_json: bool) -> None:
    """List the keys, without their secrets."""
    keys = admin.get("keys")
    if as_json:
        print_json(keys)
        return
    rows = [(key["id"], key["tenant"], ", ".join(key["scopes"]), _write_state(key), key["created_by"]) for key in keys]
    print_table(("id", "tenant", "scopes", "state", "made by"), rows)


@command.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option("--overlap", default="24h", show_default=True, metavar="DURATION", help="how long the old one counts on")
@click.option("--reason", default="", help="why; the ledger keeps it")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def rotate(admin: Admin, key_id: str, overlap: str, reason: str, as_json: bool) -> None:
    """Make a key's successor, of the same tenant and scopes, and show it. The old one ends after the overlap."""
    body = {"overlap_s": read_duration(overlap, "--overlap"), "reason": reason}
    done = admin.post("keys", key_id, "rotate", body=body)
    if as_json:
        print_json(done)
        return
    print(done["key"])
    ends = _write_time(done["replaced_expires_at"])
    click.echo(f"key {done['id']} of {done['tenant']}; it is not shown again. Key {key_id} ends {ends}", err=True)


@command.command("revoke")
@click.argument("key_id", metavar="ID")
@click.option("--reason", default="", help="why; the ledger keeps it")
@add_connection
def revoke(admin: Admin, key_id: str, reason: str) -> None:
    """End a key, at once and for good."""
    admin.delete("keys", key_id, reason=reason)
    print(f"key {key_id} is revoked")


def read_duration(text: str, option: str = "--expires") -> float:
    """Return the seconds of `30m`, `12h` or `7d`, as given for `option`. Raises `UsageError`.

    >>> read_duration("2h")
    7200.0
    """
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if found is None:
        raise click.UsageError(f"{option} {text}: expected a number and m, h or d, such as 12h or 30d")
    return float(int(found[1]) * _UNITS_S[found[2]])


def _write_state(key: dict[str, Any]) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    if key["expires_at"] is None:
        return "valid"
    if key["expires_at"] <= time.time():
        return "expired"
    return f"valid until {_write_time(key['expires_at'])}"


def _write_time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
