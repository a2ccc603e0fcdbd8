"""Log lines: JSON objects for machines, short text for a terminal. One line per event, never a payload or a secret.

What a caller, a model or a library wrote may hold personal data all the same; every text but the names of ours is
looked at by all detectors (`policy/redact`), here, so that no writer of a line can forget it.
"""

import sys
import time
from typing import IO, Final, Literal

import msgspec

from hyperion.policy.redact import redact_text
from hyperion.schema.events import RequestRecord

Format = Literal["json", "text", "auto"]
# Fields whose texts are ours, or were looked at where they came in (request ids).
NAMES: Final = frozenset(("request_id", "endpoint", "version", "protocol", "code", "replica", "key"))


class EventLog:
    """Writes events of one process to a stream, one line each. A reader that is gone or full never stops the writer."""

    def __init__(self, role: str, form: Format = "auto", stream: IO[str] | None = None) -> None:
        self._role = role
        self._stream = stream if stream is not None else sys.stderr
        self._text = form == "text" or (form == "auto" and self._stream.isatty())

    def write(self, level: Literal["info", "warning", "error"], event: str, **fields: str | int | float | None) -> None:
        """One event; `fields` are its data, without payloads. Personal data in their texts is replaced by its kind."""
        now = time.time()
        event = redact_text(event)
        for name, value in fields.items():
            if isinstance(value, str) and name not in NAMES:
                fields[name] = redact_text(value)
        if self._text:
            clock = time.strftime("%H:%M:%S", time.localtime(now))
            tail = " ".join(f"{name}={value}" for name, value in fields.items() if value not in ("", None))
            line = _printable(f"{clock} {level:<7} {self._role}: {event} {tail}".rstrip())
        else:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
            known = {"time": stamp, "level": level, "role": self._role, "event": event}
            data = known | {k: v for k, v in fields.items() if v not in ("", None)}
            try:
                line = msgspec.json.encode(data).decode()
            except UnicodeEncodeError:  # half of a surrogate pair, in a message that quotes a file's name
                line = msgspec.json.encode(
                    {k: _printable(v) if isinstance(v, str) else v for k, v in data.items()}
                ).decode()
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return  # nobody reads the log any more; serving goes on

    def request(self, record: RequestRecord) -> None:
        """One finished request."""
        level: Literal["info", "error"] = "error" if record.error and record.code.startswith("5") else "info"
        self.write(
            level,
            "request",
            request_id=record.request_id,
            endpoint=record.model,
            version=record.version,
            protocol=record.protocol,
            code=record.code,
            tenant=record.tenant,
            key=record.key,
            rows=record.rows,
            total_ms=round(record.total_ns / 1e6, 3),
            queue_ms=round(record.queue_ns / 1e6, 3),
            compute_ms=round(record.compute_ns / 1e6, 3),
            error=record.error,
        )


def _printable(text: str) -> str:
    """The text without line ends and terminal commands: a message may quote what a caller or a model said."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
