"""Room in a pool's queue: who is refused, and who has to leave for somebody more urgent.

`admit` and the HTTP edge ask before a call may join, the pool makes room when it has. What a newcomer's wait is and
when it is too long is `policy/admission`'s; who goes before whom is the queue's.
"""

from typing import TYPE_CHECKING, Final

from hyperion.gateway.front.caller import Caller
from hyperion.policy.admission import is_overfull, refusal, retry_after_s
from hyperion.schema.errors import Overloaded

if TYPE_CHECKING:
    from hyperion.gateway.batch import WaitingQueue
    from hyperion.gateway.pending import PendingCall
    from hyperion.gateway.pool import VersionPool

MOST_AT_ONCE: Final = 64  # calls that one newcomer displaces; it may have many rows


def refusal_of(pool: "VersionPool", priority: int, caller: Caller, rows: int, budget_ns: int) -> str:
    """Why a call of that kind, with `budget_ns` left, may not join the pool's queue; "" if it may."""
    queue = pool.queue
    state = pool.queue_state()
    ahead = queue.rows_ahead(priority, caller)
    full = state.queued_rows >= state.max_queued_rows
    makes_room = full and ahead < state.queued_rows and queue.gives_way(priority, caller, rows)
    return refusal(state, pool.curve, budget_ns, ahead, makes_room)


def overloaded(pool: "VersionPool", reason: str) -> Overloaded:
    """The refusal, with the time after which it is worth coming again."""
    after_s = retry_after_s(pool.queue_state(), pool.curve)
    return Overloaded(f'model "{pool.model}" is overloaded: {reason}', retry_after_s=after_s)


def displaced_by(pool: "VersionPool", queue: "WaitingQueue", newcomer: "PendingCall") -> "list[PendingCall]":
    """The waiting calls that leave an overfull queue for one that has just joined it: as many rows as it has, of those
    with less right to them."""
    if not is_overfull(pool.queue_state(), pool.curve, pool.deadline_ns):
        return []
    priority, caller = newcomer.priority, newcomer.caller
    own_rows = queue.own_rows(priority, caller)
    left = newcomer.rows
    gone: list[PendingCall] = []
    while left > 0 and len(gone) < MOST_AT_ONCE:
        victim = queue.give_way(priority, caller, own_rows)
        if victim is None:
            break
        gone.append(victim)
        left -= victim.rows
    return gone
