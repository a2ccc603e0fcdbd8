"""What a caller says in the metadata of a gRPC call, which is its headers. Read by `gateway/grpc_calls`."""

from typing import Any, Final

from hyperion.schema.errors import MalformedRequest

MAX_TIMEOUT_S: Final = 86_400.0
MAX_PRIORITY: Final = 9
MAX_ID: Final = 128
_READ: Final = frozenset(("x-request-id", "x-request-timeout-ms", "x-hyperion-priority"))


def read_metadata(context: Any) -> dict[str, str]:
    """What the edge looks at in the metadata of a call."""
    return {key: value for key, value in context.invocation_metadata() if key in _READ}


def clean_id(given: str) -> str:
    """A caller's request id if it is safe to repeat in metadata and logs, else ""."""
    return given if len(given) <= MAX_ID and given.isascii() and given.isprintable() and " " not in given else ""


def timeout_ns_of(context: Any, metadata: dict[str, str]) -> int:
    """The shorter of gRPC's deadline and the header x-request-timeout-ms; 0 for neither. Raises MalformedRequest."""
    timeout_ns = 0
    remaining_s = context.time_remaining()
    if remaining_s is not None:
        timeout_ns = max(1, int(min(remaining_s, MAX_TIMEOUT_S) * 1e9))
    if "x-request-timeout-ms" in metadata:
        asked_ns = _whole("x-request-timeout-ms", metadata, 1, int(MAX_TIMEOUT_S * 1000)) * 1_000_000
        timeout_ns = min(timeout_ns, asked_ns) if timeout_ns else asked_ns
    return timeout_ns


def priority_of(metadata: dict[str, str]) -> int | None:
    """The header x-hyperion-priority; None when it is not given. Raises MalformedRequest."""
    return _whole("x-hyperion-priority", metadata, 0, MAX_PRIORITY) if "x-hyperion-priority" in metadata else None


def _whole(name: str, metadata: dict[str, str], minimum: int, maximum: int) -> int:
    text = metadata[name]
    if not (text.isascii() and text.isdigit() and len(text) < 16 and minimum <= int(text) <= maximum):
        raise MalformedRequest(f'{name} is "{text[:32]}", expected a whole number from {minimum} to {maximum}')
    return int(text)
