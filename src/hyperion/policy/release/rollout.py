"""How a new version goes live: one decision per look, from what was counted to what gateways are to do next. Pure.

Called by the control loop for every endpoint at each look. `decide` may be called at any time and any number of times:
with the same state and the same things seen it moves once. It never raises for what was seen, and whatever is missing
(events, the control's traffic, labels, an answer of a provider, an acknowledgement) holds the rollout where it is until
its deadline. Only evidence promotes; evidence against the new version halts at the first look that shows it.
"""

from typing import Any, Final

import msgspec

from hyperion.policy.release.commands import obey
from hyperion.policy.release.look import look
from hyperion.policy.release.moves import UNDO, Event, new_epoch
from hyperion.policy.release.settle import is_unsettled, settle
from hyperion.policy.release.stages import plan_stages
from hyperion.policy.release.state import (
    OPEN,
    Command,
    Decision,
    EpochShare,
    Labelled,
    Mark,
    Observed,
    ReleaseState,
    Stage,
)
from hyperion.policy.verdict import RUNNING, Evidence, QueryResult
from hyperion.schema.release import Split, Track
from hyperion.schema.resource import Rollout, Slo

SOON_S: Final = 0.1  # while requests, copies or evidence come in
LATER_S: Final = 1.0  # while somebody or something else is waited for
IDLE_S: Final = 60.0


def begin(
    endpoint: str,
    rollout: Rollout,
    *,
    rollout_id: str,
    from_version: str,
    from_digest: str,
    to_version: str,
    to_digest: str,
    epoch: int,
    now: float,
    strategy: str | None = None,
) -> Decision:
    """Begin to release `to_version`; without a `from_version` it serves as soon as it is ready.

    `epoch` is the first of this rollout and larger than any that the endpoint had. All evidence begins anew.

    >>> begin("e", Rollout(), rollout_id="r", from_version="1", from_digest="", to_version="2", to_digest="",
    ...       epoch=7, now=0.0).state.plan[0]
    Stage(kind='weight', share=0.01, hold_s=60.0, min_requests=100, last=False)
    """
    first = not from_version
    chosen = strategy or rollout.strategy
    state = ReleaseState(
        endpoint,
        rollout_id=rollout_id,
        state="blue-green" if chosen == "blue-green" else "shadow" if chosen == "shadow" else "canary",
        from_version=from_version,
        to_version=to_version,
        from_digest=from_digest,
        to_digest=to_digest,
        strategy=chosen,
        plan=plan_stages(rollout, chosen, first=first),
        epoch=epoch - 1,
        base_epoch=epoch,
        stage_epoch=epoch,
        started_at=now,
        stage_at=now,
        looked_at=now,
        deadline_at=now + rollout.deadline_s,
        verdict=RUNNING,
        reason=f"version {to_version} is loading",
        next_look_at=now + SOON_S,
    )
    detail: dict[str, Any] = {
        "rollout": rollout_id,
        "strategy": chosen,
        "from": from_version,
        "to": to_version,
        "from_digest": from_digest,
        "to_digest": to_digest,
        "plan": msgspec.to_builtins(state.plan),
    }
    return Decision(new_epoch(state), (("rollout.started", detail),), now + SOON_S, state.reason)


def decide(
    rollout: Rollout, slo: Slo, state: ReleaseState, observed: Observed, now: float, command: Command | None = None
) -> Decision:
    """The next state of a release, with what goes into the ledger and when to look again (seconds since 1970).

    >>> started = begin("e", Rollout(), rollout_id="r", from_version="", from_digest="", to_version="1", to_digest="",
    ...                 epoch=1, now=0.0).state
    >>> decide(Rollout(), Slo(), started, Observed(candidate="ready"), 1.0).state.state
    'promoted'
    """
    events: tuple[Event, ...] = ()
    outcome = ""
    before = state.to_version
    if command is not None:
        (state, events), outcome = obey(rollout, state, observed, now, command)
    # What was seen is of the versions before the command: where these are others now, the next look sees them.
    moved = state.to_version == before
    while moved and state.state in OPEN:  # each move leads to a later stage or to an end, so there is a last one
        state, more = look(rollout, slo, state, observed, now)
        events += more
        moved = bool(more)
    if is_unsettled(state):
        state, more = settle(state, observed, now)
        events += more
    next_look = _next_look(state, now)
    if state.state in OPEN:
        state = msgspec.structs.replace(state, next_look_at=next_look)
    return Decision(state, events, next_look, outcome or state.reason)


def split_of(rollout: Rollout, state: ReleaseState) -> Split:
    """What gateways are to do now. Without tracks where nothing was ever released. The control comes first, even where
    the new version has all requests and is watched.

    >>> split_of(Rollout(), ReleaseState("e", state="canary", from_version="1", to_version="2", weight=0.05)).tracks
    (Track(version='1', share=0.95), Track(version='2', share=0.05))
    """
    open_ = state.state in OPEN
    old, new = Track(state.from_version, 1.0 - state.weight), Track(state.to_version, state.weight)
    if state.state == "promoted" or (open_ and not state.from_version):
        tracks: tuple[Track, ...] = (Track(state.to_version, 1.0),)
    elif open_ and state.weight > 0.0:
        tracks = (old, new)
    else:
        tracks = (Track(state.from_version, 1.0),) if state.from_version else ()
    halt, sticky = rollout.halt, rollout.sticky
    compares = open_ and bool(state.from_version) and bool(state.plan)
    unknown = (halt.slow is not None and not state.slow_ns) or (halt.drift is not None and state.bins is None)
    return Split(
        state.epoch,
        state.rollout_id,
        tracks,
        shadow=state.to_version if open_ and state.shadow_share > 0.0 else "",
        shadow_share=state.shadow_share if open_ else 0.0,
        sticky_header=sticky.header if sticky is not None else "",
        sticky_input=sticky.input if sticky is not None else "",
        slow_ns=state.slow_ns if open_ else 0,
        bins=state.bins if open_ else None,
        sampling=compares and unknown,
        keep_values=open_ and state.shadow_share > 0.0 and not state.weight and halt.quality is not None,
    )


def kept_versions(state: ReleaseState, now: float) -> tuple[str, ...]:
    """The versions that need replicas now: those that serve, the one that may, and a warm standby.

    >>> kept_versions(ReleaseState("e", state="promoted", to_version="2", previous_version="1", standby_until=9.0), 5.0)
    ('2', '1')
    >>> kept_versions(ReleaseState("e", state="halted", from_version="1", to_version="2"), 5.0)
    ('1',)
    """
    if state.state == "promoted":
        names = (state.to_version, state.previous_version if now < state.standby_until else "")
    elif state.state in OPEN:
        names = (state.from_version, state.to_version)
    else:
        names = (state.from_version, "")
    return tuple(dict.fromkeys(name for name in names if name))


def _next_look(state: ReleaseState, now: float) -> float:
    """When something may have changed by itself."""
    if is_unsettled(state):
        return now + SOON_S
    if state.state in OPEN:
        waits = state.state == "paused" and not state.weight and not state.shadow_share
        return now + (LATER_S if waits else SOON_S)
    if state.state == "promoted" and now < state.standby_until:
        return min(state.standby_until, now + IDLE_S)
    return now + IDLE_S


__all__ = [
    "UNDO",
    "Command",
    "Decision",
    "EpochShare",
    "Evidence",
    "Labelled",
    "Mark",
    "Observed",
    "QueryResult",
    "ReleaseState",
    "Stage",
    "begin",
    "decide",
    "kept_versions",
    "split_of",
]
