"""Put a run together: source, target and scorer of one `BatchJobSpec`. Called by `cli` and by `batch/process`."""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from hyperion.batch.endpoint_link import EndpointLink
from hyperion.batch.link import Link
from hyperion.batch.model import Found, find_model, make_link
from hyperion.batch.opening import check_pair, open_source, open_target
from hyperion.batch.run import Run, Scorer
from hyperion.batch.target import Target
from hyperion.runner.threads import usable_cores
from hyperion.schema.batch import Progress, Summary
from hyperion.schema.config import ControlConfig
from hyperion.schema.resource import BatchJobSpec


class Served(Struct, frozen=True):
    """Where an endpoint is asked: the platform's URL, and an API key or ""."""

    url: str
    key: str = ""


class Setup(Struct, frozen=True):
    """How a run is done, which changes nothing of what comes out. `run_dir` is for the sockets of its runners;
    `workers` 0 is as many as the cores hold; `served` asks the endpoint instead of runners; `restart` begins anew, but
    not once more where that `run` of a `BatchJob` has begun already."""

    platform: ControlConfig
    run_dir: Path
    databases: dict[str, str] = {}
    workers: int = 0
    threads: int = 1
    restart: bool = False
    served: Served | None = None
    run: str = ""


def run_batch(
    spec: BatchJobSpec, setup: Setup, tell: Callable[[Progress], None], started: Callable[[Run], None]
) -> Summary | None:
    """Score what is left of it; None where it was stopped. `started` is given the run, so that it can be stopped.
    Raises HyperionError."""
    check_pair(spec, setup.databases)
    source = open_source(spec, setup.databases)
    target = open_target(spec, setup.databases, setup.restart)
    try:
        begun = bool(setup.run) and target.header is not None and target.header.run == setup.run
        restart = setup.restart and not begun
        run = Run(spec, source, target, _find_scorer(spec, setup, target, restart), tell, setup.run)
        started(run)
        return run.score(setup.workers or max(1, usable_cores() // setup.threads), restart)
    finally:
        target.close()


def _find_scorer(spec: BatchJobSpec, setup: Setup, target: Target, restart: bool) -> Scorer:
    asked = spec.model or spec.endpoint
    if setup.served is not None:
        served = setup.served

        def ask(_number: int) -> Link:
            return EndpointLink(served.url, spec.endpoint, served.key)

        return Scorer(asked, f"endpoint {spec.endpoint} of {served.url}", f"{served.url} {spec.endpoint}", ask)
    header = target.header
    # What an endpoint or an alias means may change while a run lasts: its rows are all scored by what it was at first.
    pinned = header.model if header is not None and header.asked == asked and not restart else ""
    found: Found = find_model(spec.model, spec.endpoint, setup.platform, pinned)

    def start(number: int) -> Link:
        return make_link(found, setup.platform, setup.run_dir, number, setup.threads, spec.batch_rows)

    return Scorer(asked, found.name, found.digest, start)
