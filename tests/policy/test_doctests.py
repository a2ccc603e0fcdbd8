"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import hyperion.policy

MODULES = sorted(
    [module.name for module in pkgutil.walk_packages(hyperion.policy.__path__, "hyperion.policy.") if not module.ispkg]
    + ["hyperion.gateway.http.known", "hyperion.gateway.http.targets", "hyperion.gateway.admit"]
)


@pytest.mark.interpreted
@pytest.mark.parametrize("name", MODULES)
def test_every_example_gives_what_it_says(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted
    assert not outcome.failed
