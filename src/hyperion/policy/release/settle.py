"""What a rollout that was taken back has cost, for the ledger: once all gateways are back at the old version. Pure."""

from typing import Final

import msgspec

from hyperion.policy.release.moves import Move
from hyperion.policy.release.state import Observed, ReleaseState

REPORTS_S: Final = 1.0  # the last counts of the canary come in a little after the last gateway has left it


def settle(state: ReleaseState, observed: Observed, now: float) -> Move:
    """Note when the traffic was back, then what callers met until then.

    >>> halted = ReleaseState("e", state="halted", epoch=7, ended_at=10.0, first_bad_at=8.0)
    >>> noted, _ = settle(halted, Observed(acknowledged_epoch=7), 10.5)
    >>> settle(noted, Observed(acknowledged_epoch=7), 12.0)[1][0][1]["seconds_from_first_bad"]
    2.5
    """
    if not state.back_at:
        back = observed.acknowledged_epoch == state.epoch
        return (msgspec.structs.replace(state, back_at=now) if back else state), ()
    if now < state.back_at + REPORTS_S:
        return state, ()
    canary = [one for one in observed.counts if one.version == state.to_version and not one.shadow]
    detail = {
        "rollout": state.rollout_id,
        "from": state.from_version,
        "to": state.to_version,
        "seconds_from_first_bad": round(state.back_at - state.first_bad_at, 3) if state.first_bad_at else None,
        "seconds_from_verdict": round(state.back_at - state.ended_at, 3),
        "answered_by_canary": sum(one.requests for one in canary),
        "harmed_errors": sum(one.errors for one in canary),
        "harmed_slow": sum(one.slow for one in canary),
    }
    return msgspec.structs.replace(state, settled=True), (("rollout.rolled-back", detail),)


def is_unsettled(state: ReleaseState) -> bool:
    """Whether it was taken back and nobody has written down yet what it cost."""
    return state.state in ("halted", "aborted") and not state.settled
