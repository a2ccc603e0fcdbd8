"""The moves of a rollout, to a stage, an end or a new epoch: each gives the new state and its ledger entry. Pure."""

from typing import Any, Final

import msgspec

from hyperion.policy.release.stages import PAUSE, SHADOW, SMOKE, STANDBY, STATE_OF
from hyperion.policy.release.state import EpochShare, ReleaseState
from hyperion.policy.verdict import FAIL, PASS, RUNNING
from hyperion.schema.resource import Rollout

Event = tuple[str, dict[str, Any]]
Move = tuple[ReleaseState, tuple[Event, ...]]
UNDO: Final = "undo"  # the strategy of going back to a version that has to be loaded first


def next_stage(rollout: Rollout, state: ReleaseState, now: float, **said: Any) -> Move:
    """Into the stage after this one, or to promotion. `said` (actor, reason) goes into the ledger entry."""
    index = state.stage + 1
    if index >= len(state.plan):
        return promote(rollout, state, now, **said)
    stage = state.plan[index]
    weight, shadow_share = state.weight, state.shadow_share
    if stage.kind != PAUSE:
        weight = 0.0 if stage.kind in (SHADOW, SMOKE) else stage.share
        shadow_share = stage.share if stage.kind == SHADOW else 0.0
    name = STATE_OF.get(stage.kind, "canary")
    reason = said.get("reason") or describe(stage.kind, weight, shadow_share)
    entered = msgspec.structs.replace(
        state,
        state=name,
        stage=index,
        weight=weight,
        shadow_share=shadow_share,
        stage_at=now,
        held_s=0.0,
        stage_epoch=state.epoch,
        paused_from="canary" if stage.kind == PAUSE else "",
        verdict=RUNNING,
        reason=reason,
    )
    if (weight, shadow_share) != (state.weight, state.shadow_share):
        entered = new_epoch(entered)
        entered = msgspec.structs.replace(entered, stage_epoch=entered.epoch)
    kind = "rollout.paused" if stage.kind == PAUSE else "rollout.step"
    return entered, ((kind, _detail(entered, state, **{**said, "reason": reason})),)


def promote(rollout: Rollout, state: ReleaseState, now: float, **said: Any) -> Move:
    """All requests to the new version; the old one stays warm for `standby_s`."""
    warm_from = state.stage_at if state.weight == 1.0 and state.stage >= 0 else now
    undone = state.strategy == UNDO
    reason = said.get("reason") or (f"back at version {state.to_version}" if undone else "every metric passed")
    if not state.plan and not undone:
        reason = said.get("reason") or f"version {state.to_version} is ready"
    done = msgspec.structs.replace(
        state,
        state="promoted",
        weight=1.0,
        shadow_share=0.0,
        previous_version=state.from_version,
        standby_until=max(now, warm_from + rollout.standby_s) if state.from_version else 0.0,
        ended_at=now,
        paused_from="",
        verdict=PASS,
        reason=reason,
    )
    return new_epoch(done), (("rollout.promoted", _detail(done, state, **{**said, "reason": reason})),)


def end(state: ReleaseState, name: str, verdict: str, reason: str, now: float, **said: Any) -> Move:
    """All requests back to the old version: `name` is halted or aborted."""
    done = msgspec.structs.replace(
        state,
        state=name,
        weight=0.0,
        shadow_share=0.0,
        ended_at=now,
        paused_from="",
        verdict=verdict,
        reason=reason,
    )
    return new_epoch(done), ((f"rollout.{name}", _detail(done, state, **{**said, "reason": reason})),)


def halt(state: ReleaseState, reason: str, now: float, verdict: str = FAIL, **said: Any) -> Move:
    """End it for a reason that the data gave."""
    return end(state, "halted", verdict, reason, now, **said)


def pause(state: ReleaseState, reason: str, verdict: str, **said: Any) -> Move:
    """Stay as it is until somebody decides. Evidence is still looked at, and may halt."""
    paused = msgspec.structs.replace(state, state="paused", paused_from=state.state, verdict=verdict, reason=reason)
    return paused, (("rollout.paused", _detail(paused, state, **{**said, "reason": reason})),)


def restart_evidence(state: ReleaseState, why: str) -> Move:
    """Forget all counts so far, as some of them are gone: the evidence begins anew with a new epoch."""
    again = new_epoch(state)
    again = msgspec.structs.replace(
        again, base_epoch=again.epoch, stage_epoch=again.epoch, held_s=0.0, lost_at=0.0, marks=(), evidence=()
    )
    return again, (("rollout.evidence-restarted", _detail(again, state, reason=why)),)


def new_epoch(state: ReleaseState) -> ReleaseState:
    """The same under the next number, so that gateways count apart what is other now.

    >>> new_epoch(ReleaseState("e", epoch=3, weight=0.5)).epochs
    (EpochShare(epoch=4, share=0.5, shadow_share=0.0),)
    """
    epoch = state.epoch + 1
    share = EpochShare(epoch, state.weight, state.shadow_share)
    return msgspec.structs.replace(state, epoch=epoch, epochs=(*state.epochs, share))


def describe(kind: str, weight: float, shadow_share: float) -> str:
    """A stage in words.

    >>> describe("weight", 0.05, 0.0), describe("shadow", 0.0, 1.0)
    ('5 % of the requests', 'copies of 100 % of the requests')
    """
    if kind == SHADOW:
        return f"copies of {shadow_share:.4%}".replace(".0000%", " %") + " of the requests"
    if kind == SMOKE:
        return "smoke requests"
    if kind == STANDBY:
        return "all requests, the old version stands by"
    share = f"{weight * 100:g} % of the requests"
    return f"a pause at {share}" if kind == PAUSE else share


def _detail(state: ReleaseState, before: ReleaseState, **said: Any) -> dict[str, Any]:
    """What a ledger entry says: from where to where, on what evidence, and whom it cost what."""
    return {
        "rollout": state.rollout_id,
        "strategy": state.strategy,
        "from": state.from_version,
        "to": state.to_version,
        "from_digest": state.from_digest,
        "to_digest": state.to_digest,
        "stage": state.stage,
        "state": state.state,
        "weight": state.weight,
        "weight_before": before.weight,
        "verdict": state.verdict,
        "evidence": msgspec.to_builtins(before.evidence),
        **{key: value for key, value in said.items() if value != ""},
    }
