"""Every error there is, by its code."""

from hyperion.schema import errors
from hyperion.schema.errors import HyperionError

CODES: dict[str, type[HyperionError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HyperionError) and kind is not HyperionError
}
