"""Rules for every test: no hidden skips in CI, no deadlines on a shared machine for properties."""

import os
from collections.abc import Generator

# Before numpy is imported: on small matrices its threads only spin, and the processes of the suite fill the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

import hyperion
from hyperion.cli.checks import is_compiled
from tests.services import HARDWARE

LONGEST_ID = 60
REQUIRE_SERVICES = os.environ.get("HYPERION_REQUIRE_SERVICES") == "1"
EXPECT_COMPILED = os.environ.get("HYPERION_EXPECT_COMPILED") == "1"

# What lands must not depend on luck: CI draws the same examples each time, and fewer; a developer others each time. The
# compiled form is to do what the interpreted one was seen to do.
EXAMPLES = 25 if EXPECT_COMPILED else 50 if REQUIRE_SERVICES else 100
settings.register_profile(
    "hyperion", deadline=None, print_blob=True, max_examples=EXAMPLES, derandomize=REQUIRE_SERVICES
)
settings.load_profile("hyperion")


def pytest_configure() -> None:
    """Who runs the tests on the compiled hot path must not get the source tree instead."""
    if is_compiled() != EXPECT_COMPILED:
        raise pytest.UsageError(
            f"hyperion comes from {hyperion.__file__}, where the hot path is "
            f"{'compiled' if is_compiled() else 'interpreted'}; run `make test` or `make test-compiled`"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Compiled modules have neither docstrings with examples nor names that a test may replace."""
    if EXPECT_COMPILED:
        unfit = [item for item in items if item.get_closest_marker("interpreted")]
        config.hook.pytest_deselected(items=unfit)
        items[:] = [item for item in items if not item.get_closest_marker("interpreted")]


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
