"""What the values of an endpoint's resource may be. Called by `resource_yaml`; pure: raises or returns nothing.

Each check names the field by its path, so that the reader can say in which line it is. The parts with many fields have
files of their own.
"""

import re
from typing import Any

from hyperion.schema.resource import Batching, Endpoint, EndpointSpec, Log, Metadata, Slo
from hyperion.store.checks.backend import check_backend
from hyperion.store.checks.protection import check_protection
from hyperion.store.checks.ranges import Path, Refuse, check_between, check_finite, check_within
from hyperion.store.checks.rollout import check_rollout
from hyperion.store.names import is_valid_name
from hyperion.store.reading import suggest
from hyperion.store.repositories.options import MAX_BATCH_SIZE, MAX_BUCKETS, MAX_REPLICAS

MAX_LABELS = 64
MAX_LABEL_TEXT = 256
MAX_REDACTIONS = 64
DETECTORS = ("email", "phone", "card", "iban", "national-id")
_QUANTILE = re.compile(r"p[0-9]{1,2}(\.[0-9]{1,3})?")
_FIELD = re.compile(r"(input|output):.{1,256}")


def check_endpoint(resource: Endpoint, given: dict[str, Any], refuse: Refuse) -> None:
    """Refuse values that are out of range, contradict each other or are not done yet. `given` are the plain values
    that the resource was made from: some fields may be there only with some strategies. Raises what `refuse` makes."""
    check_finite(resource, refuse)
    check_metadata(resource.metadata, refuse)
    spec = resource.spec
    check_backend(resource.metadata.name, spec, refuse)
    _check_runners(spec, refuse)
    _check_batching(spec.batching, refuse)
    check_within(spec.deadline_ms, 1, 3_600_000, ("spec", "deadline_ms"), refuse)
    _check_slo(spec.slo, refuse)
    check_protection(resource.metadata.name, spec, refuse)
    check_rollout(spec.rollout, _under(given, "spec", "rollout"), refuse)
    _check_log(spec.log, refuse)


def check_metadata(metadata: Metadata, refuse: Refuse) -> None:
    """Refuse a name that cannot be one, and labels that are too many or too long."""
    if not is_valid_name(metadata.name):
        expected = "1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit"
        raise refuse(("metadata", "name"), f"expected {expected}, got {metadata.name[:80]!r}")
    if len(metadata.labels) > MAX_LABELS:
        raise refuse(("metadata", "labels"), f"at most {MAX_LABELS}, got {len(metadata.labels)}")
    for key, text in metadata.labels.items():
        if not is_valid_name(key.replace("/", "-", 1)) or len(text) > MAX_LABEL_TEXT:
            raise refuse(("metadata", "labels", key), f"expected a plain name and at most {MAX_LABEL_TEXT} characters")


def _check_runners(spec: EndpointSpec, refuse: Refuse) -> None:
    replicas = spec.replicas
    at: Path = ("spec", "replicas")
    if replicas.min == 0:
        raise refuse((*at, "min"), "0 (scale to zero) is not done by this version; expected 1 or more")
    check_within(replicas.min, 1, MAX_REPLICAS, (*at, "min"), refuse)
    if replicas.max not in (0, replicas.min):
        raise refuse((*at, "max"), "autoscaling is not done by this version; leave max out or let it be min")
    check_within(spec.resources.threads, 0, 1_024, ("spec", "resources", "threads"), refuse)
    check_within(spec.resources.memory_mb, 0, 1 << 24, ("spec", "resources", "memory_mb"), refuse)
    check_within(spec.resources.scratch_mb, 1, 1 << 24, ("spec", "resources", "scratch_mb"), refuse)
    if spec.resources.gpu > 1:
        raise refuse(("spec", "resources", "gpu"), "more than one per replica is not done by this version")
    check_within(spec.resources.gpu, 0, 1, ("spec", "resources", "gpu"), refuse)


def _check_batching(batching: Batching, refuse: Refuse) -> None:
    at: Path = ("spec", "batching")
    check_within(batching.max_size, 1, MAX_BATCH_SIZE, (*at, "max_size"), refuse)
    check_within(batching.max_delay_ms, 0, 1_000, (*at, "max_delay_ms"), refuse)
    if len(batching.buckets) > MAX_BUCKETS:
        raise refuse((*at, "buckets"), f"at most {MAX_BUCKETS}, got {len(batching.buckets)}")
    for index, size in enumerate(batching.buckets):
        if not 1 <= size <= batching.max_size:
            raise refuse((*at, "buckets", index), f"expected 1 to max_size ({batching.max_size}), got {size}")


def _check_slo(slo: Slo, refuse: Refuse) -> None:
    at: Path = ("spec", "slo")
    check_between(slo.availability, 0, 100, (*at, "availability"), refuse)
    for name, limit_ms in slo.latency_ms.items():
        here = (*at, "latency_ms", name)
        if not _QUANTILE.fullmatch(name) or float(name[1:]) <= 0:
            raise refuse(here, f"expected a quantile's name like p95 or p99.9, got {name[:80]!r}")
        if limit_ms <= 0:
            raise refuse(here, f"expected milliseconds above 0, got {limit_ms:g}")
    check_within(slo.window_days, 1, 90, (*at, "window_days"), refuse)


def _check_log(log: Log, refuse: Refuse) -> None:
    check_within(log.sample, 0, 1, ("spec", "log", "sample"), refuse)
    at: Path = ("spec", "log", "redact")
    if len(log.redact) > MAX_REDACTIONS:
        raise refuse(at, f"at most {MAX_REDACTIONS}, got {len(log.redact)}")
    for index, name in enumerate(log.redact):
        if name not in DETECTORS and not _FIELD.fullmatch(name):
            near = suggest(name, DETECTORS) or f" (known: {', '.join(DETECTORS)}, input:NAME, output:NAME)"
            raise refuse((*at, index), f"{name[:80]!r} is no detector{near}")


def _under(given: dict[str, Any], *keys: str) -> dict[str, Any]:
    found: Any = given
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
