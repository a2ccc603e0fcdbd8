"""Which bound of a queue loses less: the prediction of each newcomer's wait, or a limit that follows the waits seen?
`python bench/admission_limit.py`.

Simulates one replica (batches of up to 8 rows, 8 ms + 0.5 ms per row) under Poisson arrivals for a minute: 0.7 times
its capacity at both ends, an overload in between, during a third of which the replica is three times slower. Prediction
is `policy/admission`; the limit is `limit · clip(target / p95 wait, ½, 2) + √limit`, moved every half second, with the
target that the prediction keeps to, too.
"""

import random
from collections import deque

from hyperion.policy.admission import BUDGET_SHARE, QueueState, refusal
from hyperion.policy.latency import fit_prior, observe, observe_pace

MS = 1_000_000
SECOND = 1_000_000_000
BATCH = 8
SECONDS = 60
LOOK_NS = SECOND // 2
MOST = 4096.0


def batch_ns(rows: int) -> int:
    """Nanoseconds of a batch on the replica at its best."""
    return 8 * MS + rows * MS // 2


def slowness(now_ns: int) -> float:
    """How much slower the replica is now."""
    return 3.0 if 20 * SECOND <= now_ns < 40 * SECOND else 1.0


CAPACITY = BATCH / batch_ns(BATCH)  # rows per nanosecond


def load(now_ns: int, times: float) -> float:
    """Arrivals now, as a multiple of the capacity."""
    return 0.7 if now_ns < 5 * SECOND or now_ns >= 55 * SECOND else times


def simulate(predicts: bool, deadline_ns: int, times: float, seed: int) -> tuple[float, float, float]:
    """Share of what could be answered that was, in time; share of the admitted that was late; p99 in ms."""
    draw = random.Random(seed)
    curve = fit_prior({rows: batch_ns(rows) * 1e-9 for rows in (1, BATCH)})
    pace, backlog_ns, limit = 0.0, 0, 64.0
    queue: deque[int] = deque()
    computing: list[int] = []
    waits: list[int] = []
    latencies: list[int] = []
    now_ns = late = started_ns = done_ns = 0
    look_ns = LOOK_NS
    next_ns = int(draw.expovariate(CAPACITY * load(0, times)))
    while now_ns < SECONDS * SECOND:
        if computing and done_ns <= next_ns:
            now_ns = done_ns
            if backlog_ns:
                pace = observe_pace(pace, len(computing), now_ns - backlog_ns)
            backlog_ns = now_ns if len(queue) >= BATCH else 0
            curve = observe(curve, len(computing), now_ns - started_ns)
            latencies += [now_ns - came_ns for came_ns in computing]
            computing = []
        else:
            now_ns = next_ns
            if predicts:
                state = QueueState(len(queue), len(computing), 1, int(MOST), BATCH, pace)
                refused = len(queue) >= BATCH and refusal(state, curve, deadline_ns) != ""
            else:
                refused = len(queue) >= limit
            if not refused:
                queue.append(now_ns)
            next_ns = now_ns + int(draw.expovariate(CAPACITY * load(now_ns, times)))
        if now_ns >= look_ns:
            look_ns += LOOK_NS
            if waits:
                seen_ns = max(1, sorted(waits)[int(0.95 * len(waits))])
                change = min(2.0, max(0.5, BUDGET_SHARE * deadline_ns / seen_ns))
                limit = max(1.0, min(MOST, limit * change + limit**0.5))
            waits = []
        if not computing and queue:
            while queue and now_ns - queue[0] > deadline_ns - batch_ns(1):
                queue.popleft()
                late += 1
            computing = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
            waits += [now_ns - came_ns for came_ns in computing]
            started_ns = now_ns
            done_ns = now_ns + int(batch_ns(len(computing)) * slowness(now_ns) * draw.uniform(0.95, 1.1))
    in_time = sum(latency <= deadline_ns for latency in latencies)
    late += len(latencies) - in_time
    seconds = [second * SECOND for second in range(SECONDS)]
    possible = sum(min(load(at, times), 1 / slowness(at)) for at in seconds) * CAPACITY * SECOND
    return in_time / possible, late / (in_time + late), sorted(latencies)[int(0.99 * len(latencies))] / MS


if __name__ == "__main__":
    print("deadline  load  bound        answered in time  late of admitted   p99")
    for deadline_ms in (100, 250, 1_000, 10_000):
        for times in (1.2, 3.0):
            for predicts in (True, False):
                runs = [simulate(predicts, deadline_ms * MS, times, seed) for seed in range(5)]
                answered, late, p99_ms = [sum(column) / len(runs) for column in zip(*runs, strict=True)]
                name = "prediction" if predicts else "limit"
                print(
                    f"{deadline_ms:5d} ms  {times:3.1f}x  {name:10s}  {answered:15.1%}  {late:16.2%}  {p99_ms:5.0f} ms"
                )
