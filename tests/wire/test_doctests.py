"""The examples in the docstrings of the HTTP codecs are true."""

import doctest
import importlib

import pytest


@pytest.mark.interpreted
@pytest.mark.parametrize("name", ["tensor", "json.depth", "json.large", "oip.large", "sse"])
def test_examples_in_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"hyperion.wire.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
