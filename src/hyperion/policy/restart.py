"""When a child process that died is started again. Pure: the supervisor brings the facts and keeps the state."""

from msgspec import Struct

from hyperion.schema.config import EXIT_REFUSED


class RestartLimits(Struct, frozen=True):
    """Delays in seconds. The quick ones hold after a death in service, the patient ones after one before ready."""

    stable_s: float = 5.0
    quick_first_s: float = 0.05
    quick_last_s: float = 1.0
    patient_first_s: float = 0.2
    patient_last_s: float = 30.0


class RestartState(Struct, frozen=True):
    """What the next decision needs to know of the past: restarts in a row after quick deaths, and before ready."""

    quick: int = 0
    patient: int = 0


class Death(Struct, frozen=True):
    """`ready_s` is how long it had been ready, None if it never was; `exit_code` is negative for a signal."""

    ready_s: float | None
    exit_code: int


class Restart(Struct, frozen=True):
    """Wait `delay_s` and start again, or never where it is None."""

    delay_s: float | None
    state: RestartState


LIMITS = RestartLimits()


def decide_restart(death: Death, state: RestartState, limits: RestartLimits = LIMITS) -> Restart:
    """A child that served is restarted at once, later ones back off; one that refuses to start is left alone.

    >>> served = decide_restart(Death(ready_s=60.0, exit_code=-9), RestartState())
    >>> served.delay_s, decide_restart(Death(ready_s=0.1, exit_code=-9), served.state).delay_s
    (0.0, 0.05)
    >>> decide_restart(Death(ready_s=None, exit_code=1), RestartState()).delay_s
    0.2
    >>> decide_restart(Death(ready_s=None, exit_code=EXIT_REFUSED), RestartState()).delay_s is None
    True
    """
    if death.ready_s is None:
        if death.exit_code == EXIT_REFUSED:
            return Restart(None, state)
        delay_s = _double(limits.patient_first_s, limits.patient_last_s, state.patient)
        return Restart(delay_s, RestartState(state.quick, state.patient + 1))
    in_a_row = 0 if death.ready_s >= limits.stable_s else state.quick
    delay_s = _double(limits.quick_first_s, limits.quick_last_s, in_a_row - 1) if in_a_row else 0.0
    return Restart(delay_s, RestartState(in_a_row + 1, 0))


def _double(first_s: float, last_s: float, times: int) -> float:
    # Capped before the power: a child may die for weeks, and 2.0**2000 is no float.
    return min(last_s, first_s * 2.0 ** min(times, 32))
