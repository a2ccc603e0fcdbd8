"""Request parameters: named single values, as the V2 protocol has them. Used by every JSON protocol of this room."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from hyperion.schema.errors import TooLarge
from hyperion.wire.limits import WireLimits

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # what gRPC's parameters and the runner's frames can carry
Scalar = str | Int64 | float | bool | None
Parameters = dict[str, Scalar]


def check_parameter_count(parameters: Mapping[str, Scalar], limits: WireLimits) -> None:
    """Raise TooLarge for more parameters than allowed."""
    if len(parameters) > limits.max_parameters:
        raise TooLarge(f"{len(parameters)} parameters, at most {limits.max_parameters} are allowed")
