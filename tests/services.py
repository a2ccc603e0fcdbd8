"""What a test needs that may be absent: a framework, a program. Absent means skipped with a reason, and failed in CI.

With HYPERION_REQUIRE_SERVICES=1 every skip is a failure (see conftest.py), but for those made by `needs_hardware`.
"""

import importlib
import importlib.util
import os
import shutil
from types import ModuleType

import pytest

HARDWARE = "hardware:"
POSTGRES = os.environ.get("HYPERION_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")


def needs_module(name: str, *, extra: str) -> ModuleType:
    """The module, or a skip that names the extra that brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        pytest.skip(f"needs {name} (pip install 'hyperion-inference[{extra}]'): {missing}", allow_module_level=True)


def needs_installed(name: str, *, extra: str) -> None:
    """As `needs_module`, for what another process will import and this one must not."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name} (pip install 'hyperion-inference[{extra}]')", allow_module_level=True)


def needs_program(name: str, *, package: str) -> str:
    """The program's path, or a skip that names the package that brings it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name} (install the package {package})", allow_module_level=True)
    return path


def needs_postgres() -> str:
    """The URL of a PostgreSQL database in which schemas may be made, or a skip that says how to give one."""
    psycopg = needs_module("psycopg", extra="postgres")
    try:
        psycopg.connect(POSTGRES.replace("+psycopg", ""), connect_timeout=3).close()
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        pytest.skip(f"needs PostgreSQL at 127.0.0.1:5432 (user postgres, trust) or HYPERION_TEST_POSTGRES: {reason}")
    return POSTGRES


def needs_hardware(what: str, *, present: bool) -> None:
    """Skip, in CI too, where this machine cannot have what the test is about."""
    if not present:
        pytest.skip(f"{HARDWARE} needs {what}", allow_module_level=True)
