"""What the values may be of the parts of a resource that stand between callers and a model. Called by
`endpoint` for endpoints; pure. The limits of tenants are of the same kind: `check_limits` is for them, too."""

import math
from typing import Any

from hyperion.policy.rate_limit import LEAST_PER_SECOND
from hyperion.schema.protect import Access, Breaker, Cache, Cost, Fallback, Jobs, Limits, Retry
from hyperion.schema.resource import EndpointSpec
from hyperion.store.checks.ranges import DAY_S, MONTH_S, Path, Refuse, check_above, check_within
from hyperion.store.checks.rules import check_rules
from hyperion.store.names import is_valid_name

MAX_NAMES = 1_000
MAX_TEXT = 1_024
MAX_RATE = 1e9
MAX_LINKS = 8
MAX_DEPTH = 8
MAX_CACHE_MB = 1 << 20
LINK_KINDS = ("model", "version", "endpoint", "upstream", "cached", "static")


def check_protection(name: str, spec: EndpointSpec, refuse: Refuse) -> None:
    """Refuse values that are out of range or contradict each other in the endpoint `name`'s protection."""
    if spec.schema is not None:
        check_rules(spec.schema, refuse)
    if spec.access is not None:
        _check_access(spec.access, refuse)
    if spec.limits is not None:
        at: Path = ("spec", "limits")
        check_limits(spec.limits, at, refuse)
        for field, inner in (("per_tenant", spec.limits.per_tenant), ("per_key", spec.limits.per_key)):
            if inner is not None:
                check_limits(inner, (*at, field), refuse)
    if spec.cost is not None:
        _check_cost(spec.cost, refuse)
    if spec.cache is not None:
        _check_cache(spec.cache, refuse)
    if spec.retry is not None:
        _check_retry(spec.retry, refuse)
    if spec.breaker is not None:
        _check_breaker(spec.breaker, refuse)
    _check_fallback(name, spec, refuse)
    _check_jobs(spec.jobs, refuse)


def check_limits(limits: Limits, at: Path, refuse: Refuse) -> None:
    """Refuse limits that are out of range, and a burst of a rate that is not limited."""
    for name in ("requests_per_second", "rows_per_second"):
        rate = getattr(limits, name)
        check_within(rate, 0, MAX_RATE, (*at, name), refuse)
        if 0 < rate < LEAST_PER_SECOND:
            least = f"{LEAST_PER_SECOND:f}"
            raise refuse((*at, name), f"expected 0 (no limit), or {least} or more; fewer are a matter for quotas")
    check_within(limits.burst, 0, MAX_RATE, (*at, "burst"), refuse)
    check_within(limits.concurrency, 0, 1_000_000, (*at, "concurrency"), refuse)
    if limits.burst and not limits.requests_per_second:
        raise refuse((*at, "burst"), "means nothing without requests_per_second; give that, too")


def _check_access(access: Access, refuse: Refuse) -> None:
    at: Path = ("spec", "access")
    if len(access.tenants) > MAX_NAMES:
        raise refuse((*at, "tenants"), f"at most {MAX_NAMES}, got {len(access.tenants)}")
    for index, tenant in enumerate(access.tenants):
        if not is_valid_name(tenant):
            raise refuse((*at, "tenants", index), f"{tenant[:80]!r} cannot be a tenant's name")
    if len(access.claims) > MAX_NAMES:
        raise refuse((*at, "claims"), f"at most {MAX_NAMES}, got {len(access.claims)}")
    for claim, value in access.claims.items():
        if not 1 <= len(claim) <= MAX_TEXT or len(value) > MAX_TEXT:
            raise refuse((*at, "claims", claim[:80]), f"expected a name and a text of at most {MAX_TEXT} characters")


def _check_cost(cost: Cost, refuse: Refuse) -> None:
    for field in ("per_request", "per_row", "per_token"):
        check_within(getattr(cost, field), 0, MAX_RATE, ("spec", "cost", field), refuse)


def _check_cache(cache: Cache, refuse: Refuse) -> None:
    at: Path = ("spec", "cache")
    check_above(cache.ttl_s, 0, MONTH_S, (*at, "ttl_s"), refuse)
    check_within(cache.max_mb, 1, MAX_CACHE_MB, (*at, "max_mb"), refuse)
    check_within(cache.jitter, 0, 1, (*at, "jitter"), refuse)


def _check_retry(retry: Retry, refuse: Refuse) -> None:
    check_within(retry.budget, 0, 1, ("spec", "retry", "budget"), refuse)
    check_within(retry.attempts, 1, 10, ("spec", "retry", "attempts"), refuse)


def _check_breaker(breaker: Breaker, refuse: Refuse) -> None:
    at: Path = ("spec", "breaker")
    check_above(breaker.failures, 0, 1, (*at, "failures"), refuse)
    check_within(breaker.min_calls, 1, 1_000_000, (*at, "min_calls"), refuse)
    check_above(breaker.open_s, 0, 3_600, (*at, "open_s"), refuse)
    check_within(breaker.slow_ms, 0, 3_600_000, (*at, "slow_ms"), refuse)


def _check_jobs(jobs: Jobs, refuse: Refuse) -> None:
    at: Path = ("spec", "jobs")
    check_within(jobs.attempts, 1, 100, (*at, "attempts"), refuse)
    check_within(jobs.backoff_s, 0, 3_600, (*at, "backoff_s"), refuse)
    check_within(jobs.ttl_s, 1, 12 * MONTH_S, (*at, "ttl_s"), refuse)
    check_above(jobs.timeout_s, 0, DAY_S, (*at, "timeout_s"), refuse)


def _check_fallback(name: str, spec: EndpointSpec, refuse: Refuse) -> None:
    at: Path = ("spec", "fallback")
    if len(spec.fallback) > MAX_LINKS:
        raise refuse(at, f"at most {MAX_LINKS} links, got {len(spec.fallback)}")
    for index, link in enumerate(spec.fallback):
        here = (*at, index)
        kinds = kinds_of(link)
        if len(kinds) != 1:
            got = " and ".join(kinds) or "none"
            raise refuse(here, f"expected exactly one of {', '.join(LINK_KINDS)}, got {got}")
        _check_link(name, spec, link, (*here, kinds[0]), refuse)
        if link.static is not None and index + 1 < len(spec.fallback):
            raise refuse((*at, index + 1), "is never reached: the link before it always answers")


def kinds_of(link: Fallback) -> list[str]:
    """Which of its kinds a link names.

    >>> kinds_of(Fallback(cached=True))
    ['cached']
    """
    given = {kind: getattr(link, kind) for kind in LINK_KINDS}
    return [kind for kind, value in given.items() if (value is not None if kind == "static" else value)]


def _check_link(name: str, spec: EndpointSpec, link: Fallback, here: Path, refuse: Refuse) -> None:
    if link.model:
        check_reference(link.model, here, refuse)
    for other in (link.endpoint, link.upstream):
        if other:
            check_other(name, other, here, refuse)
    if link.version:
        if not spec.model:
            raise refuse(here, "another version means nothing to an endpoint without a model")
        if not is_valid_name(link.version):
            raise refuse(here, f"{link.version[:80]!r} cannot be a version's name")
    if link.cached and spec.cache is None:
        raise refuse(here, "there are no cached answers without spec.cache; give that, too")
    if link.static is not None:
        if not link.static:
            raise refuse(here, "expected at least one output with its values")
        for output, values in link.static.items():
            _check_values(values, (*here, output), refuse)


def check_reference(reference: str, here: Path, refuse: Refuse) -> None:
    """Refuse what does not name a version in the registry."""
    name, at, version = reference.partition("@")
    if not (is_valid_name(name) and at and is_valid_name(version)):
        raise refuse(here, f"expected NAME@VERSION or NAME@ALIAS, got {reference[:80]!r}")


def check_other(name: str, other: str, here: Path, refuse: Refuse) -> None:
    """Refuse what cannot be the name of an endpoint other than `name`."""
    if not is_valid_name(other):
        raise refuse(here, f"{other[:80]!r} cannot be an endpoint's name")
    if other == name:
        raise refuse(here, f"the endpoint {name!r} cannot stand in for itself")


def _check_values(values: Any, here: Path, refuse: Refuse, depth: int = 0) -> None:
    """Nested lists of numbers, texts and truth values, as they are in a V2 answer."""
    if isinstance(values, list):
        if depth >= MAX_DEPTH:
            raise refuse(here, f"nested deeper than {MAX_DEPTH}")
        for item in values:
            _check_values(item, here, refuse, depth + 1)
    elif not isinstance(values, str | int | float) or (isinstance(values, float) and not math.isfinite(values)):
        raise refuse(here, "expected numbers, texts, truth values or nested lists of them")
    elif depth == 0:
        raise refuse(here, "expected a list: the first axis counts rows")
