"""Copies of requests for a version that never answers: made after the answer was given, bounded, compared, counted.

Made by `gateway/route` for a split with a shadow; `gateway/counts` offers it what was answered.
"""

from hyperion.gateway.pending import PendingCall
from hyperion.schema.call import Tensor


class Mirror:
    """The shadow of one endpoint in one epoch."""

    def take(self, calls: list[PendingCall], outputs: tuple[Tensor, ...]) -> None:
        """These calls were answered with `outputs`."""
