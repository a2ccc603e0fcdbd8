"""The quick reader of `serve`'s arguments must understand nothing that click would understand differently."""

from unittest import mock

import click
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hyperion.cli import serve
from hyperion.cli.commands.serve import command
from hyperion.cli.quick import parse_serve
from hyperion.cli.settings import BY_KEY, SETTINGS, parse_value
from hyperion.schema.errors import InvalidConfig

WORDS = st.sampled_from(
    [
        *(f"--{setting.name}" for setting in SETTINGS),
        *("--no-grpc", "--open", "--port=9", "--host=", "--port", "1", "0.5", "text", "m.onnx", "-5", "-h", "--", "-"),
    ]
)


def read_with_click(arguments: list[str]) -> tuple[tuple[str, ...], dict[str, object]] | None:
    """What click makes of the same line, or None where it ends in an error or a help page."""
    seen: list[tuple[tuple[str, ...], dict[str, object]]] = []

    def keep(paths: tuple[str, ...], flags: dict[str, object]) -> int:
        seen.append((paths, {key: value for key, value in flags.items() if value is not None}))
        return 0

    with mock.patch.object(serve, "serve_here", keep):
        CliRunner().invoke(command, arguments)
    return seen[0] if seen else None


def read_quickly(arguments: list[str]) -> tuple[tuple[str, ...], dict[str, object]] | None:
    """What the quick reader makes of it, with the values' types put right as `resolve` does."""
    parsed = parse_serve(arguments)
    if parsed is None:
        return None
    try:
        return parsed[0], {key: parse_value(BY_KEY[key], value, "") for key, value in parsed[1].items()}
    except InvalidConfig:
        return None


@given(st.lists(WORDS, max_size=6))
def test_what_both_understand_they_understand_alike(arguments: list[str]) -> None:
    quick, slow = read_quickly(arguments), read_with_click(arguments)
    assert quick is None or slow is None or quick == slow
    # Only a line that both refuse, or that needs click's finer points, may be left to click.
    assert quick is not None or slow is None or any(word in ("--", "-") or word[:1] == "-" for word in arguments)


def test_the_usual_lines_need_no_click() -> None:
    line = ["a.onnx", "b/", "--port", "0", "--replicas=2", "--access-log", "--open", "--home", "/tmp/x"]
    assert parse_serve(line) is not None
    assert read_quickly(line) == read_with_click(line)
    assert isinstance(command, click.Command)
