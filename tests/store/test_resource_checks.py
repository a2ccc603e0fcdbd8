"""What each part of an endpoint's protection may be, and what each mistake is told."""

from typing import Any

import pytest

from hyperion.schema.errors import InvalidResource
from hyperion.schema.protect import Fallback, InputRule, Limits
from hyperion.schema.resource import Endpoint
from hyperion.store.resource_yaml import read_resource, to_document

WHOLE: dict[str, Any] = {
    "model": "fraud@champion",
    "schema": {"unknown_inputs": "reject", "inputs": {"X": {"min": -10, "max": 10, "nan": "reject"}}},
    "access": {"tenants": ["acme"], "anonymous": False, "claims": {"team": "risk"}},
    "limits": {"requests_per_second": 500, "burst": 1000, "concurrency": 64, "per_tenant": {"rows_per_second": 5}},
    "cost": {"per_request": 0.001},
    "cache": {"ttl_s": 30, "max_mb": 256, "scope": "tenant"},
    "coalesce": True,
    "retry": {"budget": 0.2, "hedge": False},
    "breaker": {"failures": 0.5, "min_calls": 20, "open_s": 5},
    "fallback": [
        {"model": "fraud-small@1"},
        {"version": "3"},
        {"upstream": "dr"},
        {"endpoint": "rules"},
        {"cached": True},
        {"static": {"probabilities": [[0.5, 0.5]]}},
    ],
    "jobs": {"attempts": 3},
    "log": {"redact": ["email", "national-id", "input:name"]},
}


def read(**spec: Any) -> Endpoint:
    return read_resource({"kind": "Endpoint", "metadata": {"name": "fraud"}, "spec": spec})


def refusal(**spec: Any) -> str:
    with pytest.raises(InvalidResource) as refused:
        read(**spec)
    return refused.value.message


def test_all_that_protects_an_endpoint_is_read_and_written_again() -> None:
    endpoint = read(**WHOLE)
    spec = endpoint.spec
    assert spec.schema is not None
    assert spec.schema.inputs == {"X": InputRule(-10, 10, "reject")}
    assert spec.limits is not None
    assert spec.limits.per_tenant == Limits(rows_per_second=5)
    assert spec.fallback[0] == Fallback("fraud-small@1")
    assert read_resource(to_document(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"access": {"tenants": ["a/b"]}}, "spec.access.tenants[0]: 'a/b' cannot be a tenant's name"),
        ({"access": {"claims": {"": "x"}}}, "spec.access.claims"),
        ({"access": {"claims": {"a": 1}}}, "spec.access.claims"),
        ({"access": {"tenant": ["a"]}}, 'spec.access.tenant: unknown field; did you mean "tenants"?'),
        ({"limits": {"requests_per_second": -1}}, "spec.limits.requests_per_second: expected 0 to"),
        ({"limits": {"rows_per_second": 1e-300}}, "spec.limits.rows_per_second: expected 0 (no limit), or 0.000001 or"),
        ({"limits": {"burst": 5}}, "spec.limits.burst: means nothing without requests_per_second"),
        ({"limits": {"per_key": {"concurrency": -1}}}, "spec.limits.per_key.concurrency: expected 0 to"),
        ({"limits": {"requests_per_second": float("inf")}}, "spec.limits.requests_per_second: expected a finite"),
        ({"cost": {"per_row": -0.1}}, "spec.cost.per_row: expected 0 to"),
        ({"cache": {"ttl_s": 0}}, "spec.cache.ttl_s: expected above 0"),
        ({"cache": {"max_mb": 0}}, "spec.cache.max_mb: expected 1 to"),
        ({"cache": {"jitter": 1.5}}, "spec.cache.jitter: expected 0 to 1"),
        ({"cache": {"scope": "tenants"}}, 'did you mean "tenant"?'),
        ({"retry": {"budget": 2}}, "spec.retry.budget: expected 0 to 1"),
        ({"retry": {"attempts": 0}}, "spec.retry.attempts: expected 1 to 10"),
        ({"breaker": {"failures": 0}}, "spec.breaker.failures: expected above 0, up to 1"),
        ({"breaker": {"min_calls": 0}}, "spec.breaker.min_calls: expected 1 to"),
        ({"breaker": {"open_s": 0}}, "spec.breaker.open_s: expected above 0"),
        ({"breaker": {"slow_ms": -1}}, "spec.breaker.slow_ms: expected 0 to"),
        ({"jobs": {"attempts": 0}}, "spec.jobs.attempts: expected 1 to 100"),
        ({"jobs": {"timeout_s": 0}}, "spec.jobs.timeout_s: expected above 0"),
        ({"jobs": {"ttl_s": 0}}, "spec.jobs.ttl_s: expected 1 to"),
        ({"schema": {"inputs": {"X": {"mni": 1}}}}, 'spec.schema.inputs.X.mni: unknown field; did you mean "min"?'),
        ({"log": {"redact": ["input:"]}}, "spec.log.redact[0]: 'input:' is no detector"),
        ({"log": {"redact": ["email"] * 65}}, "spec.log.redact: at most 64, got 65"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_field(spec: dict[str, Any], message: str) -> None:
    assert message in refusal(model="fraud@1", **spec)


@pytest.mark.parametrize(
    ("links", "message"),
    [
        (
            [{}],
            "spec.fallback[0]: expected exactly one of model, version, endpoint, upstream, cached, static, got none",
        ),
        ([{"model": "a@1", "version": "2"}], "spec.fallback[0]: expected exactly one of model"),
        ([{"model": "a"}], "spec.fallback[0].model: expected NAME@VERSION or NAME@ALIAS, got 'a'"),
        ([{"version": "a/b"}], "spec.fallback[0].version: 'a/b' cannot be a version's name"),
        ([{"endpoint": "fraud"}], "spec.fallback[0].endpoint: the endpoint 'fraud' cannot stand in for itself"),
        ([{"upstream": "a b"}], "spec.fallback[0].upstream: 'a b' cannot be an endpoint's name"),
        ([{"cached": True}], "spec.fallback[0].cached: there are no cached answers without spec.cache"),
        ([{"static": {}}], "spec.fallback[0].static: expected at least one output"),
        ([{"static": {"y": 1}}], "spec.fallback[0].static.y: expected a list"),
        ([{"static": {"y": [None]}}], "spec.fallback[0].static.y: expected numbers, texts"),
        ([{"static": {"y": [float("nan")]}}], "spec.fallback[0].static.y[0]: expected a finite number"),
        ([{"static": {"y": [[[[[[[[[1]]]]]]]]]}}], "spec.fallback[0].static.y: nested deeper than 8"),
        ([{"static": {"y": [1]}}, {"version": "1"}], "spec.fallback[1]: is never reached"),
        ([{"version": str(n)} for n in range(9)], "spec.fallback: at most 8 links, got 9"),
    ],
)
def test_a_chain_that_cannot_work_is_refused(links: list[dict[str, Any]], message: str) -> None:
    assert message in refusal(model="fraud@1", fallback=links)
