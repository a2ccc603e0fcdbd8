"""What the values of a resource may be. Called by `resource_yaml`; pure: raises or returns nothing.

Each check names the field by its path, so that the reader can say in which line it is.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from hyperion.schema.errors import InvalidResource
from hyperion.schema.resource import Batching, Endpoint, Halt, Rollout, Slo, Step
from hyperion.store.names import is_valid_name
from hyperion.store.options import MAX_BATCH_SIZE, MAX_BUCKETS, MAX_REPLICAS

MAX_STEPS = 64
MAX_LABELS = 64
MAX_LABEL_TEXT = 256
MAX_QUERIES = 16
MAX_SMOKE_REQUESTS = 100
QUALITY_METRICS = ("accuracy",)
MONTH_S = 30 * 86_400.0
Path = tuple[str | int, ...]
Refuse = Callable[[Path, str], InvalidResource]
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_QUANTILE = re.compile(r"p[0-9]{1,2}(\.[0-9]{1,3})?")
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


def check_endpoint(resource: Endpoint, given: dict[str, Any], refuse: Refuse) -> None:
    """Refuse values that are out of range, contradict each other or are not done yet. `given` are the plain values
    that the resource was made from: some fields may be there only with some strategies. Raises what `refuse` makes."""
    for path, number in _numbers(resource, ()):
        if not math.isfinite(number):
            raise refuse(path, f"expected a finite number, got {number}")
    _check_metadata(resource, refuse)
    spec = resource.spec
    name, at, reference = spec.model.partition("@")
    if not (is_valid_name(name) and at and is_valid_name(reference)):
        raise refuse(("spec", "model"), f"expected NAME@VERSION or NAME@ALIAS, got {spec.model[:80]!r}")
    replicas = spec.replicas
    at_replicas: Path = ("spec", "replicas")
    if replicas.min == 0:
        raise refuse((*at_replicas, "min"), "0 (scale to zero) is not done by this version; expected 1 or more")
    _within(replicas.min, 1, MAX_REPLICAS, (*at_replicas, "min"), refuse)
    if replicas.max not in (0, replicas.min):
        raise refuse((*at_replicas, "max"), "autoscaling is not done by this version; leave max out or let it be min")
    _within(spec.resources.threads, 0, 1_024, ("spec", "resources", "threads"), refuse)
    _within(spec.resources.memory_mb, 0, 1 << 24, ("spec", "resources", "memory_mb"), refuse)
    if spec.resources.gpu > 1:
        raise refuse(("spec", "resources", "gpu"), "more than one per replica is not done by this version")
    _within(spec.resources.gpu, 0, 1, ("spec", "resources", "gpu"), refuse)
    _check_batching(spec.batching, refuse)
    _within(spec.deadline_ms, 1, 3_600_000, ("spec", "deadline_ms"), refuse)
    _check_slo(spec.slo, refuse)
    _check_rollout(spec.rollout, _under(given, "spec", "rollout"), refuse)
    _within(spec.log.sample, 0, 1, ("spec", "log", "sample"), refuse)


def _check_metadata(resource: Endpoint, refuse: Refuse) -> None:
    metadata = resource.metadata
    if not is_valid_name(metadata.name):
        expected = "1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit"
        raise refuse(("metadata", "name"), f"expected {expected}, got {metadata.name[:80]!r}")
    if len(metadata.labels) > MAX_LABELS:
        raise refuse(("metadata", "labels"), f"at most {MAX_LABELS}, got {len(metadata.labels)}")
    for key, text in metadata.labels.items():
        if not is_valid_name(key.replace("/", "-", 1)) or len(text) > MAX_LABEL_TEXT:
            raise refuse(("metadata", "labels", key), f"expected a plain name and at most {MAX_LABEL_TEXT} characters")


def _check_batching(batching: Batching, refuse: Refuse) -> None:
    at: Path = ("spec", "batching")
    _within(batching.max_size, 1, MAX_BATCH_SIZE, (*at, "max_size"), refuse)
    _within(batching.max_delay_ms, 0, 1_000, (*at, "max_delay_ms"), refuse)
    if len(batching.buckets) > MAX_BUCKETS:
        raise refuse((*at, "buckets"), f"at most {MAX_BUCKETS}, got {len(batching.buckets)}")
    for index, size in enumerate(batching.buckets):
        if not 1 <= size <= batching.max_size:
            raise refuse((*at, "buckets", index), f"expected 1 to max_size ({batching.max_size}), got {size}")


def _check_slo(slo: Slo, refuse: Refuse) -> None:
    at: Path = ("spec", "slo")
    _between(slo.availability, 0, 100, (*at, "availability"), refuse)
    for name, limit_ms in slo.latency_ms.items():
        here = (*at, "latency_ms", name)
        if not _QUANTILE.fullmatch(name) or float(name[1:]) <= 0:
            raise refuse(here, f"expected a quantile's name like p95 or p99.9, got {name[:80]!r}")
        if limit_ms <= 0:
            raise refuse(here, f"expected milliseconds above 0, got {limit_ms:g}")
    _within(slo.window_days, 1, 90, (*at, "window_days"), refuse)


def _check_rollout(rollout: Rollout, given: dict[str, Any], refuse: Refuse) -> None:
    at: Path = ("spec", "rollout")
    for field in idle_fields(rollout.strategy):
        if given.get(field) is not None:
            only = " and ".join(_FIELDS_OF[field])
            raise refuse((*at, field), f"means nothing with strategy {rollout.strategy} (only with {only})")
    _between(rollout.alpha, 0, 0.5, (*at, "alpha"), refuse)
    _between(rollout.percent, 0, 100, (*at, "percent"), refuse)
    _within(rollout.standby_s, 0, MONTH_S, (*at, "standby_s"), refuse)
    _within(rollout.hold_s, 0, MONTH_S, (*at, "hold_s"), refuse)
    _within(rollout.deadline_s, 1, 12 * MONTH_S, (*at, "deadline_s"), refuse)
    if rollout.strategy in _FIELDS_OF["steps"]:
        _check_steps(rollout, refuse)
    shadow = rollout.shadow
    if shadow is not None:
        here: Path = (*at, "shadow")
        if not 0 < shadow.percent <= 100:
            raise refuse((*here, "percent"), f"expected above 0, up to 100, got {shadow.percent:g}")
        _within(shadow.min_pairs, 1, 10**9, (*here, "min_pairs"), refuse)
        _within(shadow.max_disagreement, 0, 1, (*here, "max_disagreement"), refuse)
    if rollout.sticky is not None:
        if bool(rollout.sticky.header) == bool(rollout.sticky.input):
            raise refuse((*at, "sticky"), "give either header or input")
        if rollout.sticky.header and not _HEADER.fullmatch(rollout.sticky.header):
            raise refuse((*at, "sticky", "header"), f"{rollout.sticky.header[:80]!r} is no header's name")
    _within(rollout.smoke.count, 1, MAX_SMOKE_REQUESTS, (*at, "smoke", "count"), refuse)
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
            _within(step.hold_s, 0, MONTH_S, (*here, "hold_s"), refuse)
            _within(step.min_requests, 0, 10**9, (*here, "min_requests"), refuse)
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
            _within(limit.ratio, 1, 1_000, (*at, name, "ratio"), refuse)
    if halt.slow is not None:
        _between(halt.slow.quantile, 0, 1, (*at, "slow", "quantile"), refuse)
    if halt.drift is not None:
        _between(halt.drift.distance, 0, 1, (*at, "drift", "distance"), refuse)
    if halt.quality is not None:
        _between(halt.quality.margin, 0, 1, (*at, "quality", "margin"), refuse)
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
        _within(query.interval_s, 1, 86_400, (*here, "interval_s"), refuse)


def _within(value: float, least: float, most: float, path: Path, refuse: Refuse) -> None:
    if not least <= value <= most:
        raise refuse(path, f"expected {least:.15g} to {most:.15g}, got {value:.15g}")


def _between(value: float, low: float, high: float, path: Path, refuse: Refuse) -> None:
    if not low < value < high:
        raise refuse(path, f"expected between {low:g} and {high:g}, without these, got {value:.15g}")


def _numbers(value: Any, path: Path) -> Iterator[tuple[Path, float]]:
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _numbers(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, (*path, key))
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _numbers(item, (*path, index))
    elif isinstance(value, float):
        yield path, value


def _under(given: dict[str, Any], *keys: str) -> dict[str, Any]:
    found: Any = given
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
