"""What the values of `spec.rollout` may be. Called by `endpoint`; pure."""

import re
from typing import Any

from hyperion.schema.resource import Halt, Rollout, Step
from hyperion.store.checks.ranges import MONTH_S, Path, Refuse, check_above, check_between, check_within

MAX_STEPS = 64
MAX_QUERIES = 16
MAX_SMOKE_REQUESTS = 100
QUALITY_METRICS = ("accuracy",)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
# Which strategies a part of `rollout` is for: what cannot come true is refused, never ignored.
_FIELDS_OF: dict[str, tuple[str, ...]] = {
    "steps": ("canary",),
    "smoke": ("blue-green",),
    "percent": ("champion-challenger",),
    "sticky": ("canary", "champion-challenger"),
}


def idle_fields(strategy: str) -> list[str]:
    """The parts of `rollout` that mean nothing to a strategy.

    >>> idle_fields("canary")
    ['smoke', 'percent']
    """
    return [field for field, strategies in _FIELDS_OF.items() if strategy not in strategies]


def check_rollout(rollout: Rollout, given: dict[str, Any], refuse: Refuse) -> None:
    """Refuse values that are out of range, contradict each other or mean nothing to the strategy. `given` are the plain
    values that it was made from."""
    at: Path = ("spec", "rollout")
    for field in idle_fields(rollout.strategy):
        if given.get(field) is not None:
            only = " and ".join(_FIELDS_OF[field])
            raise refuse((*at, field), f"means nothing with strategy {rollout.strategy} (only with {only})")
    check_between(rollout.alpha, 0, 0.5, (*at, "alpha"), refuse)
    check_between(rollout.percent, 0, 100, (*at, "percent"), refuse)
    check_within(rollout.standby_s, 0, MONTH_S, (*at, "standby_s"), refuse)
    check_within(rollout.hold_s, 0, MONTH_S, (*at, "hold_s"), refuse)
    check_within(rollout.deadline_s, 1, 12 * MONTH_S, (*at, "deadline_s"), refuse)
    if rollout.strategy in _FIELDS_OF["steps"]:
        _check_steps(rollout, refuse)
    shadow = rollout.shadow
    if shadow is not None:
        here: Path = (*at, "shadow")
        check_above(shadow.percent, 0, 100, (*here, "percent"), refuse)
        check_within(shadow.min_pairs, 1, 10**9, (*here, "min_pairs"), refuse)
        check_within(shadow.max_disagreement, 0, 1, (*here, "max_disagreement"), refuse)
    if rollout.sticky is not None:
        if bool(rollout.sticky.header) == bool(rollout.sticky.input):
            raise refuse((*at, "sticky"), "give either header or input")
        if rollout.sticky.header and not _HEADER.fullmatch(rollout.sticky.header):
            raise refuse((*at, "sticky", "header"), f"{rollout.sticky.header[:80]!r} is no header's name")
    check_within(rollout.smoke.count, 1, MAX_SMOKE_REQUESTS, (*at, "smoke", "count"), refuse)
    if len(rollout.smoke.requests) > MAX_SMOKE_REQUESTS:
        raise refuse((*at, "smoke", "requests"), f"at most {MAX_SMOKE_REQUESTS}")
    _check_halt(rollout.halt, (*at, "halt"), refuse)
    if rollout.halt.quality is not None and shadow is None and rollout.strategy != "shadow":
        why = "is judged on pairs of predictions, which only a shadow makes; give rollout.shadow, too"
        raise refuse((*at, "halt", "quality"), why)


def _check_steps(rollout: Rollout, refuse: Refuse) -> None:
    at: Path = ("spec", "rollout", "steps")
    if not 1 <= len(rollout.steps) <= MAX_STEPS:
        raise refuse(at, f"expected 1 to {MAX_STEPS} steps, got {len(rollout.steps)}")
    last = 0.0
    for index, step in enumerate(rollout.steps):
        here = (*at, index)
        percent = step.percent if isinstance(step, Step) else step
        if isinstance(step, Step):
            if step.pause and step.percent:
                raise refuse(here, "a step either pauses or has a percent; make two steps of it")
            check_within(step.hold_s, 0, MONTH_S, (*here, "hold_s"), refuse)
            check_within(step.min_requests, 0, 10**9, (*here, "min_requests"), refuse)
            if step.pause:
                continue
        if not 0 < percent <= 100:
            raise refuse(here, f"expected a percentage above 0, up to 100, got {percent:g}")
        if percent <= last:
            raise refuse(here, f"expected more than the step before ({last:g}), got {percent:g}")
        last = percent


def _check_halt(halt: Halt, at: Path, refuse: Refuse) -> None:
    for name, limit in (("errors", halt.errors), ("slow", halt.slow)):
        if limit is not None:
            check_within(limit.ratio, 1, 1_000, (*at, name, "ratio"), refuse)
    if halt.slow is not None:
        check_between(halt.slow.quantile, 0, 1, (*at, "slow", "quantile"), refuse)
    if halt.drift is not None:
        check_between(halt.drift.distance, 0, 1, (*at, "drift", "distance"), refuse)
    if halt.quality is not None:
        check_between(halt.quality.margin, 0, 1, (*at, "quality", "margin"), refuse)
        if halt.quality.metric not in QUALITY_METRICS:
            known = " or ".join(QUALITY_METRICS)
            raise refuse((*at, "quality", "metric"), f"expected {known}, got {halt.quality.metric[:80]!r}")
    if len(halt.query) > MAX_QUERIES:
        raise refuse((*at, "query"), f"at most {MAX_QUERIES}")
    for index, query in enumerate(halt.query):
        here = (*at, "query", index)
        if not query.promql.strip():
            raise refuse((*here, "promql"), "expected a PromQL expression")
        if query.max is None and query.min is None:
            raise refuse(here, "give max, min or both")
        if query.max is not None and query.min is not None and query.max < query.min:
            raise refuse((*here, "max"), f"expected min ({query.min:g}) or more, got {query.max:g}")
        if query.provider and not query.provider.startswith(("http://", "https://")):
            raise refuse((*here, "provider"), f"expected an http:// or https:// URL, got {query.provider[:80]!r}")
        check_within(query.interval_s, 1, 86_400, (*here, "interval_s"), refuse)
