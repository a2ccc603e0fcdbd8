"""`hyperion usage [TENANT]`: what tenants have used."""

from typing import Any

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.show import print_json, print_table

_MEASURES = ("requests", "rows", "tokens", "cost")


@click.command("usage", short_help="Show what tenants have used.")
@click.argument("tenant", required=False)
@click.option(
    "--first", default="", metavar="DAY", help="as in 2026-11-01  [default: the first of the last one's month]"
)
@click.option("--last", default="", metavar="DAY", help="as in 2026-11-21  [default: today, in UTC]")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def command(admin: Admin, tenant: str | None, first: str, last: str, as_json: bool) -> None:
    """Show what each tenant has used, or TENANT day by day. Requests count once they were let in and started."""
    days = {"first": first, "last": last}
    if tenant is None:
        items = list(admin.pages("usage", **days))
        if as_json:
            print_json({"items": items})
        else:
            print_table(("tenant", *_MEASURES), [(item["tenant"], *_write(item)) for item in items])
        return
    found = admin.get("tenants", tenant, "usage", **days)
    if as_json:
        print_json(found)
        return
    rows = [(day["day"], *_write(day)) for day in found["days"]]
    print_table(("day (UTC)", *_MEASURES), [*rows, ("total", *_write(found["total"]))])


def _write(used: dict[str, Any]) -> tuple[str, ...]:
    """The amounts as people read them.

    >>> _write({"requests": 12000, "rows": 3, "tokens": 0, "cost": 1.25})
    ('12,000', '3', '0', '1.25')
    """
    return tuple([f"{used[name]:,.10g}" if name == "cost" else f"{used[name]:,}" for name in _MEASURES])
