"""From what an endpoint wants: to what the runner of a registered version is given, and to what gateways do with its
callers. Pure."""

import hashlib

import msgspec

from hyperion.schema.model import ModelOptions
from hyperion.schema.protect import Protection
from hyperion.schema.resource import Batching, EndpointSpec, Replicas, Resources


def choose_options(own: ModelOptions, spec: EndpointSpec) -> ModelOptions:
    """The options of the version itself, with those that the endpoint's resource says otherwise.

    A field of the resource that has its default's value says nothing: there the version's own holds.

    >>> choose_options(ModelOptions(threads=2), EndpointSpec("m@1", batching=Batching(max_size=8))).max_batch_size
    8
    >>> choose_options(ModelOptions(threads=2), EndpointSpec("m@1")).threads
    2
    """
    wanted = {
        "replicas": (spec.replicas.min, Replicas().min),
        "threads": (spec.resources.threads, Resources().threads),
        "memory_mb": (spec.resources.memory_mb, Resources().memory_mb),
        "network": (spec.resources.network, Resources().network),
        "processes": (spec.resources.processes, Resources().processes),
        "scratch_mb": (spec.resources.scratch_mb, Resources().scratch_mb),
        "max_batch_size": (spec.batching.max_size, Batching().max_size),
        "max_delay_ms": (spec.batching.max_delay_ms, Batching().max_delay_ms),
        "buckets": (spec.batching.buckets, Batching().buckets),
        "deadline_ms": (spec.deadline_ms, 30_000),
    }
    said = {name: value for name, (value, default) in wanted.items() if value != default}
    if spec.resources.gpu:
        said["device"] = "cuda"
    return msgspec.convert({**msgspec.to_builtins(own), **said}, ModelOptions)


def key_of(options: ModelOptions) -> str:
    """Tells options apart that need other runners; the number of replicas does not."""
    alike = msgspec.structs.replace(options, replicas=1)
    return hashlib.sha256(msgspec.json.encode(alike)).hexdigest()[:16]


def protection_of(spec: EndpointSpec) -> Protection:
    """What a gateway has to know of the resource: everything between callers and the model.

    >>> protection_of(EndpointSpec("m@1", coalesce=True)).coalesce
    True
    """
    return Protection(
        access=spec.access,
        limits=spec.limits,
        cost=spec.cost,
        rules=spec.schema,
        cache=spec.cache,
        coalesce=spec.coalesce,
        retry=spec.retry,
        breaker=spec.breaker,
        fallback=spec.fallback,
        jobs=spec.jobs,
    )
