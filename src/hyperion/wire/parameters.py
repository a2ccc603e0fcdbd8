"""Request parameters: named single values, as the V2 protocol has them. Used by every JSON protocol of this room."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import Meta

from hyperion.schema.errors import MalformedRequest, TooLarge
from hyperion.wire.limits import WireLimits

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # what gRPC's parameters and the runner's frames can carry
Scalar = str | Int64 | float | bool | None
Parameters = dict[str, Scalar]
_MAX_PRIORITY: Final = 9
_MAX_TIMEOUT_US: Final = 2**53


def check_parameter_count(parameters: Mapping[str, Scalar], limits: WireLimits) -> None:
    """Raise TooLarge for more parameters than allowed."""
    if len(parameters) > limits.max_parameters:
        raise TooLarge(f"{len(parameters)} parameters, at most {limits.max_parameters} are allowed")


def take_urgency(parameters: dict[str, Any]) -> tuple[int, int]:
    """The priority and the timeout in nanoseconds that a request asks for, 0 for nothing said. They are taken out of
    its parameters: what is left is the model's. Raises MalformedRequest.

    >>> take_urgency({"priority": 3, "timeout": 250, "k": 1})
    (3, 250000)
    """
    priority = _whole(parameters.pop("priority", None), "priority", _MAX_PRIORITY)
    return priority, _whole(parameters.pop("timeout", None), "timeout", _MAX_TIMEOUT_US) * 1000


def _whole(value: Any, name: str, maximum: int) -> int:
    """A parameter that is a whole number from 0 to `maximum`; 0 when it is not given."""
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= maximum:
        raise MalformedRequest(f'parameter "{name}" is {value!r}, expected a whole number from 0 to {maximum}')
    return value
