"""What each subcommand does; a function per name in ``python -m bench --help``."""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
from dataclasses import asdict

from bench import bare as alone
from bench import latency, machine, pairs, split_cost
from bench import tune as tuning
from bench.peer import Peer
from bench.registry import ALL
from bench.results import Results
from bench.workloads import WORKLOADS, Workload
from hyperion.cli import loadgen

CLOSED = ("small", "large", "image", "embed", "small-grpc", "image-grpc")


def install(options: argparse.Namespace) -> None:
    for peer in _peers(options.peers or [*ALL]):
        if peer.environment is not None:
            peer.environment.install()


def models(options: argparse.Namespace) -> None:
    """Built before this is called."""


def list_(options: argparse.Namespace) -> None:
    for peer in ALL.values():
        print(f"{peer.name}: {', '.join(peer.workloads)}{f' ({peer.note})' if peer.note else ''}")
        for setting in peer.settings(WORKLOADS["small"]):
            print(f"    {setting or 'as it comes'}")


def run(options: argparse.Namespace) -> int:
    """Pairs of samples of the subject and each peer, per workload and concurrency."""
    subject, failures = ALL[options.subject], 0
    for workload in _workloads(options, CLOSED):
        results = _open(options, workload)
        for concurrency in options.concurrency:
            print(f"{workload.name} c={concurrency}", file=sys.stderr, flush=True)
            for name in options.peers or ["self", *(n for n in ALL if n != subject.name), "bare"]:
                try:
                    _run_one(options, results, subject, name, workload, concurrency)
                except Exception:  # one peer that fails must not cost the others their night
                    failures += 1
                    traceback.print_exc()
    return 1 if failures else 0


def _run_one(
    options: argparse.Namespace, results: Results, subject: Peer, name: str, workload: Workload, concurrency: int
) -> None:
    count = options.pairs or (3 if options.quick else 10)
    seconds = options.seconds or (2 if options.quick else 5)

    def best(peer: Peer) -> dict[str, object]:
        return tuning.best_setting(results, peer, workload, concurrency, min(3, seconds), options.retune)

    if name == "bare":
        pairs.compare_bare(results, subject, workload, concurrency, count, seconds, best(subject))
        return
    (peer,) = _peers((subject.name if name == "self" else name,))
    if workload.name in peer.workloads:
        _know(results, peer)
        pairs.compare(results, subject, peer, workload, concurrency, count, seconds, (best(subject), best(peer)))


def tune(options: argparse.Namespace) -> None:
    """Try every setting of every peer."""
    for workload in _workloads(options, CLOSED):
        results = _open(options, workload)
        for peer in _peers(options.peers or [*ALL]):
            if workload.name not in peer.workloads or len(peer.settings(workload)) == 1:
                continue
            _know(results, peer)
            seconds = options.seconds or (2 if options.quick else 3)
            tuning.tune_peer(results, peer, workload, options.concurrency, seconds, options.retune)


def bare(options: argparse.Namespace) -> None:
    """The model alone at every batch size."""
    for workload in _workloads(options, ("small", "large", "image", "embed")):
        results = _open(options, workload)
        for size in alone.SIZES:
            if size > 4 * workload.max_batch:
                continue
            one = alone.measure(workload.name, size, options.seconds or (1 if options.quick else 3))
            results.put("bare", {"batch": size}, asdict(one))
            print(f"  bare {workload.name} {one}", file=sys.stderr, flush=True)


def open_(options: argparse.Namespace) -> None:
    """Latency from the intended send time, at a share of each server's own peak."""
    loadgen.tune_socket_limit()
    for workload in _workloads(options, ("large",)):
        results = _open(options, workload)
        chosen = _peers(options.peers or [options.subject, *(n for n in ALL if n != options.subject)])
        # A limit computes nothing: its latency at 70 % of its peak says nothing about serving a model.
        known = [p for p in chosen if workload.name in p.workloads and not p.limit]
        ready = [(p, tuning.best_setting(results, p, workload, 64, 3)) for p in known]
        for peer in known:
            _know(results, peer)
        latency.run_open(
            results,
            ready,
            workload,
            options.share,
            options.rounds or (2 if options.quick else 4),
            options.seconds or (6 if options.quick else 20),
        )


def overload(options: argparse.Namespace) -> int:
    """Goodput, refusals and memory at a multiple of the peak."""
    loadgen.tune_socket_limit()
    held = True
    for workload in _workloads(options, ("large", "embed")):
        results = _open(options, workload)
        for peer in _peers(options.peers or [options.subject]):
            _know(results, peer)
            setting = tuning.best_setting(results, peer, workload, 64, 3)
            seconds = options.seconds or (10 if options.quick else 60)
            report = latency.run_overload(
                results, peer, setting, workload, options.factor, seconds, options.deadline_ms, options.connections
            )
            held &= report.held
    return 0 if held else 1


def split(options: argparse.Namespace) -> None:
    """Parse, copy, compute."""
    for workload in _workloads(options, ("image",)):
        results = _open(options, workload)
        split_cost.run_split(results, ALL["hyperion"], workload, options.seconds or (4 if options.quick else 15))


def report(options: argparse.Namespace) -> None:
    from bench import report as writer

    writer.write(options.output)


def _open(options: argparse.Namespace, workload: Workload) -> Results:
    results = Results(options.output, workload.name)
    words = [w for w in sys.argv[1:] if w != str(options.output) and w != "--output"]
    line = shlex.join(["python", "-m", "bench", *words])
    if line not in results.data["commands"]:
        results.data["commands"].append(line)
    return results


def _workloads(options: argparse.Namespace, default: tuple[str, ...]) -> tuple[Workload, ...]:
    names = options.workloads or default
    for name in names:
        if name not in WORKLOADS:
            raise SystemExit(f"bench: no workload {name!r}; there are {', '.join(WORKLOADS)}")
    return tuple(WORKLOADS[name] for name in names)


def _peers(names: tuple[str, ...]) -> tuple[Peer, ...]:
    for name in names:
        if name not in ALL:
            raise SystemExit(f"bench: no peer {name!r}; there are {', '.join(ALL)}")
    for name in names:
        if (environment := ALL[name].environment) is not None:
            environment.install()
    return tuple(ALL[name] for name in names)


def _know(results: Results, peer: Peer) -> None:
    """Note the versions of what is measured; install it first if it is not there."""
    if peer.environment is not None:
        peer.environment.install()
        results.data["versions"][peer.name] = machine.versions(peer)


BY_NAME = {
    "install": install,
    "models": models,
    "list": list_,
    "run": run,
    "tune": tune,
    "bare": bare,
    "open": open_,
    "overload": overload,
    "split": split,
    "report": report,
}
