"""One look at a rollout that is under way: judge, then halt, wait or move on. Pure. Called by `rollout`."""

from typing import Final

import msgspec

from hyperion.policy.release.counts import Counted, choose_slow, count_tracks
from hyperion.policy.release.drift import make_bins
from hyperion.policy.release.metrics import (
    find_win,
    judge_alone,
    judge_copies,
    judge_outside,
    judge_split,
    judge_trouble,
)
from hyperion.policy.release.moves import (
    UNDO,
    Move,
    describe,
    halt,
    new_epoch,
    next_stage,
    pause,
    restart_evidence,
)
from hyperion.policy.release.ratio import METRIC as SAMPLE_RATIO
from hyperion.policy.release.stages import CHALLENGE, SHADOW, SMOKE, STANDBY
from hyperion.policy.release.state import Observed, ReleaseState, Stage
from hyperion.policy.verdict import ERROR, FAIL, INCONCLUSIVE, PASS, RUNNING, Evidence, combine, explain
from hyperion.schema.resource import Rollout, Slo

CREDIT_S: Final = 10.0  # of a hold, for one look: a gap between looks, or a clock that was set forward, is not watching
LOST_S: Final = 5.0  # so long counts may be missing (a control that starts anew hears from gateways soon)


def look(rollout: Rollout, slo: Slo, state: ReleaseState, observed: Observed, now: float) -> Move:
    """One look at an open rollout: the new state, and entries for the ledger where it moved.

    >>> state = ReleaseState("e", state="canary", from_version="1", to_version="2", deadline_at=9.0)
    >>> broken = Observed(candidate="broken", candidate_reason="blob sha256:1f… is damaged")
    >>> look(Rollout(), Slo(), state, broken, 1.0)[0].reason
    'version 2 cannot run: blob sha256:1f… is damaged'
    """
    if observed.candidate == "broken":
        why = observed.candidate_reason or "its replicas cannot start"
        return halt(state, f"version {state.to_version} cannot run: {why}", now)
    if state.stage < 0 and (not state.from_version or state.strategy == UNDO):
        return _load(rollout, state, observed, now)
    counted = count_tracks(state, observed.counts, sticky=rollout.sticky is not None)
    evidence = _judge(rollout, slo, state, counted, observed, now)
    verdict = combine(item.verdict for item in evidence)
    seen = _note(state, counted, evidence, observed, now)
    if verdict == FAIL:
        return halt(seen, explain(evidence, FAIL), now, requests=_requests_of(counted))
    if now >= state.deadline_at and not (state.state == "paused" and rollout.on_inconclusive == "hold"):
        return _end_of_time(rollout, seen, evidence, now)
    if seen.lost_at and now - seen.lost_at >= LOST_S:
        return restart_evidence(seen, counted.lost)
    frozen, events = _freeze(rollout, slo, seen, counted, observed)
    if events:
        return frozen, events
    return _go(rollout, seen, counted, observed, verdict, now)


def _load(rollout: Rollout, state: ReleaseState, observed: Observed, now: float) -> Move:
    """A first release, or one that goes back: nothing to compare with, live as soon as it is ready."""
    if observed.candidate == "ready":
        return next_stage(rollout, state, now)
    return _say(state, RUNNING, f"version {state.to_version} is loading"), ()


def _judge(
    rollout: Rollout, slo: Slo, state: ReleaseState, counted: Counted, observed: Observed, now: float
) -> tuple[Evidence, ...]:
    """Every metric that there is at this stage."""
    rows: tuple[Evidence, ...] = ()
    if state.weight >= 1.0:
        rows = judge_alone(rollout, slo, state, counted)
    elif state.weight > 0.0:
        rows = judge_split(rollout, slo, state, counted, observed)
    elif state.shadow_share > 0.0:
        rows = judge_copies(rollout, state, counted, observed)
    if state.stage >= 0:
        rows += judge_trouble(counted)
        if observed.candidate != "ready":
            rows += (Evidence("replicas", verdict=ERROR, detail=f"version {state.to_version} is {observed.candidate}"),)
        elif state.weight < 1.0 and not observed.stable_ready:
            rows += (Evidence("replicas", verdict=ERROR, detail=f"version {state.from_version} is not ready"),)
    return rows + judge_outside(rollout, state, observed, now)


def _note(
    state: ReleaseState, counted: Counted, evidence: tuple[Evidence, ...], observed: Observed, now: float
) -> ReleaseState:
    """Remember what was seen, and add to the time that the stage was watched."""
    passed = now - state.looked_at
    watched = (
        _in_step(state, observed)
        and state.stage >= 0
        and state.state != "paused"
        and not (counted.trouble or counted.lost)
        and observed.candidate == "ready"
    )
    lost_at = 0.0
    if counted.lost:
        lost_at = state.lost_at if 0.0 < state.lost_at <= now else now
    return msgspec.structs.replace(
        state,
        evidence=evidence,
        marks=state.marks if counted.trouble or counted.lost else counted.marks,
        lost_at=lost_at,
        held_s=state.held_s + (min(max(passed, 0.0), CREDIT_S) if watched else 0.0),
        looked_at=now,
        first_bad_at=state.first_bad_at or (now if any(row.bad_canary for row in evidence) else 0.0),
    )


def _freeze(rollout: Rollout, slo: Slo, state: ReleaseState, counted: Counted, observed: Observed) -> Move:
    """What is slow, and the bins of predictions, once the control has shown them: counted from the next epoch on."""
    if not state.plan:
        return state, ()
    said: dict[str, object] = {}
    frozen = state
    if rollout.halt.slow is not None and not state.slow_ns and not counted.trouble:
        slow = choose_slow(slo, rollout.halt.slow, counted.latency)
        if slow is not None:
            said |= {"slow_ns": slow[0], "quantile": slow[1]}
            frozen = msgspec.structs.replace(frozen, slow_ns=slow[0], slow_quantile=slow[1], slow_epoch=state.epoch + 1)
    sample = observed.sample
    if rollout.halt.drift is not None and state.bins is None and sample is not None:
        bins = make_bins(sample) if sample.endpoint == state.endpoint else None
        if bins is not None:
            said |= {"output": bins.output, "edges": list(bins.edges), "labels": list(bins.labels)}
            frozen = msgspec.structs.replace(frozen, bins=bins)
    if not said:
        return state, ()
    return new_epoch(frozen), (("rollout.frozen", {"rollout": state.rollout_id, **said}),)


def _go(rollout: Rollout, state: ReleaseState, counted: Counted, observed: Observed, verdict: str, now: float) -> Move:
    """To the next stage if this one is complete; else say what is waited for."""
    if state.state == "paused":
        return _say(state, ERROR if verdict == ERROR else RUNNING, state.reason), ()
    waiting = _wait_for(rollout, state, counted, observed, verdict)
    if observed.smoke not in ("", "pass") and _stage_of(state).kind == SMOKE:
        return halt(state, f"smoke requests: {observed.smoke}", now)
    if not waiting:
        return next_stage(rollout, state, now)
    stage = _stage_of(state)
    held = state.held_s >= stage.hold_s and state.stage >= 0 and stage.kind != SMOKE
    if verdict in (PASS, RUNNING):
        verdict = INCONCLUSIVE if held and verdict == RUNNING and stage.last else RUNNING
    return _say(state, verdict, waiting), ()


def _wait_for(rollout: Rollout, state: ReleaseState, counted: Counted, observed: Observed, verdict: str) -> str:
    """What the stage still lacks, in words; "" where it is complete."""
    stage = _stage_of(state)
    if observed.candidate != "ready":
        return f"version {state.to_version} is {observed.candidate}"
    if verdict == ERROR:
        return explain(state.evidence, ERROR)
    if observed.frozen:
        return "the error budget is spent: releases are frozen"
    if state.stage < 0:
        return ""
    where = describe(stage.kind, state.weight, state.shadow_share)
    if stage.kind == SMOKE:
        return "" if observed.smoke == "pass" else "smoke requests have not all been answered yet"
    if not _in_step(state, observed):
        return f"{where}: gateways run epoch {observed.acknowledged_epoch}, expected {state.epoch}"
    if state.held_s < stage.hold_s:
        return f"{where}: held for {state.held_s:.0f} of {stage.hold_s:g} s"
    if stage.kind != SHADOW and counted.stage_requests < stage.min_requests:
        return f"{where}: {counted.stage_requests} of {stage.min_requests} requests"
    return _lacks_evidence(rollout, state, counted, observed, verdict, where)


def _lacks_evidence(
    rollout: Rollout, state: ReleaseState, counted: Counted, observed: Observed, verdict: str, where: str
) -> str:
    """Intermediate steps need the sample ratio, all others every metric; a challenger has to win."""
    stage = _stage_of(state)
    if stage.last or stage.kind in (SHADOW, STANDBY):
        if verdict != PASS:
            open_ = [item for item in state.evidence if item.verdict != PASS]
            return f"{where}: not enough evidence yet: " + "; ".join(f"{i.metric}: {i.detail}" for i in open_)
        if stage.kind == CHALLENGE and not find_win(rollout, counted, observed):
            return f"{where}: as good as version {state.from_version}, but not provably better"
        return ""
    ratio = next((item for item in state.evidence if item.metric == SAMPLE_RATIO), Evidence(SAMPLE_RATIO))
    return "" if ratio.verdict == PASS else f"{where}: sample ratio: {ratio.detail}"


def _end_of_time(rollout: Rollout, state: ReleaseState, evidence: tuple[Evidence, ...], now: float) -> Move:
    """The deadline is over, and it is still not known whether the new version is good."""
    lacking = "; ".join(f"{item.metric}: {item.detail or item.verdict}" for item in evidence if item.verdict != PASS)
    reason = f"inconclusive after {rollout.deadline_s:g} s: {lacking or state.reason}"
    if rollout.on_inconclusive == "hold" and state.stage >= 0:
        return pause(state, reason, INCONCLUSIVE)
    return halt(state, reason, now, verdict=INCONCLUSIVE)


def _in_step(state: ReleaseState, observed: Observed) -> bool:
    """Whether every gateway runs this very epoch."""
    return observed.acknowledged_epoch == state.epoch


def _stage_of(state: ReleaseState) -> Stage:
    return state.plan[state.stage] if 0 <= state.stage < len(state.plan) else Stage("loading")


def _say(state: ReleaseState, verdict: str, reason: str) -> ReleaseState:
    return msgspec.structs.replace(state, verdict=verdict, reason=reason)


def _requests_of(counted: Counted) -> dict[str, int]:
    """How many callers met the new version, and how many of them fared badly: what the rollout cost."""
    return {
        "canary": max(counted.canary_requests, counted.stage_requests),
        "control": counted.control_requests,
        "harmed_errors": max(counted.canary_errors, counted.stage_errors),
        "harmed_slow": max(counted.canary_slow, counted.stage_slow),
    }
