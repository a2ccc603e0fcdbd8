"""Log lines: one per event, whole for a machine, short for a terminal, and never in the way of serving."""

import io
import json
import sys
from typing import IO

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperion.schema.events import RequestRecord
from hyperion.telemetry.logs import EventLog, Format

RECORD = RequestRecord("id-1", "fraud", "3", "http", "200", 7_123_456, 2_000_000, 4_000_000, 5)
TEXT = st.text(max_size=20)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


def written(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


def test_a_machine_gets_one_object_per_line() -> None:
    stream = io.StringIO()
    log = EventLog("gateway 0", "json", stream)
    log.write("warning", "replica lost", replica="m@1.g1.0", rows_held=0, empty="", nothing=None)
    log.request(RECORD)
    first, second = map(json.loads, written(stream).splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning", "role": "gateway 0", "event": "replica lost", "replica": "m@1.g1.0", "rows_held": 0,
    }  # fmt: skip
    assert (second["level"], second["event"], second["endpoint"], second["total_ms"]) == (
        "info",
        "request",
        "fraud",
        7.123,
    )
    assert "error" not in second


def test_whose_a_request_was_is_told_where_it_is_known_and_the_id_of_a_key_is_nobodys_number() -> None:
    stream = io.StringIO()
    log = EventLog("gateway 0", "json", stream)
    digits = "4111111111111111"  # a key's id may look like the number of a card
    log.request(msgspec.structs.replace(RECORD, tenant="acme", key=digits))
    log.request(msgspec.structs.replace(RECORD, tenant="ada@example.com"))
    log.request(RECORD)
    first, second, third = map(json.loads, written(stream).splitlines())
    assert (first["tenant"], first["key"]) == ("acme", digits)
    assert "ada" not in second["tenant"]
    assert {"tenant", "key"}.isdisjoint(third)


@pytest.mark.parametrize(
    ("code", "error", "level"),
    [("200", "", "info"), ("404", "no such model", "info"), ("500", "raised", "error"), ("503", "full", "error")],
)
def test_only_a_failure_of_ours_or_of_the_model_is_an_error(code: str, error: str, level: str) -> None:
    stream = io.StringIO()
    EventLog("gateway 0", "json", stream).request(RequestRecord("id", "m", "1", "http", code, 1, error=error))
    assert json.loads(written(stream))["level"] == level


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("text", io.StringIO(), False),
        ("json", Terminal(), True),
    ],
)
def test_a_terminal_gets_text_unless_told_otherwise(form: Format, stream: IO[str], is_json: bool) -> None:
    EventLog("gateway 0", form, stream).write("info", "ready", port=8080, host="")
    line = written(stream)
    assert line.startswith("{") is is_json
    if not is_json:
        assert line.endswith("info    gateway 0: ready port=8080\n")


def test_without_a_stream_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    EventLog("gateway 0", "json", sys.stderr).write("info", "one")
    EventLog("gateway 0", "json").write("info", "two")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["one", "two"]


@given(TEXT, TEXT, st.sampled_from(["json", "text"]))
def test_whatever_an_error_says_an_event_is_one_line(event: str, message: str, form: Format) -> None:
    stream = io.StringIO(newline="")
    EventLog("gateway 0", form, stream).write("error", event, error=message)
    line = written(stream)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    if form == "json":
        assert json.loads(line).get("error", "") == message
    else:
        assert line[:-1].isprintable()


@pytest.mark.parametrize("form", ["json", "text"])
def test_text_that_is_no_unicode_is_logged_all_the_same(form: Format) -> None:
    stream = io.StringIO()
    EventLog("gateway 0", form, stream).write("error", "model raised", error="no file \udcff")
    assert "no file" in written(stream)
    written(stream).encode()


@pytest.mark.parametrize("stream", [Broken(), io.TextIOWrapper(io.BytesIO(), "ascii")])
def test_a_reader_that_is_gone_does_not_stop_the_writer(stream: IO[str]) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.close()
    EventLog("gateway 0", "json", stream).write("info", "ready")


@pytest.mark.parametrize("form", ["json", "text"])
def test_personal_data_is_in_no_line_whoever_wrote_it(form: Format) -> None:
    stream = io.StringIO()
    log = EventLog("gateway 0", form, stream)
    log.write(
        "error", "jane@example.com left", error="ValueError: '4111 1111 1111 1111'", reason="call +49 171 1234567"
    )
    log.request(
        RequestRecord("id-1", "fraud", "3", "http", "400", 1, error='input "DE89370400440532013000" is unknown')
    )
    line = written(stream)
    assert line.count("[") == 4
    for mark in ("[email] left", "'[card]'", "call [phone]", "[iban]"):
        assert mark in line


def test_the_names_of_ours_stay_as_they_are() -> None:
    stream = io.StringIO()
    EventLog("gateway 0", "json", stream).write("info", "ready", endpoint="4111111111111111", request_id="12345678Z")
    assert json.loads(written(stream))["endpoint"] == "4111111111111111"
