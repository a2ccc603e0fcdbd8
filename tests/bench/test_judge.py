"""What counts as bearing overload."""

from typing import Any

import pytest

from bench.latency import judge

GOOD: dict[str, Any] = {
    "goodput_share": 0.9,
    "admitted_p99_ms": 1000.0,
    "refused_p99_ms": 99.9,
    "retry_after_share": 1.0,
    "deadline_ms": 1000.0,
    "memory_mb": {"first_third": 200.0, "last_third": 210.0},
}


def test_each_line_is_passed_at_its_limit() -> None:
    assert [verdict["ok"] for verdict in judge(GOOD)] == [True] * 4


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (0, {"goodput_share": 0.899}),
        (1, {"admitted_p99_ms": 1000.1}),
        (1, {"admitted_p99_ms": None}),
        (2, {"refused_p99_ms": 100.0}),
        (2, {"refused_p99_ms": None}),
        (2, {"retry_after_share": 0.999}),
        (3, {"memory_mb": {"first_third": 200.0, "last_third": 210.1}}),
    ],
)
def test_a_figure_beyond_its_limit_fails_its_line_and_no_other(line: int, change: dict[str, Any]) -> None:
    assert [verdict["ok"] for verdict in judge(GOOD | change)] == [index != line for index in range(4)]
