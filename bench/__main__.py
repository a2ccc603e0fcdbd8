"""The command line of the benchmark: ``python -m bench --help``.

Moves into the harness's own environment first, so that any Python 3.11+ can start it.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from bench.env import HARNESS, MODELS, RESULTS, Environment, enter_harness

DESCRIPTION = """Hyperion beside its peers on one machine. Every subcommand writes to bench/results (or --output)."""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", help="make the peers' environments (all of them, or those named)")
    install.add_argument("peers", nargs="*")
    commands.add_parser("models", help="build the models")
    commands.add_parser("list", help="peers, workloads and the settings tried")

    run = commands.add_parser("run", help="closed loop, subject and peer in turn: throughput and CPU per request")
    run.add_argument("--concurrency", type=_numbers, default=[1, 64, 256])
    run.add_argument("--pairs", type=int, help="pairs per comparison (default 10; quick 3)")
    run.add_argument("--seconds", type=float, help="per sample (default 5; quick 2)")
    run.add_argument("--retune", action="store_true", help="try all settings again even if these results know the best")
    tune = commands.add_parser("tune", help="only try the peers' settings and keep the best")
    tune.add_argument("--concurrency", type=_numbers, default=[1, 64, 256])
    tune.add_argument("--seconds", type=float)
    tune.add_argument("--retune", action="store_true")
    curve = commands.add_parser("bare", help="the model alone at batch sizes 1 to 256")
    curve.add_argument("--seconds", type=float)
    latency = commands.add_parser("open", help="open loop, Poisson arrivals: latency at a share of the peak")
    latency.add_argument("--share", type=float, default=0.7)
    latency.add_argument("--rounds", type=int, help="default 4; quick 2")
    latency.add_argument("--seconds", type=float, help="per run (default 20; quick 6)")
    overload = commands.add_parser("overload", help="offer a multiple of the peak")
    overload.add_argument("--factor", type=float, default=3.0)
    overload.add_argument("--seconds", type=float, help="default 60; quick 10")
    overload.add_argument("--deadline-ms", type=float, default=1000.0)
    overload.add_argument("--connections", type=int, default=4096)
    split = commands.add_parser("split", help="where a request's time goes inside Hyperion: parse, copy, compute")
    split.add_argument("--seconds", type=float)
    report = commands.add_parser("report", help="write the tables and plots from the results")
    for command in (run, tune, curve, latency, overload, split):
        command.add_argument("--workload", action="append", dest="workloads", help="may be given several times")
        command.add_argument("--quick", action="store_true", help="fewer and shorter samples: a look, not a result")
    for command in (run, tune, latency, overload):
        command.add_argument("--peers", type=lambda v: v.split(","), help="comma-separated; `self` is the A/A control")
        command.add_argument("--subject", default="hyperion", help="who is compared with everybody else")
    for command in (run, tune, curve, latency, overload, split, report):
        command.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    enter_harness(arguments)
    # From here on we are inside the harness's environment: numpy and the rest may be imported.
    from bench import commands

    if options.command == "install":
        Environment("harness", HARNESS).install()
    elif options.command not in ("report", "list"):
        from bench.models import build_all

        build_all(MODELS)
    return int(commands.BY_NAME[options.command](options) or 0)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    # Both signals unwind the stack, so that servers are stopped; a background job would else ignore the first.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
