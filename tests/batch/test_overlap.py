"""What goes on at the same time in a run: rows are scored while others are written, and joined while the run lasts."""

import threading
from pathlib import Path
from typing import Any

import pytest

from hyperion.batch import lane
from hyperion.batch.target_files import FileTarget
from hyperion.schema.errors import StorageFailed
from tests.batch.bench import ROWS, Bench
from tests.batch.tables import read_ids_and_answers, read_table

pytestmark = pytest.mark.timeout(120)
PATIENCE_S = 40.0


def test_the_model_does_not_wait_for_the_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    scored, second = [], threading.Event()
    score, write = lane.Lane.score, FileTarget.write

    def count(one: lane.Lane, chunk: Any) -> Any:
        done = score(one, chunk)
        scored.append(chunk.index)
        if len(scored) == 2:
            second.set()
        return done

    def wait(target: FileTarget, *part: Any) -> None:
        assert second.wait(PATIENCE_S), "the second chunk was not scored before the first one was written"
        write(target, *part)

    monkeypatch.setattr(lane.Lane, "score", count)
    monkeypatch.setattr(FileTarget, "write", wait)
    bench.score(bench.table("in.parquet"), bench.directory / "out.parquet")
    assert [row["id"] for row in read_table(bench.directory / "out.parquet")] == list(range(ROWS))


def test_what_is_done_is_joined_before_the_end_and_gone_when_the_run_is_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = bench.table("in.parquet"), bench.directory / "out.csv"
    whole = Path(f"{out}.hyperion-batch") / "whole.new"
    write, seen = FileTarget.write, []

    def look(target: FileTarget, *part: Any) -> None:
        write(target, *part)
        whole_file = target._whole
        assert whole_file is not None
        whole_file._file.flush()
        seen.append(whole.read_text().count("row, "))

    monkeypatch.setattr(FileTarget, "write", look)
    bench.stop_at = 40
    assert bench.try_score(source, out, model=str(bench.models.slow)) is None
    assert seen[0] == 40
    assert not whole.exists()
    bench.stop_at = 0
    bench.score(source, out, model=str(bench.models.slow))
    assert seen[-1] == ROWS, "what an earlier run had done is joined, too"
    assert read_ids_and_answers(out).keys() == set(range(ROWS))


def test_a_disk_that_takes_no_more_ends_the_run_and_no_row_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = bench.table("in.parquet"), bench.directory / "out.parquet"
    write, parts = FileTarget.write, []

    def fail(target: FileTarget, part: Any, *rest: Any) -> None:
        parts.append(part.index)
        if len(parts) == 3:
            raise StorageFailed("the disk is full")
        write(target, part, *rest)

    monkeypatch.setattr(FileTarget, "write", fail)
    with pytest.raises(StorageFailed, match="the disk is full"):
        bench.score(source, out)
    assert len(parts) == 3, "nothing is written after that"
    done = bench.score(source, out)
    assert (done.rows, done.scored_rows < ROWS) == (ROWS, True)
    assert read_ids_and_answers(out).keys() == set(range(ROWS))
