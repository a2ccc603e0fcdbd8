"""Log lines: JSON objects for machines, short text for a terminal. One line per event, never a payload or a secret."""

import sys
import time
from typing import IO, Literal

import msgspec

from hyperion.schema.events import RequestRecord

Format = Literal["json", "text", "auto"]


class EventLog:
    """Writes events of one process to a stream, one line each. A reader that is gone or full never stops the writer."""

    def __init__(self, role: str, form: Format = "auto", stream: IO[str] | None = None) -> None:
        self._role = role
        self._stream = stream if stream is not None else sys.stderr
        self._text = form == "text" or (form == "auto" and self._stream.isatty())

    def write(self, level: Literal["info", "warning", "error"], event: str, **fields: str | int | float | None) -> None:
        """One event; `fields` are its data, without personal data or payloads."""
        now = time.time()
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
