"""One run from its source to its target: read chunks in order, score them in lanes, keep each part once, join them.

Called by `cli` and by `batch/process`. One thread reads, one chunk ahead; each lane is a thread with a link of its own;
one thread writes, so that no model waits for a disk; the caller's thread watches. Memory is bounded by the lanes: each
has one chunk, one more waits for a lane, and two that are scored wait for the disk.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from hyperion.batch.arrow import load_arrow
from hyperion.batch.columns import choose_kept, plan_inputs
from hyperion.batch.journal import AGAIN, Header, Part
from hyperion.batch.lane import Lane, Plan, Stopped
from hyperion.batch.link import Link
from hyperion.batch.outputs import output_fields, plan_outputs
from hyperion.batch.source import Chunk, Source
from hyperion.batch.target import RowError, Target
from hyperion.batch.values import check_types
from hyperion.schema.batch import Progress, Summary
from hyperion.schema.errors import Conflict, HyperionError, InternalError
from hyperion.schema.resource import BatchJobSpec

LOOK_S: Final = 0.2
FULL: Final = 1  # chunks that wait to be scored, and to be written


class Scorer(Struct, frozen=True):
    """Who computes: what was asked for, which version that is, and how a lane gets a link to it."""

    asked: str
    model: str
    digest: str
    connect: Callable[[int], Link]


class _Scored:
    """A chunk on its way to the disk."""

    __slots__ = ("errors", "part", "table")

    def __init__(self, part: Part, table: Any, errors: Sequence[RowError]) -> None:
        self.part = part
        self.table = table
        self.errors = errors


class Run:
    """One attempt at a run, of a `BatchJob` the one of that `name`. `tell` is called with each new progress, on the
    thread of `score`."""

    def __init__(
        self,
        spec: BatchJobSpec,
        source: Source,
        target: Target,
        scorer: Scorer,
        tell: Callable[[Progress], None],
        name: str = "",
    ) -> None:
        self._spec = spec
        self._source = source
        self._target = target
        self._scorer = scorer
        self._tell = tell
        self._name = name
        self._stop = threading.Event()
        self._waiting: queue.Queue[Chunk | None] = queue.Queue(FULL)
        self._scored_chunks: queue.Queue[_Scored | None] = queue.Queue(FULL)
        self._failed: list[BaseException] = []
        self._known: dict[int, Part] = {}
        self._rows = self._skipped = self._scored = 0
        self._chunks = 0
        self._started = time.monotonic()

    def stop(self) -> None:
        """End soon, so that the same command goes on from there. Safe in a signal handler."""
        self._stop.set()

    def score(self, lanes: int, restart: bool = False) -> Summary | None:
        """Score what is left; None where it was stopped before the end. Raises HyperionError, Conflict where what is
        there is of another run."""
        links: list[Link] = []
        try:
            links.append(self._scorer.connect(0))
            plan, text = self._plan(links[0], restart)
            if self._target.end is None:
                links += [self._scorer.connect(number) for number in range(1, lanes)]
                self._work(links, plan, text)
                if self._failed:
                    raise self._failed[0]
                if self._stop.is_set():
                    return None
                errors = self._target.finish(self._chunks)
            else:
                errors = ""
        finally:
            for link in links:
                link.close()
        return self._sum_up(errors)

    def _plan(self, link: Link, restart: bool) -> tuple[Plan, list[str]]:
        """What is done with each chunk, and which columns come as text; the target is ready for it."""
        spec, source, target = self._spec, self._source, self._target
        inputs = plan_inputs(link.signature, source.schema, spec.columns)
        for one in inputs:
            check_types(one, source.schema, source.from_text)
        outputs = plan_outputs(link.signature, target.has_lists)
        fields = output_fields(outputs)
        kept = choose_kept(spec.keep, source.schema, [name for name, _ in fields])
        schema = _join_schema(source.schema, kept, fields)
        target.check(schema)
        text = sorted({name for one in inputs for name in one.columns}) if source.from_text else []
        header = Header(self._scorer.asked, self._scorer.model, self._scorer.digest, self._facts(), run=self._name)
        if restart or target.header is None or not (target.parts or target.end):
            target.begin(header, schema)
        else:
            explain_change(target.header, header)
            if target.end is None:
                target.resume(schema)
        self._known = dict(target.parts)
        self._rows = sum(part.rows for part in self._known.values())
        self._skipped = sum(part.rows - part.written for part in self._known.values())
        if spec.on_error == "fail" and self._skipped and target.end is None:
            raise Conflict(
                f"{self._skipped} rows were skipped before, which --on-error fail does not let be; go on with "
                f"--on-error skip, or {AGAIN}"
            )
        plan = Plan(
            inputs,
            outputs,
            kept,
            schema,
            batch_rows=spec.batch_rows,
            skip=spec.on_error == "skip",
            from_text=source.from_text,
        )
        return plan, text

    def _facts(self) -> dict[str, Any]:
        spec = self._spec
        return {
            "source": self._source.facts,
            "target": self._target.facts,
            "columns": {name: list(columns) for name, columns in spec.columns.items()},
            "keep": list(spec.keep),
            "chunk rows": spec.chunk_rows,
            "batch rows": spec.batch_rows,
        }

    def _work(self, links: Sequence[Link], plan: Plan, text: Sequence[str]) -> None:
        columns = [*plan.kept, *(name for one in plan.inputs for name in one.columns if name not in plan.kept)]
        threads = [threading.Thread(target=self._guard, args=(self._read, columns, text), name="reader")]
        for link in links:
            lane = Lane(link, plan, self._stop.is_set)
            threads.append(threading.Thread(target=self._guard, args=(self._lane, lane), name="lane"))
        writer = threading.Thread(target=self._write, name="writer")
        self._started = time.monotonic()
        self._tell(self._progress())
        for thread in (*threads, writer):
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(LOOK_S) if threads[0].is_alive() else threads[-1].join(LOOK_S)
                self._tell(self._progress())
        except BaseException:
            self._stop.set()
            raise
        finally:
            for thread in threads:
                thread.join()
            self._scored_chunks.put(None)
            writer.join()

    def _guard(self, work: Callable[..., None], *args: Any) -> None:
        """What a thread does; the first thing that goes wrong ends them all."""
        try:
            work(*args)
        except Stopped:
            return
        except HyperionError as error:
            self._failed.append(error)
            self._stop.set()
        except BaseException as error:
            self._failed.append(InternalError(f"{type(error).__name__}: {error}"))
            self._failed[-1].__cause__ = error
            self._stop.set()

    def _read(self, columns: Sequence[str], text: Sequence[str]) -> None:
        known = self._known
        last = -1
        for chunk in self._source.read(columns, text, lambda index: index not in known):
            last = chunk.index
            done = known.get(chunk.index)
            if done is None:
                self._put(chunk)
            elif not self._source.steady and (done.digest, done.rows) != (chunk.digest, chunk.rows):
                raise Conflict(
                    f"the rows of chunk {chunk.index} (from row {chunk.first} on) are not those that were scored "
                    f"before: the source has changed; {AGAIN}"
                )
            if self._stop.is_set():
                return
        self._chunks = max([last + 1, *(index + 1 for index in known)])
        self._put(None)

    def _put(self, chunk: Chunk | None) -> None:
        while not self._stop.is_set():
            try:
                self._waiting.put(chunk, timeout=LOOK_S)
                return
            except queue.Full:
                continue

    def _lane(self, lane: Lane) -> None:
        while not self._stop.is_set():
            try:
                chunk = self._waiting.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if chunk is None:
                self._put(None)  # for the next lane
                return
            table, errors = lane.score(chunk)
            scored = _Scored(Part(chunk.index, chunk.rows, table.num_rows, chunk.digest), table, errors)
            while not self._failed:
                try:
                    self._scored_chunks.put(scored, timeout=LOOK_S)
                    break
                except queue.Full:
                    continue

    def _write(self) -> None:
        """Keep what lanes have scored, to the last of it also where the run was told to stop; nothing after a failure,
        but lanes must not wait for ever."""
        while (scored := self._scored_chunks.get()) is not None:
            if not self._failed:
                self._guard(self._keep, scored)

    def _keep(self, scored: "_Scored") -> None:
        self._target.write(scored.part, scored.table, scored.errors)
        self._rows += scored.part.rows
        self._scored += scored.part.rows
        self._skipped += len(scored.errors)

    def _progress(self) -> Progress:
        took_s = max(1e-9, time.monotonic() - self._started)
        total = self._source.total_rows
        fraction = self._rows / total if total else self._source.fraction()
        rate = self._scored / took_s
        eta_s = (total - self._rows) / rate if total and rate else -1.0
        if not total and fraction > 0.0:
            eta_s = took_s / fraction * (1.0 - fraction)
        return Progress(self._rows, self._skipped, total, min(1.0, fraction), rate, eta_s)

    def _sum_up(self, errors: str) -> Summary:
        end, header = self._target.end, self._target.header
        assert end is not None, "finished"
        assert header is not None, "begun"
        took_s = time.monotonic() - self._started
        return Summary(
            self._spec.target,
            end.rows,
            end.written,
            end.rows - end.written,
            self._scored,
            took_s,
            self._scored / took_s if self._scored else 0.0,
            header.model,
            header.digest,
            errors,
        )


def explain_change(old: Header, new: Header) -> None:
    """Raise Conflict, saying what differs, where a run that was begun is not the one that is asked for."""
    changed = [] if old.digest == new.digest else [f"the model was {old.model} ({old.digest[:19]}…)"]
    for name, value in new.facts.items():
        if old.facts.get(name) != value:
            changed.append(_tell_change(name, old.facts.get(name), value))
    if changed:
        raise Conflict(
            f"an earlier run with this target was another one: {'; '.join(changed)}. Give it again as it was, or "
            f"{AGAIN}, which replaces what is there"
        )


def _tell_change(name: str, old: Any, new: Any) -> str:
    if name == "source" and isinstance(old, Mapping) and isinstance(new, Mapping):
        parts = [key for key in new if old.get(key) != new[key]]
        return f"the source has changed ({', '.join(parts)})"
    return f"{name} was {str(old)[:80]}, is {str(new)[:80]}"


def _join_schema(schema: Any, kept: Sequence[str], fields: Sequence[tuple[str, Any]]) -> Any:
    arrow = load_arrow()
    return arrow.schema([*(schema.field(name) for name in kept), *(arrow.field(name, kind) for name, kind in fields)])
