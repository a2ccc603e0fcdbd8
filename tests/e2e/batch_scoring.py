"""Batch scoring against bare ONNX Runtime on the same cores: throughput, memory, and rows after being killed.

    python -m tests.e2e.batch_scoring --rows 10000000

Bare means: the same model, as many sessions of one thread as there are runners, the batch size at which it is fastest;
once with the table in memory already, once reading it with pyarrow as it goes. `hyperion batch` has its defaults. All
run at the priority that runners have, turn by turn. On a machine that others use, too, look at the rows per second of
one core's time: what a row costs. The suite only kills it (`test_batch_scoring.py`), where figures mean nothing and
rows do.
"""

import argparse
import json
import os
import queue
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnx
import onnxruntime
import psutil
import pyarrow as pa
import pyarrow.parquet
from onnx import TensorProto, helper, numpy_helper

from hyperion.runner.threads import NICE

FEATURES: Final = 20
ROW_GROUP: Final = 250_000
PIECE: Final = 1_000_000
SIZES: Final = (256, 512, 1024, 2048, 4096)
Array = np.ndarray[Any, Any]


class Rate(msgspec.Struct):
    """Rows per second, and rows per second of one core's time."""

    wall: float = 0.0
    core: float = 0.0

    def best(self, other: "Rate") -> "Rate":
        """The better of each: the other was disturbed by more."""
        return Rate(max(self.wall, other.wall), max(self.core, other.core))


class Report(msgspec.Struct):
    """What each way reached, bytes, and what became of the rows."""

    rows: int
    cores: int
    bare_in_memory: Rate
    bare_reading: Rate
    batch: Rate
    peak_bytes: int
    kills: int
    lost_rows: int
    doubled_rows: int
    other_answers: int


def write_rows(path: Path, rows: int) -> None:
    """A Parquet file with an id and `FEATURES` columns of float32, written in pieces."""
    generator = np.random.default_rng(4)
    names = ["id", *(f"f{number}" for number in range(FEATURES))]
    schema = pa.schema([(names[0], pa.int64()), *((name, pa.float32()) for name in names[1:])])
    with pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for first in range(0, rows, PIECE):
            count = min(PIECE, rows - first)
            values = generator.standard_normal((FEATURES, count), dtype=np.float32)
            writer.write_table(pa.table([np.arange(first, first + count), *values], schema=schema), ROW_GROUP)


def write_model(path: Path, hidden: tuple[int, ...]) -> None:
    """A network of dense layers with ReLU between them, from `FEATURES` numbers to one."""
    generator = np.random.default_rng(5)
    widths = (FEATURES, *hidden, 1)
    nodes, weights, last = [], [], "X"
    for layer, (width, after) in enumerate(pairwise(widths)):
        matrix = (generator.standard_normal((width, after)) / width**0.5).astype(np.float32)
        weights += [
            numpy_helper.from_array(matrix, f"w{layer}"),
            numpy_helper.from_array(np.zeros(after, np.float32), f"b{layer}"),
        ]
        final = layer == len(widths) - 2
        made = "score" if final else f"sum{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [made]))
        last = made
        if not final:
            nodes.append(helper.make_node("Relu", [made], [f"relu{layer}"]))
            last = f"relu{layer}"
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", FEATURES])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph(nodes, "dense", [given], [score], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def measure_bare(model: Path, table: Path, lanes: int, rows: int, best: int = 0) -> tuple[Rate, Rate, int]:
    """What is reached with the rows in memory and when reading as it goes, and the batch size that was best."""
    sessions = [_open_session(model) for _ in range(lanes)]
    held = np.random.default_rng(6).standard_normal((min(rows, PIECE), FEATURES), dtype=np.float32)
    in_memory = {size: _run_in_memory(sessions, held, size) for size in ([best] if best else SIZES)}
    best = max(in_memory, key=lambda size: in_memory[size].core)
    again = _run_in_memory(sessions, held, best)
    return in_memory[best].best(again), _run_reading(sessions, table, best, rows), best


def _open_session(model: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _run_in_memory(sessions: list[Any], held: Array, size: int) -> Rate:
    share = -(-len(held) // len(sessions))

    def work(session: Any, first: int) -> None:
        for start in range(first, min(first + share, len(held)), size):
            session.run(None, {"X": held[start : start + size]})

    return _time_threads(
        len(held), [threading.Thread(target=work, args=(one, n * share)) for n, one in enumerate(sessions)]
    )


def _run_reading(sessions: list[Any], table: Path, size: int, rows: int) -> Rate:
    pieces: queue.Queue[Any] = queue.Queue(2)

    def read() -> None:
        with pyarrow.parquet.ParquetFile(table) as file:
            for piece in file.iter_batches(65_536, columns=[f"f{number}" for number in range(FEATURES)]):
                pieces.put(piece)
        for _ in sessions:
            pieces.put(None)

    def work(session: Any) -> None:
        while (piece := pieces.get()) is not None:
            columns = [np.frombuffer(one.buffers()[1], np.float32)[one.offset :][: len(one)] for one in piece.columns]
            for start in range(0, len(piece), size):
                rows = np.stack([column[start : start + size] for column in columns], axis=1)
                session.run(None, {"X": rows})

    return _time_threads(
        rows, [threading.Thread(target=read), *(threading.Thread(target=work, args=(one,)) for one in sessions)]
    )


def _time_threads(rows: int, threads: list[threading.Thread]) -> Rate:
    started, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Rate(rows / (time.perf_counter() - started), rows / (time.process_time() - used))


class Command:
    """`hyperion batch` over the table, in a process group of its own, with its memory watched."""

    def __init__(self, directory: Path, out: Path, lanes: int, *more: str) -> None:
        self.peak_bytes = 0
        self._journal = out.with_name(out.name + ".hyperion-batch") / "journal.jsonl"
        # Its runners lower their own priority: all of it has to have the same as what it is held against.
        self._process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "hyperion",
                    "batch",
                    str(directory / "mlp.onnx"),
                    str(directory / "in.parquet"),
                ),
                *(str(out), "--columns", "X=f*", "--keep", "id", "--json", "--workers", str(lanes)),
                *more,
            ],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def wait(self) -> Any:
        """The summary of a run that came to its end."""
        text, _ = self._process.communicate()
        assert self._process.returncode == 0, f"hyperion batch ended with {self._process.returncode}"
        return json.loads(text)

    def kill_after(self, seconds: float) -> bool:
        """SIGKILL to the whole group; False where it had come to its end before."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            return True
        self._process.communicate()
        return False

    def kill_after_parts(self, more: int) -> bool:
        """SIGKILL to the whole group once its journal notes so many more parts; False where it had come to its end."""
        wanted = self._parts() + more
        while self._parts() < wanted and self._process.poll() is None:
            time.sleep(0.005)
        return self.kill_after(0.0)

    def _parts(self) -> int:
        return self._journal.read_text().count("part {") if self._journal.exists() else 0

    def _watch(self) -> None:
        """The sum of the proportional set sizes of its processes, which count shared pages once."""
        while self._process.poll() is None:
            total = 0
            try:
                main = psutil.Process(self._process.pid)
                for process in (main, *main.children(recursive=True)):
                    total += process.memory_full_info().pss
            except psutil.Error:
                continue  # one has just left
            self.peak_bytes = max(self.peak_bytes, total)
            time.sleep(0.1)


def judge_rows(out: Path, reference: Path, rows: int) -> tuple[int, int, int]:
    """Rows that are missing, rows that are there again, and rows with another answer than in `reference`."""
    found, wanted = (pyarrow.parquet.read_table(path) for path in (out, reference))
    counts = np.bincount(found.column("id").to_numpy(), minlength=rows)
    same_ids = found.column("id").equals(wanted.column("id"))
    answers = [table.column("score").to_numpy().view(np.uint32) for table in (found, wanted)]
    other = int((answers[0] != answers[1]).sum()) if same_ids else rows
    return int((counts == 0).sum()), int((counts > 1).sum()), other


def run(rows: int, kills: int, hidden: tuple[int, ...], rounds: int, directory: Path) -> Report:
    """Everything, in `directory`."""
    lanes = len(os.sched_getaffinity(0))
    table, model = directory / "in.parquet", directory / "mlp.onnx"
    write_rows(table, rows)
    write_model(model, hidden)
    memory, reading, batch = Rate(), Rate(), Rate()
    size = peak = 0
    reference = directory / "reference.parquet"
    for number in range(rounds):
        one_memory, one_reading, size = measure_bare(model, table, lanes, rows, size)
        out = directory / f"out-{number}.parquet"
        used = _children_s()
        command = Command(directory, out, lanes)
        summary = command.wait()
        one_batch = Rate(summary["rows_per_s"], rows / (_children_s() - used))
        assert summary["rows"] == summary["written"] == rows, summary
        sys.stderr.write(
            f"round {number + 1}: bare {one_memory.wall:,.0f} rows/s in memory, {one_reading.wall:,.0f} reading, in "
            f"batches of {size}; hyperion batch {one_batch.wall:,.0f}; load {os.getloadavg()[0]:.1f}\n"
        )
        memory, reading, batch = memory.best(one_memory), reading.best(one_reading), batch.best(one_batch)
        peak = max(peak, command.peak_bytes)
        os.replace(out, reference)
    out, done, chance = directory / "killed.parquet", 0, random.Random(7)
    whole_s = rows / batch.wall
    while done < kills:
        if not Command(directory, out, lanes).kill_after(2.0 + chance.random() * min(whole_s / 2, 10.0)):
            break  # it came to its end in between
        done += 1
    Command(directory, out, lanes).wait()
    lost, doubled, other = judge_rows(out, reference, rows)
    return Report(rows, lanes, memory, reading, batch, peak, done, lost, doubled, other)


def kill_often(rows: int, chunk_rows: int, kills: int, directory: Path) -> Report:
    """Only the part about the rows: a run that is left alone, and one that is killed after every second chunk."""
    lanes = len(os.sched_getaffinity(0))
    chunks = ("--chunk-rows", str(chunk_rows))
    write_rows(directory / "in.parquet", rows)
    write_model(directory / "mlp.onnx", (128, 64))
    reference, out = directory / "reference.parquet", directory / "killed.parquet"
    whole = Command(directory, reference, lanes, *chunks)
    summary = whole.wait()
    assert summary["rows"] == summary["written"] == rows, summary
    done = sum(Command(directory, out, lanes, *chunks).kill_after_parts(2) for _ in range(kills))
    Command(directory, out, lanes, *chunks).wait()
    lost, doubled, other = judge_rows(out, reference, rows)
    return Report(rows, lanes, Rate(), Rate(), Rate(), whole.peak_bytes, done, lost, doubled, other)


def _children_s() -> float:
    """Seconds of cores that children took which have ended, their own start included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Print the report; 1 where a row was lost, doubled or answered differently."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--hidden", default="512,256", help="widths of the hidden layers")
    given = parser.parse_args()
    os.nice(NICE)
    directory = Path(tempfile.mkdtemp(prefix="batch-scoring-"))
    try:
        hidden = tuple(int(width) for width in given.hidden.split(","))
        report = run(given.rows, given.kills, hidden, given.rounds, directory)
    finally:
        shutil.rmtree(directory)
    print(f"{report.rows:,} rows on {report.cores} cores, hidden layers {given.hidden}")
    print(f"{'':34}{'rows/s':>12}{'rows per core-second':>24}{'batch is':>12}")
    batch = report.batch
    for name, rate in (
        ("bare, rows in memory", report.bare_in_memory),
        ("bare, reading the same Parquet", report.bare_reading),
        ("hyperion batch", batch),
    ):
        share = f"{batch.wall / rate.wall:.0%} / {batch.core / rate.core:.0%}"
        print(f"{name:34}{rate.wall:>12,.0f}{rate.core:>24,.0f}{share:>12}")
    print(f"memory of all its processes: {report.peak_bytes / 1e6:,.0f} MB at most")
    print(
        f"killed {report.kills} times: {report.lost_rows} rows lost, {report.doubled_rows} doubled, "
        f"{report.other_answers} with another answer"
    )
    return 1 if report.lost_rows or report.doubled_rows or report.other_answers else 0


if __name__ == "__main__":
    sys.exit(main())
