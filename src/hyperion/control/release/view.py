"""What a look at one endpoint's release comes to, for the loop and the snapshot. In a file of its own: whoever starts
without the store imports this and not the store."""

from msgspec import Struct

from hyperion.policy.placement_release import ReleasePlacement
from hyperion.schema.protect import Protection
from hyperion.schema.registry import VerifiedSpec
from hyperion.schema.release import Split


class ReleaseView(Struct, frozen=True):
    """One endpoint after a look: what to publish and what to run. `default` is "" while nothing can answer.
    `internal` is a member of another endpoint."""

    name: str
    placement: ReleasePlacement
    specs: dict[str, VerifiedSpec]
    default: str = ""
    split: Split | None = None
    log_sample: float = 0.0
    redact: tuple[str, ...] = ()
    protection: Protection = Protection()
    internal: bool = False
    epoch: int = 0
