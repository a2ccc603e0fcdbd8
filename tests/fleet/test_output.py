"""What children print: bounded, prefixed, and never in anybody's way."""

import os
from collections.abc import Iterator

import pytest

from hyperion.fleet.messages import ChildSpec
from hyperion.fleet.output import LogWriter, OutputPump, format_line

RATE = 1000


class Printer:
    """A child's output pipe, and what became of what was written into it."""

    def __init__(self, output_bytes_s: int) -> None:
        self.out, self.end = os.pipe()
        os.set_blocking(self.out, False)
        self.lines: list[bytes] = []
        spec = ChildSpec("model", ("x",), output_bytes_s=output_bytes_s)
        self.pump = OutputPump(spec, "text", self.lines.append, 0.0)

    def print(self, data: bytes, now_s: float) -> float | None:
        os.write(self.end, data)
        return self.pump.read(self.out, now_s)

    @property
    def text(self) -> bytes:
        return b"".join(self.lines)


@pytest.fixture
def limited() -> Iterator[Printer]:
    printer = Printer(RATE)
    yield printer
    os.close(printer.out)


def test_lines_are_prefixed_and_incomplete_ones_wait(limited: Printer) -> None:
    assert limited.print(b"one\ntw", 0.0) == 0.0
    assert limited.text == b"model | one\n"
    limited.print(b"o\n", 0.0)
    assert limited.text == b"model | one\nmodel | two\n"


def test_what_a_model_prints_is_shown_without_personal_data(limited: Printer) -> None:
    limited.print(b"scoring jane@example.com, 4111 1111 1111 1111\n", 0.0)
    assert limited.text == b"model | scoring [email], [card]\n"


def test_no_half_of_an_address_stays_where_a_long_line_is_cut() -> None:
    printer = Printer(1 << 20)
    printer.print(b"x" * ((8 << 10) - 9) + b" jane.doe@example.com\n", 0.0)
    assert b"jane" not in printer.text
    os.close(printer.out)


def test_what_a_process_of_ours_prints_beside_its_events_is_looked_at() -> None:
    printer = Printer(0)
    event = b'{"time":"2026-11-21T16:00:00Z","event":"request"}\n'
    printer.print(event, 0.0)
    printer.print(event + b"Traceback: <jane@example.com>\r\n" + event, 0.0)
    assert printer.text == event + event + b"Traceback: <[email]>\r\n" + event
    os.close(printer.out)


def test_the_last_words_are_shown_without_their_line_end(limited: Printer) -> None:
    limited.print(b"dying", 0.0)
    os.close(limited.end)
    assert limited.pump.read(limited.out, 0.0) is None
    assert limited.text == b"model | dying\n"


def test_our_own_processes_pass_as_they_are() -> None:
    printer = Printer(0)
    printer.print(b'{"a":1}\n{"b', 0.0)
    assert printer.text == b'{"a":1}\n'
    assert printer.pump.read(printer.out, 0.0) == 0.0  # nothing there: no news, no harm


def test_what_exceeds_the_rate_is_dropped_counted_and_slowed(limited: Printer) -> None:
    pauses = [limited.print(b"x" * 99 + b"\n", 0.0) for _ in range(60)]
    assert pauses[0] == 0.0
    assert pauses[-1] is not None
    assert pauses[-1] > 0.0
    assert len(limited.text) < 60 * 100
    limited.print(b"back\n", 10.0)
    assert limited.text.endswith(b"model | ... 2000 bytes of output dropped: over 1000 bytes/s\nmodel | back\n")


def test_a_line_without_end_is_cut(limited: Printer) -> None:
    limited.print(b"y" * 9000, 100.0)
    assert b"model | " in limited.text


def test_a_json_log_stays_json() -> None:
    assert format_line("json", "model", 'say "hi"') == b'{"process":"model","message":"say \\"hi\\""}\n'


def test_a_reader_that_stopped_reading_blocks_nobody_and_learns_what_it_missed() -> None:
    out, end = os.pipe()
    writer = LogWriter(end, limit_bytes=1000)
    block = b"z" * (1 << 20) + b"\n"
    for _ in range(5):  # far more than the pipe holds; this returns all the same
        writer.write(block)
        writer.write(b"a" * 499 + b"\n")
    seen = b""
    while b"\n" not in seen[-1:] or seen.count(b"\n") < 2:
        seen += os.read(out, 1 << 16)
    writer.write(b"last\n")
    writer.close(5.0)
    os.close(end)
    while data := os.read(out, 1 << 16):
        seen += data
    os.close(out)
    assert b"bytes of log dropped: nobody read them\nlast\n" in seen


def test_a_reader_that_is_gone_blocks_nobody() -> None:
    out, end = os.pipe()
    writer = LogWriter(end)
    os.close(out)
    writer.write(b"into the void\n")
    writer.close(5.0)
    os.close(end)
