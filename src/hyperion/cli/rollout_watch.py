"""Follow a rollout until it ends: live on a terminal, a line per change in a pipe, JSON lines for scripts."""

import json
import sys
import threading
import time
from typing import Any

from hyperion.cli.admin import Admin
from hyperion.cli.rollout_text import draw, write_evidence, write_line

EXIT_REFUSED = 3
_REDRAW_S = 0.25


def watch(admin: Admin, endpoint: str, after: str, *, as_json: bool) -> dict[str, Any]:
    """Show the rollout until it ends, and return the last status. `after` is the id of a rollout that is over: with it
    the one that follows is waited for."""
    if as_json:
        return _follow_json(admin, endpoint, after)
    if sys.stdout.isatty():
        return _follow_live(admin, endpoint, after)
    return _follow_plain(admin, endpoint, after)


def _follow_json(admin: Admin, endpoint: str, after: str) -> dict[str, Any]:
    status: dict[str, Any] = {}
    for _, status in admin.follow("rollouts", endpoint, "watch", after=after):
        sys.stdout.write(json.dumps(status) + "\n")
        sys.stdout.flush()
    return status


def _follow_plain(admin: Admin, endpoint: str, after: str) -> dict[str, Any]:
    """A line where something but the counts has changed, and every ten seconds; the evidence at the end."""
    status: dict[str, Any] = {}
    said, said_at = None, 0.0
    for kind, status in admin.follow("rollouts", endpoint, "watch", after=after):
        if after and status["rollout_id"] == after:
            continue  # the one that is over, until control has begun the next
        key = [status[name] for name in ("state", "step", "weight", "verdict")]
        if kind == "end":
            for item in status["evidence"]:
                sys.stdout.write(f"  {write_evidence(item)}\n")
            sys.stdout.write(write_line(status) + "\n")
        elif key != said or time.monotonic() - said_at > 10:
            sys.stdout.write(write_line(status) + "\n")
            said, said_at = key, time.monotonic()
        sys.stdout.flush()
    return status


def _follow_live(admin: Admin, endpoint: str, after: str) -> dict[str, Any]:
    from rich.live import Live

    status: dict[str, Any] = {}
    ended = threading.Event()
    with Live(auto_refresh=False) as live:

        def redraw() -> None:  # the clock in the view goes on while nothing arrives
            while not ended.wait(_REDRAW_S):
                if status:
                    live.update(draw(status, time.time()), refresh=True)

        thread = threading.Thread(target=redraw, daemon=True)
        thread.start()
        try:
            for _, status in admin.follow("rollouts", endpoint, "watch", after=after):  # noqa: B007  read by redraw
                continue
        finally:
            ended.set()
            thread.join()
            if status:
                live.update(draw(status, time.time()), refresh=True)
    return status
