"""Give every peer its fair best: try each of its settings at each concurrency and keep the fastest without errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import trial
from bench.peer import Peer
from bench.process import Server
from bench.results import Results
from bench.workloads import Workload

MOST_ERRORS = 0.01


def best_setting(
    results: Results, peer: Peer, workload: Workload, concurrency: int, seconds: float, retune: bool = False
) -> dict[str, object]:
    """The setting to use; measured now unless an earlier run in the same results did."""
    settings = peer.settings(workload)
    if len(settings) == 1:
        return settings[0]
    tune_peer(results, peer, workload, (concurrency,), seconds, retune)
    known = results.find("tuning", peer=peer.name, concurrency=concurrency)
    fair = [e for e in known if e["errors"] <= MOST_ERRORS] or known
    return max(fair, key=lambda e: e["rate"])["setting"]


def tune_peer(
    results: Results, peer: Peer, workload: Workload, concurrencies: Sequence[int], seconds: float, retune: bool
) -> None:
    """Measure every setting at the concurrencies that these results do not know yet."""
    for setting in peer.settings(workload):
        _try(
            results,
            peer,
            workload,
            setting,
            [
                c
                for c in concurrencies
                if retune or not results.find("tuning", peer=peer.name, concurrency=c, setting=setting)
            ],
            seconds,
        )


def _try(
    results: Results,
    peer: Peer,
    workload: Workload,
    setting: dict[str, object],
    concurrencies: Sequence[int],
    seconds: float,
) -> None:
    if concurrencies:
        try:
            with Server(peer, workload, setting) as server:
                for concurrency in concurrencies:
                    trial.warm_up(server, concurrency, 1)
                    sample = trial.measure(server, concurrency, seconds)
                    seen: dict[str, object] = {"rate": sample.rate, "errors": sample.errors, "cpu_us": sample.cpu_us}
                    _keep(results, peer, concurrency, setting, seen)
        except (RuntimeError, OSError) as problem:  # a setting that does not start is a setting that lost
            # Only its first line: logs name local paths, and results are published.
            lost = {"rate": 0.0, "errors": 1.0, "problem": str(problem).partition("\n")[0][:200]}
            for concurrency in concurrencies:
                _keep(results, peer, concurrency, setting, lost)


def _keep(results: Results, peer: Peer, concurrency: int, setting: dict[str, object], seen: dict[str, object]) -> None:
    results.put("tuning", {"peer": peer.name, "concurrency": concurrency, "setting": setting}, seen)
    print(f"  tune {peer.name} c={concurrency} {setting}: {seen['rate']:,.0f}/s", file=sys.stderr, flush=True)
