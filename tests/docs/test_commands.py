"""Every command and every resource in the documentation is one that this Hyperion takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs.reference_resources import KINDS, resource_sections
from hyperion.cli.group import cli
from hyperion.store.resource_yaml import read_resources

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GENERATED = {"configuration.md"}  # its blocks are usages, not commands
ENDS = {"|", ">", ">>", "<", "&", "&&", "||", ";"}
NESTED = "apiVersion: hyperion/v1\nkind: Endpoint\nmetadata: {name: a}\nspec:\n  model: a@1\n"


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language in a page; "" are those without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """The lines that run `hyperion`: in shell blocks, and behind a prompt in others; and those that the text names,
    which may lack their arguments (False)."""
    for text in blocks(page, "sh"):
        joined = text.replace("\\\n", " ").splitlines()
        yield from ((line, True) for line in joined if line.startswith("hyperion "))
    for text in blocks(page, ""):
        yield from ((line[2:], True) for line in text.splitlines() if line.startswith("$ hyperion "))
    for quoted in re.findall(r"`(hyperion [a-z][^`]*)`", page.read_text()):
        if "…" not in quoted and "|" not in quoted:
            yield " ".join(quoted.split()), False


LINES = [
    pytest.param(line, whole, id=f"{page.name}-{number}")
    for page in PAGES
    if page.name not in GENERATED
    for number, (line, whole) in enumerate(dict.fromkeys(commands(page)))
]
RESOURCES = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "yaml"))
    if "kind:" in text or text.startswith("rollout:")
]


@pytest.mark.parametrize(("line", "whole"), LINES)
def test_a_command_has_these_options_and_arguments(line: str, whole: bool) -> None:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    words = words[1 : next((at for at, word in enumerate(words) if word in ENDS), len(words))]
    check(cli, "hyperion", words, whole=whole)


def check(command: click.Command, name: str, words: list[str], *, whole: bool) -> None:
    """Parse as click would, but open no file and call nothing."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        _, rest, _ = command.make_parser(context).parse_args(list(words))
        if not rest:
            assert not whole, f"{name} needs a subcommand"
            return
        child = command.get_command(context, rest[0])
        assert child is not None, f"{name} has no {rest[0]!r}"
        check(child, rest[0], rest[1:], whole=whole)
        return
    if "--help" in words:
        return
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest, f"{name} does not take {rest}"
    for option in command.params:
        value = values.get(option.name or "")
        if option.required and whole:
            assert value, f"{name} needs {option.name}"
        if isinstance(option.type, click.Choice) and isinstance(value, str):
            option.type.convert(value, option, context)


@pytest.mark.parametrize("text", RESOURCES)
def test_a_resource_can_be_applied(text: str, tmp_path: Path) -> None:
    if "kind:" not in text:
        text = NESTED + "".join(f"  {line}\n" for line in text.splitlines())
    (tmp_path / "a.yaml").write_text(text)
    assert len(read_resources([str(tmp_path / "a.yaml")])) == text.count("apiVersion:")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_resource_has_its_meaning_and_no_other(kind: str) -> None:
    shown = {f"{path}.{row[0]}".strip(".").replace("`", "") for path, rows in resource_sections(kind) for row in rows}
    assert shown == set(KINDS[kind][1])
