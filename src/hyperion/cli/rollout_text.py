"""A rollout's status in words: one line for a pipe, a report for people, a live table for a terminal."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group

_ENDED = ("idle", "promoted", "halted", "aborted")
_COLOURS = {"pass": "green", "running": "cyan", "inconclusive": "yellow", "error": "yellow", "fail": "red"}
_STATES = {"promoted": "green", "halted": "red", "aborted": "red", "paused": "yellow"}


def write_line(status: dict[str, Any]) -> str:
    """One line: state, versions, weight, verdict and why.

    >>> write_line({"endpoint": "e", "state": "idle", "from": "", "to": "", "step": 0, "steps": 0, "weight": 0.0,
    ...             "verdict": "running", "reason": "", "evidence": [], "tracks": []})
    'e: idle'
    """
    if status["state"] == "idle":
        return f"{status['endpoint']}: idle"
    versions = f"{status['from']} -> {status['to']}" if status["from"] else status["to"]
    step = f", step {status['step']}/{status['steps']}" if status["steps"] and status["state"] not in _ENDED else ""
    counts = ", ".join(
        f"{track['role']} {track['requests']} requests {track['errors']} errors" for track in status["tracks"]
    )
    return (
        f"{status['endpoint']}: {status['state']} {versions}{step}, weight {status['weight'] * 100:g} %, "
        f"verdict {status['verdict']}"
        + (f", {counts}" if counts else "")
        + (f": {status['reason']}" if status["reason"] else "")
    )


def write_report(status: dict[str, Any]) -> str:
    """A few lines, with the evidence."""
    lines = [write_line(status)]
    lines += [f"  {write_evidence(item)}" for item in status["evidence"]]
    if status["state"] not in _ENDED and status["next_look_at"]:
        lines.append(f"  next look in {max(0.0, status['next_look_at'] - time.time()):.0f} s")
    return "\n".join(lines)


def write_evidence(item: dict[str, Any]) -> str:
    """One metric in a line.

    >>> write_evidence({"metric": "errors", "bad_canary": 7, "bad_control": 2, "e_value": 812.5, "threshold": 300.0,
    ...                 "verdict": "fail", "detail": ""})
    'errors: fail, bad 7 (canary) 2 (control), e-value 812 of 300'
    """
    detail = f": {item['detail']}" if item["detail"] else ""
    if not item["threshold"]:  # judged by itself, not by counting
        return f"{item['metric']}: {item['verdict']}{detail}"
    return (
        f"{item['metric']}: {item['verdict']}, bad {item['bad_canary']} (canary) {item['bad_control']} (control), "
        f"e-value {_number(item['e_value'])} of {_number(item['threshold'])}{detail}"
    )


def draw(status: dict[str, Any], now: float) -> "Group":
    """The live view: versions with weights, counts and latencies; evidence per metric; the next look."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (status["endpoint"], "bold"),
        "  ",
        (status["state"], _STATES.get(status["state"], "cyan")),
        f"  {status['from'] or '(nothing)'} → {status['to'] or '(nothing)'}",
        f"  {status['strategy']}",
        f"  step {status['step']} of {status['steps']}" if status["steps"] else "",
        f"  {_duration(now - status['started_at'])}" if status["started_at"] and not status["ended_at"] else "",
    )
    tracks = Table("version", "role", "weight", "", "requests", "errors", "slow", "p50 ms", "p99 ms", box=box.SIMPLE)
    for track in status["tracks"]:
        tracks.add_row(
            track["version"],
            track["role"],
            f"{track['weight'] * 100:g} %",
            _bar(track["weight"], 20),
            f"{track['requests']:,}",
            _share(track["errors"], track["requests"]),
            _share(track["slow"], track["requests"]),
            _number(track["p50_ms"]),
            _number(track["p99_ms"]),
        )
    evidence = Table("evidence", "canary", "control", "e-value", "", "halts at", "verdict", "", box=box.SIMPLE)
    for item in status["evidence"]:
        counted = bool(item["threshold"])
        evidence.add_row(
            item["metric"],
            str(item["bad_canary"]) if counted else "",
            str(item["bad_control"]) if counted else "",
            _number(item["e_value"]) if counted else "",
            _bar(_progress(item), 12) if counted else "",
            _number(item["threshold"]) if counted else "",
            Text(item["verdict"], _COLOURS.get(item["verdict"], "")),
            item["detail"],
        )
    verdict = Text.assemble(("verdict  ", "dim"), (status["verdict"], _COLOURS.get(status["verdict"], "")))
    verdict.append(f"  {status['reason']}")
    parts: list[Text | Table] = [head, tracks, *([evidence] if status["evidence"] else []), verdict]
    if status["state"] not in _ENDED and status["next_look_at"]:
        parts.append(Text(f"next look in {max(0.0, status['next_look_at'] - now):.0f} s", "dim"))
    return Group(*parts)


def _progress(item: dict[str, Any]) -> float:
    """How near to halting, on a logarithmic scale: an e-value of 1 says nothing."""
    from math import log

    if not item["threshold"] or item["threshold"] <= 1 or item["e_value"] is None:
        return 0.0
    return min(1.0, max(0.0, log(max(item["e_value"], 1.0)) / log(item["threshold"])))


def _bar(share: float, width: int) -> str:
    filled = round(share * width)
    return "█" * filled + "·" * (width - filled)


def _share(count: int, total: int) -> str:
    return f"{count:,}" + (f" ({count / total:.2%})" if count and total else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
