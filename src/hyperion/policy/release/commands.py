"""What people may ask of a rollout, and what follows. Pure. A command is obeyed or refused with a reason."""

import msgspec
from msgspec import Struct

from hyperion.policy.release.moves import UNDO, Move, end, new_epoch, next_stage, pause, promote
from hyperion.policy.release.stages import PAUSE
from hyperion.policy.release.state import OPEN, Command, Observed, ReleaseState
from hyperion.policy.verdict import INCONCLUSIVE, PASS, RUNNING
from hyperion.schema.resource import Rollout


def obey(rollout: Rollout, state: ReleaseState, observed: Observed, now: float, command: Command) -> tuple[Move, str]:
    """Return the move and what came of the command; a refusal moves nothing and says "refused: …".

    >>> obey(Rollout(), ReleaseState("e"), Observed(), 0.0, Command("abort"))[1]
    'refused: no rollout is under way (idle)'
    """
    verbs = {"promote": _promote, "pause": _pause, "resume": _resume, "abort": _abort, "undo": _undo}
    if command.verb not in verbs:
        return _refuse(state, f"unknown command {command.verb}; expected one of {', '.join(verbs)}")
    if state.state not in OPEN and not (command.verb == "undo" and state.state == "promoted"):
        return _refuse(state, f"no rollout is under way ({state.state})")
    return verbs[command.verb](_Asked(rollout, state, observed, now, command))


class _Asked(Struct, frozen=True):
    """A command and what it meets."""

    rollout: Rollout
    state: ReleaseState
    observed: Observed
    now: float
    command: Command


def _promote(asked: _Asked) -> tuple[Move, str]:
    state, rollout, now, command, observed = asked.state, asked.rollout, asked.now, asked.command, asked.observed
    if observed.candidate != "ready":
        return _refuse(state, f"version {state.to_version} is not ready ({observed.candidate})")
    if state.state == "paused" and now < state.deadline_at:
        return _go_on(asked, state)
    reason = command.reason or f"promoted by {command.actor or 'a person'} before the verdict"
    move = promote(rollout, state, now, actor=command.actor, reason=reason, by_hand=True)
    return move, f"version {state.to_version} serves all requests"


def _pause(asked: _Asked) -> tuple[Move, str]:
    state, command = asked.state, asked.command
    if state.state == "paused":
        return _refuse(state, "it is paused already")
    reason = command.reason or f"paused by {command.actor or 'a person'}"
    return pause(state, reason, RUNNING, actor=command.actor), "paused"


def _resume(asked: _Asked) -> tuple[Move, str]:
    state, rollout, now, observed = asked.state, asked.rollout, asked.now, asked.observed
    if state.state != "paused":
        return _refuse(state, "it is not paused")
    if observed.candidate != "ready":
        return _refuse(state, f"version {state.to_version} is not ready ({observed.candidate})")
    if now >= state.deadline_at:
        state = msgspec.structs.replace(state, deadline_at=now + rollout.deadline_s)
    return _go_on(asked, state)


def _abort(asked: _Asked) -> tuple[Move, str]:
    state, now, command = asked.state, asked.now, asked.command
    if not state.from_version:
        return _refuse(state, "it is the first release, there is no version to go back to; delete the endpoint instead")
    reason = command.reason or f"aborted by {command.actor or 'a person'}"
    move = end(state, "aborted", INCONCLUSIVE, reason, now, actor=command.actor, command=command.verb)
    return move, f"version {state.from_version} serves all requests"


def _undo(asked: _Asked) -> tuple[Move, str]:
    """Back to the version before: at once where it is warm, else as soon as it is loaded."""
    state, rollout, now, command, observed = asked.state, asked.rollout, asked.now, asked.command, asked.observed
    if state.state != "promoted":
        return _abort(asked)
    if not state.previous_version:
        return _refuse(state, "there is no version before this one")
    warm = now < state.standby_until and observed.stable_ready
    reason = command.reason or f"undone by {command.actor or 'a person'}"
    back = msgspec.structs.replace(
        state,
        state="promoted" if warm else "canary",
        strategy=UNDO,
        from_version=state.to_version,
        to_version=state.previous_version,
        from_digest=state.to_digest,
        to_digest=state.from_digest,
        previous_version=state.to_version if warm else "",
        plan=(),
        stage=-1,
        weight=1.0 if warm else 0.0,
        epochs=(),
        base_epoch=0,
        stage_epoch=0,
        started_at=now,
        stage_at=now,
        held_s=0.0,
        looked_at=now,
        ended_at=now if warm else 0.0,
        first_bad_at=0.0,
        back_at=0.0,
        settled=False,
        deadline_at=now + rollout.deadline_s,
        standby_until=now + rollout.standby_s if warm else 0.0,
        slow_ns=0,
        slow_epoch=0,
        bins=None,
        marks=(),
        lost_at=0.0,
        evidence=(),
        verdict=PASS if warm else RUNNING,
        reason=reason,
    )
    detail = {
        "rollout": state.rollout_id,
        "from": back.from_version,
        "to": back.to_version,
        "from_digest": back.from_digest,
        "to_digest": back.to_digest,
        "warm": warm,
        "weight": back.weight,
        "strategy": back.strategy,
        "state": back.state,
        "actor": command.actor,
        "reason": reason,
    }
    outcome = f"version {back.to_version} serves all requests" if warm else f"version {back.to_version} is being loaded"
    return (new_epoch(back), (("rollout.undone", detail),)), outcome


def _go_on(asked: _Asked, state: ReleaseState) -> tuple[Move, str]:
    """Out of a pause: from a pause step to the next stage, else back to where it was paused."""
    reason = asked.command.reason or f"resumed by {asked.command.actor or 'a person'}"
    resumed = msgspec.structs.replace(state, state=state.paused_from, paused_from="", verdict=RUNNING, reason=reason)
    if state.stage >= 0 and state.plan[state.stage].kind == PAUSE:
        move = next_stage(asked.rollout, resumed, asked.now, actor=asked.command.actor, reason=reason, by_hand=True)
        return move, f"went on: {move[0].weight * 100:g} % of the requests"
    detail = {"rollout": state.rollout_id, "actor": asked.command.actor, "reason": reason, "weight": state.weight}
    return (resumed, (("rollout.resumed", detail),)), "resumed"


def _refuse(state: ReleaseState, reason: str) -> tuple[Move, str]:
    return (state, ()), f"refused: {reason}"
