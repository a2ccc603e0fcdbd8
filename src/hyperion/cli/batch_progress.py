"""How a run shows how far it is: a bar on a terminal, a line now and then in a pipe, nothing where a script reads."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from hyperion.schema.batch import Progress

EVERY_S: Final = 5.0


@contextlib.contextmanager
def show_progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """What takes progress while the block runs. Shows it on stderr."""
    if quiet:
        yield lambda _progress: None
    elif sys.stderr.isatty():
        with _open_bar() as tell:
            yield tell
    else:
        yield Lines().tell


class Lines:
    """At most one line every `EVERY_S` seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_s = clock() + EVERY_S

    def tell(self, progress: Progress) -> None:
        """Write a line, if it is time for one."""
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + EVERY_S
            sys.stderr.write(write_progress(progress) + "\n")


def write_progress(progress: Progress) -> str:
    """One line.

    >>> write_progress(Progress(rows=500_000, total_rows=1_000_000, fraction=0.5, rows_per_s=250_000, eta_s=2))
    '500,000 of 1,000,000 rows (50 %), 250,000 rows/s, 2 s left'
    >>> write_progress(Progress(rows=500, skipped=2))
    '500 rows, 2 skipped'
    """
    parts = [f"{progress.rows:,} rows"]
    if progress.total_rows:
        parts = [f"{progress.rows:,} of {progress.total_rows:,} rows ({progress.fraction:.0%})".replace("%", " %")]
    if progress.skipped:
        parts.append(f"{progress.skipped:,} skipped")
    if progress.rows_per_s:
        parts.append(f"{progress.rows_per_s:,.0f} rows/s")
    if progress.eta_s >= 0:
        parts.append(f"{write_seconds(progress.eta_s)} left")
    return ", ".join(parts)


def write_seconds(seconds: float) -> str:
    """A duration.

    >>> write_seconds(42), write_seconds(150), write_seconds(7300)
    ('42 s', '2 min 30 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def _open_bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def tell(progress: Progress) -> None:
            bar.update(task, completed=progress.fraction, description=write_progress(progress))

        yield tell
