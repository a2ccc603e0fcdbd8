"""The metrics of a rollout at one look, each with its own verdict. Pure.

Which are judged depends on what the new version does: copies (shadow), a share of the requests beside the old version
(canary, champion-challenger), or all of them, with nothing to compare with but the SLO (blue-green's standby).
"""

from collections.abc import Sequence
from math import isfinite, log
from typing import Final

from hyperion.policy.evidence import (
    Tally,
    bound_above,
    e_value,
    log_no_worse,
    log_over,
    log_sum,
    log_under,
    log_worse,
)
from hyperion.policy.release.counts import Counted
from hyperion.policy.release.drift import judge_drift
from hyperion.policy.release.quality import judge_quality, log_better_quality
from hyperion.policy.release.ratio import judge_ratio
from hyperion.policy.release.shadow import judge_shadow
from hyperion.policy.release.state import Observed, ReleaseState
from hyperion.policy.verdict import ERROR, FAIL, PASS, RUNNING, Evidence, judge_query
from hyperion.schema.resource import Rollout, ShadowStage, Slo

# The risk that a version at the margin is promoted: 5 % at most, with something to spare.
PASS_LEVEL: Final = 0.04
PASS_RATIO: Final = 1.5
ALLOWANCE_MIN: Final = 1e-5  # of errors: that there will never be one cannot be shown


def threshold_of(rollout: Rollout, state: ReleaseState) -> float:
    """K / alpha: what the E-value of any of the K metrics has to reach to halt.

    >>> threshold_of(Rollout(), ReleaseState("e"))
    200.0
    """
    halt = rollout.halt
    shadowed = any(stage.kind == "shadow" for stage in state.plan)
    metrics = [halt.errors, halt.slow, halt.drift, halt.quality]
    alpha = rollout.alpha if 0.0 < rollout.alpha < 1.0 else 0.01
    return max(sum(metric is not None for metric in metrics) + shadowed, 1) / alpha


def judge_pair(
    metric: str,
    tallies: Sequence[Tally],
    bad: int,
    requests: int,
    *,
    margin: float,
    allowance: float,
    threshold: float,
    floor: float = 0.0,
    mirrored: Sequence[Tally] = (),
) -> Evidence:
    """The verdict on bad requests of the canary beside the control's.

    `fail` where the evidence against "at most `margin` times the control's rate" reaches `threshold`; with a `floor`
    the canary's own rate has to be provably over it, too. `mirrored` events of the shadow count against the canary
    only, as copies may have been dropped. `pass` where it is refuted that the rate is both
    `max(1.5, margin)` times the control's or more, and `allowance` or more: the mean of the two E-values, so that a
    version for which both hold is promoted with a probability of 4 % at most.

    >>> judge_pair("errors", [Tally(0.5, 0, 0)], 0, 4_500, margin=1.2, allowance=0.001, threshold=200.0).verdict
    'pass'
    >>> judge_pair("errors", [Tally(0.05, 9, 2)], 9, 400, margin=1.2, allowance=0.001, threshold=200.0).verdict
    'fail'
    """
    log_e = log_worse((*tallies, *mirrored), margin)
    if floor:
        log_e = min(log_e, log_over(bad, requests, floor))
    control = sum(tally.control for tally in tallies)
    found = f"{bad} of {requests} requests (at most {bound_above(bad, requests):.3%}, 95 %), {control} of the control's"
    verdict = RUNNING
    if log_e >= log(threshold):
        verdict = FAIL
    elif not requests:
        found = "no requests of the new version yet"
    elif log_pass(tallies, bad, requests, margin, allowance) >= -log(PASS_LEVEL):
        verdict = PASS
    return Evidence(metric, bad, control, e_value(log_e), threshold, verdict, found)


def log_pass(tallies: Sequence[Tally], bad: int, requests: int, margin: float, allowance: float) -> float:
    """The log of the E-value of which `pass` needs 25.

    >>> log_pass([Tally(0.5, 0, 0)], 0, 4_500, 1.2, 0.001) > log(25)
    True
    """
    beside = log_no_worse(tallies, max(PASS_RATIO, margin))
    return log_sum([beside, log_under(bad, requests, allowance)]) - log(2.0)


def judge_split(
    rollout: Rollout, slo: Slo, state: ReleaseState, counted: Counted, observed: Observed
) -> tuple[Evidence, ...]:
    """The metrics of a split between two versions."""
    halt, threshold = rollout.halt, threshold_of(rollout, state)
    evidence = [judge_ratio(counted.requests, sticky=rollout.sticky is not None)]
    if halt.errors is not None:
        evidence.append(
            judge_pair(
                "errors",
                counted.errors,
                counted.canary_errors,
                counted.canary_requests,
                margin=_margin_of(halt.errors.ratio),
                allowance=allow_errors(slo),
                threshold=threshold,
                mirrored=counted.mirrored,
            )
        )
    if halt.slow is not None:
        margin = _margin_of(halt.slow.ratio)
        # What is slow is a quantile's matter: more of its requests than that quantile leaves have to be slow, too.
        nominal = min((1.0 - state.slow_quantile) * margin, 0.99)
        slow = judge_pair(
            "slow",
            counted.slow,
            counted.canary_slow,
            counted.canary_timed,
            margin=margin,
            allowance=nominal,
            threshold=threshold,
            floor=nominal,
        )
        unknown = Evidence("slow", threshold=threshold, detail="not known yet; 200 requests of the control are needed")
        evidence.append(slow if state.slow_ns else unknown)
    if halt.drift is not None:
        unknown = Evidence("drift", threshold=threshold, detail="no sample of the control's predictions yet")
        distance = halt.drift.distance
        evidence.append(judge_drift(counted.bins, distance, threshold) if state.bins is not None else unknown)
    if halt.quality is not None:
        evidence.append(judge_quality(observed.quality, halt.quality.margin, threshold))
    return tuple(evidence)


def judge_copies(rollout: Rollout, state: ReleaseState, counted: Counted, observed: Observed) -> tuple[Evidence, ...]:
    """The metrics of a shadow."""
    threshold = threshold_of(rollout, state)
    stage = rollout.shadow if rollout.shadow is not None else ShadowStage()
    mine = [pairs for pairs in observed.pairs if pairs.endpoint == state.endpoint and pairs.epoch >= state.stage_epoch]
    evidence = [judge_shadow(mine, stage.min_pairs, stage.max_disagreement, threshold)]
    if rollout.halt.errors is not None:
        bad = sum(tally.canary for tally in counted.mirrored)
        control = sum(tally.control for tally in counted.mirrored)
        log_e = log_worse(counted.mirrored, _margin_of(rollout.halt.errors.ratio))
        verdict = FAIL if log_e >= log(threshold) else PASS
        detail = f"{bad} copies failed, {control} of the control's requests"
        evidence.append(Evidence("errors", bad, control, e_value(log_e), threshold, verdict, detail))
    if rollout.halt.quality is not None:
        evidence.append(judge_quality(observed.quality, rollout.halt.quality.margin, threshold))
    return tuple(evidence)


def judge_alone(rollout: Rollout, slo: Slo, state: ReleaseState, counted: Counted) -> tuple[Evidence, ...]:
    """The metrics of a version that has all requests: against the SLO, as long as it is watched."""
    threshold = threshold_of(rollout, state)
    rows = []
    if rollout.halt.errors is not None:
        rows.append(("errors", counted.stage_errors, allow_errors(slo)))
    if rollout.halt.slow is not None and slo.latency_ms and state.slow_ns:
        rows.append(("slow", counted.stage_slow, 1.0 - state.slow_quantile))
    evidence = []
    for metric, bad, limit in rows:
        log_e = log_over(bad, counted.stage_requests, limit)
        verdict = FAIL if log_e >= log(threshold) else PASS if counted.stage_requests else RUNNING
        detail = f"{bad} of {counted.stage_requests} requests, the SLO allows {limit:.3%}"
        evidence.append(Evidence(metric, bad, 0, e_value(log_e), threshold, verdict, detail))
    return tuple(evidence)


def judge_outside(rollout: Rollout, state: ReleaseState, observed: Observed, now: float) -> tuple[Evidence, ...]:
    """Alerts, and queries once the new version gets requests. An open alert halts at once."""
    alerts = Evidence("alerts", verdict=PASS, detail="no open alert")
    if observed.alerts:
        alerts = Evidence("alerts", len(observed.alerts), verdict=FAIL, detail="open: " + ", ".join(observed.alerts))
    queries = rollout.halt.query if state.weight or state.shadow_share else ()
    return (alerts, *(judge_query(limit, observed.queries, now) for limit in queries))


def judge_trouble(counted: Counted) -> tuple[Evidence, ...]:
    """The counts themselves, where they cannot be trusted."""
    trouble = counted.trouble or counted.lost
    return (Evidence("counts", verdict=ERROR, detail=trouble),) if trouble else ()


def find_win(rollout: Rollout, counted: Counted, observed: Observed) -> str:
    """In which metric a challenger is provably better than its champion (4 % in all); "" where in none.

    >>> find_win(Rollout(), Counted(errors=(Tally(0.5, 2, 60),)), Observed())
    'errors'
    """
    logs = {}
    if rollout.halt.errors is not None:
        logs["errors"] = log_no_worse(counted.errors, 1.0)
    if rollout.halt.slow is not None:
        logs["slow"] = log_no_worse(counted.slow, 1.0)
    if rollout.halt.quality is not None and observed.quality is not None:
        logs["quality"] = log_better_quality(observed.quality, 0.0)
    bar = log(max(len(logs), 1) / PASS_LEVEL)
    return next((metric for metric, log_e in logs.items() if log_e >= bar), "")


def allow_errors(slo: Slo) -> float:
    """The share of requests that may fail by the SLO.

    >>> round(allow_errors(Slo(availability=99.9)), 6), allow_errors(Slo(availability=100.0))
    (0.001, 1e-05)
    """
    share = 1.0 - slo.availability / 100.0
    return min(max(share, ALLOWANCE_MIN), 0.99) if isfinite(share) else ALLOWANCE_MIN


def _margin_of(ratio: float) -> float:
    return ratio if isfinite(ratio) and ratio > 0.0 else 1.2
