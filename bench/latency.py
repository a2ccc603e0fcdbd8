"""Open-loop runs: latency at a share of each server's own peak, and behaviour far above it.

Called by the command line. Rates come from a short closed loop at c=64 right before; all servers get the same share.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from typing import Any

import numpy as np

from bench import bare, trial
from bench.peer import HOST, Peer
from bench.process import Server
from bench.results import Results
from bench.workloads import Workload
from hyperion.cli import load_plan, loadgen

PEAK_CONCURRENCY = 64
GRAIN_S = 0.001  # in overload what is due within this time leaves together: half the cost of the generator
LEAST_GOODPUT = 0.9
MOST_REFUSAL_MS = 100.0
MOST_GROWTH = 1.05


def run_open(
    results: Results,
    peers: list[tuple[Peer, dict[str, object]]],
    workload: Workload,
    share: float,
    rounds: int,
    seconds: float,
) -> None:
    """``rounds`` times over all servers, there and back again: Poisson arrivals at ``share`` of the peak."""
    runs: dict[str, list[dict]] = {peer.name: [] for peer, _ in peers}
    for i in range(rounds):
        for peer, setting in peers if i % 2 == 0 else peers[::-1]:
            with Server(peer, workload, setting) as server:
                trial.warm_up(server, PEAK_CONCURRENCY, 2)
                peak = trial.measure(server, PEAK_CONCURRENCY, min(5, seconds)).rate
                before = trial.batch_counts(server)
                report = loadgen.run(_plan(server, share * peak, seconds, seed=i))
                batch = trial.mean_batch(before, trial.batch_counts(server))
            alone = bare.measure(workload.name, max(1, round(batch or 1)), 2)
            one = {"peak": peak, "batch": batch, "bare_ms": alone.batch_ms, **report.as_dict()}
            runs[peer.name].append(one)
            print(
                f"  open {peer.name} {report.offered_rate:,.0f}/s held={report.held} {report.latency_ms}"
                f" batch {batch} bare {alone.batch_ms:.2f} ms",
                file=sys.stderr,
                flush=True,
            )
            results.put(
                "open",
                {"peer": peer.name, "share": share},
                {"setting": setting, "seconds": seconds, "runs": runs[peer.name]},
            )


def _peak(server: Server) -> float:
    """The highest rate of a closed loop: a model that takes long for each row is no faster in large batches, of which
    there are few in a sample."""
    return max(trial.measure(server, concurrency, 8).rate for concurrency in (8, PEAK_CONCURRENCY))


def run_overload(
    results: Results,
    peer: Peer,
    setting: dict[str, object],
    workload: Workload,
    factor: float,
    seconds: float,
    deadline_ms: float,
    connections: int,
) -> load_plan.Report:
    """Offer ``factor`` times the peak and see what is answered, what is refused and how fast, and what memory does."""
    with Server(peer, workload, setting) as server:
        trial.warm_up(server, PEAK_CONCURRENCY, 2)
        peak = _peak(server)
        headers = {"x-request-timeout-ms": f"{deadline_ms:.0f}"}
        plan = dataclasses.replace(
            _plan(server, factor * peak, seconds, headers=headers),
            connections=connections,
            opened_first=connections,
            timeout_s=30.0,
            grain_s=GRAIN_S,
        )
        with trial.watch_others(server) as others, _Memory(server) as memory:
            report = loadgen.run(plan)
        after = _peak(server)
    third = max(1, len(memory.mb) // 3)
    figures = {
        "setting": setting,
        "seconds": seconds,
        "deadline_ms": deadline_ms,
        "peak": peak,
        "peak_after": after,
        # Between the peaks before and after: what the machine's neighbours take drifts over the minute.
        "goodput_share": report.good_rate / ((peak + after) / 2),
        "admitted_p99_ms": report.latency_ms.get("p99"),
        "refused_p99_ms": report.refusal_ms.get("p99"),
        "retry_after_share": report.refusals_with_retry_after / max(1, report.refusals),
        "other_cores": others.cores,
        "memory_mb": {
            "first_third": float(np.mean(memory.mb[:third])),
            "last_third": float(np.mean(memory.mb[-third:])),
            "most": max(memory.mb),
        },
        "report": report.as_dict(),
    }
    figures["verdicts"] = verdicts = judge(figures)
    results.put("overload", {"peer": peer.name, "factor": factor}, figures)
    print(
        f"  overload {peer.name} {workload.name}: {factor:g} times {peak:,.0f}/s for {seconds:g} s, "
        f"held={report.held}, statuses {report.statuses}, no answer {report.dropped}, "
        f"others used {others.cores:.2f} cores",
        *(f"    {'ok    ' if verdict['ok'] else 'MISSED'} {verdict['line']}" for verdict in verdicts),
        sep="\n",
        file=sys.stderr,
        flush=True,
    )
    return report


def judge(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked of a server in overload, line by line: ``ok``, and ``line`` with the figures. A figure that is
    missing, because nothing was admitted or refused, fails its line."""
    good, memory = figures["goodput_share"], figures["memory_mb"]
    admitted, refused = figures["admitted_p99_ms"], figures["refused_p99_ms"]
    said, deadline = figures["retry_after_share"], figures["deadline_ms"]
    first, last = memory["first_third"], memory["last_third"]
    return [
        {"ok": good >= LEAST_GOODPUT, "line": f"goodput {good:.1%} of the peak [{LEAST_GOODPUT:.0%}]"},
        {
            "ok": admitted is not None and admitted <= deadline,
            "line": f"admitted p99 {_milliseconds(admitted)} [{deadline:.0f} ms]",
        },
        {
            "ok": refused is not None and refused < MOST_REFUSAL_MS and said == 1.0,
            "line": f"refusals p99 {_milliseconds(refused)} [{MOST_REFUSAL_MS:.0f} ms], {said:.1%} with retry-after",
        },
        {
            "ok": last <= first * MOST_GROWTH,
            "line": f"memory {first:.0f} -> {last:.0f} MB, first and last third [{MOST_GROWTH - 1:.0%} more]",
        },
    ]


def _milliseconds(value: float | None) -> str:
    return "of nothing" if value is None else f"{value:.0f} ms"


def _plan(
    server: Server, rate: float, seconds: float, seed: int = 0, headers: dict[str, str] | None = None
) -> load_plan.Plan:
    requests = [server.peer.request(server.workload, x) for x in server.workload.samples]
    raw = [dataclasses.replace(r, headers={**r.headers, **(headers or {})}).raw() for r in requests]
    return load_plan.Plan(HOST, server.port, raw, rate, seconds, seed=seed)


class _Memory:
    """Reads the server's memory once a second, on a thread of its own, while a load runs."""

    def __init__(self, server: Server) -> None:
        self.server, self.mb, self._stop = server, [server.rss_mb()], threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self.mb.append(self.server.rss_mb())
