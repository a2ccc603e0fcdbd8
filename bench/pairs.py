"""Side by side: the subject and one peer run at once, measured in turn A B B A, so that drift hits both alike.

Called by the command line. The one that is not being measured idles; how much it uses while idle is reported.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import ExitStack

from bench import bare, trial
from bench.peer import Peer
from bench.process import Server
from bench.results import Results
from bench.stats import median_ratio
from bench.workloads import Workload

WARM_UP_S = 2.0
QUIET_CORES = 0.25  # a pair during which strangers used more than this is measured again, as often as pairs are wanted


def compare(
    results: Results,
    subject: Peer,
    peer: Peer,
    workload: Workload,
    concurrency: int,
    count: int,
    seconds: float,
    settings: tuple[dict[str, object], dict[str, object]],
) -> None:
    """``count`` pairs of samples; a peer of the subject's own name is the A/A control."""
    if peer.name == subject.name:
        peer = dataclasses.replace(peer, name=f"{peer.name}#2")
    with ExitStack() as stack:
        a = stack.enter_context(Server(subject, workload, settings[0]))
        b = stack.enter_context(Server(peer, workload, settings[1]))
        for server in (a, b):
            trial.warm_up(server, concurrency, WARM_UP_S)
        idle = [trial.idle_cores(server) for server in (a, b)]
        pairs: list[dict[str, dict]] = []
        disturbed = 0
        while len(pairs) < count:
            order = (a, b) if len(pairs) % 2 == 0 else (b, a)
            samples = {id(server): trial.measure(server, concurrency, seconds) for server in order}
            if max(sample.other_cores for sample in samples.values()) > QUIET_CORES and disturbed < count:
                disturbed += 1
                continue
            pairs.append({"a": samples[id(a)].as_dict(), "b": samples[id(b)].as_dict()})
    key = {"subject": subject.name, "peer": peer.name, "concurrency": concurrency}
    results.put(
        "pairs",
        key,
        {
            "settings": list(settings),
            "seconds": seconds,
            "idle_cores": idle,
            "start_s": [a.start_s, b.start_s],
            "disturbed": disturbed,
            "pairs": pairs,
        },
    )
    _say(key, pairs)


def compare_bare(
    results: Results,
    subject: Peer,
    workload: Workload,
    concurrency: int,
    count: int,
    seconds: float,
    setting: dict[str, object],
) -> None:
    """The same against the model alone, at the batch size that the subject reaches (or the largest it may form)."""
    pairs: list[dict[str, dict]] = []
    with Server(subject, workload, setting) as server:
        trial.warm_up(server, concurrency, WARM_UP_S)
        batch = trial.measure(server, concurrency, seconds).batch or float(min(concurrency, workload.max_batch))
        for i in range(count):
            alone = bare.measure(workload.name, max(1, round(batch)), seconds) if i % 2 else None
            sample = trial.measure(server, concurrency, seconds)
            batch = sample.batch or batch
            alone = alone or bare.measure(workload.name, max(1, round(batch)), seconds)
            pairs.append(
                {
                    "a": sample.as_dict(),
                    "b": {
                        "peer": "bare",
                        "concurrency": 1,
                        "rate": alone.rows_per_s,
                        "errors": 0.0,
                        "batch": alone.batch,
                        "batch_ms": alone.batch_ms,
                        "cpu_us": 1e6 / alone.rows_per_s,
                        "rss_mb": None,
                    },
                }
            )
    key = {"subject": subject.name, "peer": "bare", "concurrency": concurrency}
    results.put("pairs", key, {"settings": [setting, {}], "seconds": seconds, "pairs": pairs})
    _say(key, pairs)


def _say(key: dict[str, object], pairs: list[dict]) -> None:
    ratio = median_ratio([p["a"]["rate"] for p in pairs], [p["b"]["rate"] for p in pairs])
    print(f"  c={key['concurrency']} {key['subject']} / {key['peer']}: {ratio}", file=sys.stderr, flush=True)
