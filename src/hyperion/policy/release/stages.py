"""The plan of a rollout: from its strategy to a row of stages. Pure.

Every strategy may begin with a shadow stage. What comes after the last stage is always the same: promotion.
"""

from math import isfinite
from typing import Final

from hyperion.policy.release.state import Stage
from hyperion.schema.resource import Rollout, ShadowStage, Step

SHADOW: Final = "shadow"
WEIGHT: Final = "weight"
PAUSE: Final = "pause"
SMOKE: Final = "smoke"
STANDBY: Final = "standby"
CHALLENGE: Final = "challenge"
STATE_OF: Final = {SHADOW: "shadow", SMOKE: "blue-green", STANDBY: "blue-green", PAUSE: "paused"}


def plan_stages(rollout: Rollout, strategy: str, *, first: bool = False) -> tuple[Stage, ...]:
    """The stages in order. The first release of an endpoint has none: there is nothing to compare it with.

    >>> [(stage.kind, stage.share) for stage in plan_stages(Rollout(steps=(5, Step(pause=True), 100)), "canary")]
    [('weight', 0.05), ('pause', 0.05)]
    >>> [stage.kind for stage in plan_stages(Rollout(shadow=ShadowStage()), "blue-green")]
    ['shadow', 'smoke', 'standby']
    """
    if first:
        return ()
    shadow = rollout.shadow if rollout.shadow is not None or strategy != "shadow" else ShadowStage()
    head = () if shadow is None else (Stage(SHADOW, _share_of(shadow.percent), min_requests=shadow.min_pairs),)
    if strategy == "blue-green":
        return (*head, Stage(SMOKE), Stage(STANDBY, 1.0, max(rollout.standby_s, 0.0), 20))
    if strategy == "champion-challenger":
        share = min(_share_of(rollout.percent), 0.99)  # without a control there is no contest
        return (*head, Stage(CHALLENGE, share, max(rollout.hold_s, 0.0), 100, last=True))
    return (*head, *_plan_steps(rollout)) if strategy == "canary" else head


def _plan_steps(rollout: Rollout) -> tuple[Stage, ...]:
    """The weighted steps. One of 100 % is the promotion itself, and ends them; without any, half the traffic is one."""
    stages: list[Stage] = []
    share = 0.0
    for step in rollout.steps:
        each = step if isinstance(step, Step) else Step(float(step), rollout.hold_s)
        if each.pause:
            stages.append(Stage(PAUSE, share))
            continue
        if not each.percent < 100.0:
            break
        if each.percent > 0.0:
            share = each.percent / 100.0
            stages.append(Stage(WEIGHT, share, max(each.hold_s, 0.0), max(each.min_requests, 0)))
    weights = [index for index, stage in enumerate(stages) if stage.kind == WEIGHT]
    if not weights:
        return (*stages, Stage(WEIGHT, 0.5, max(rollout.hold_s, 0.0), 100, last=True))
    last = stages[weights[-1]]
    stages[weights[-1]] = Stage(WEIGHT, last.share, last.hold_s, last.min_requests, last=True)
    return tuple(stages)


def _share_of(percent: float) -> float:
    """Per cent as a share; half where the number makes no sense."""
    return min(percent, 100.0) / 100.0 if isfinite(percent) and percent > 0.0 else 0.5
