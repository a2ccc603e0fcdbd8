"""Rules for every test: no hidden skips in CI, no deadlines on a shared machine for properties."""

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.services import HARDWARE

settings.register_profile("hyperion", deadline=None, print_blob=True)
settings.load_profile("hyperion")

LONGEST_ID = 60
REQUIRE_SERVICES = os.environ.get("HYPERION_REQUIRE_SERVICES") == "1"


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that says what is missing, unless it is about hardware or an expected failure."""
    if not REQUIRE_SERVICES or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(HARDWARE):
        report.outcome = "failed"
        report.longrepr = f"HYPERION_REQUIRE_SERVICES=1 forbids this skip: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report)
    return report


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long values by their argument: a test's name must be the same in every process that runs a part of them."""
    return argname if isinstance(val, bytes | str) and len(val) > LONGEST_ID else None
