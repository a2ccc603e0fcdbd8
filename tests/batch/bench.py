"""What runs one batch after the other in a directory, for the tests of scoring."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from hyperion.batch.run import Run
from hyperion.batch.start import Setup, run_batch
from hyperion.schema.batch import Progress, Summary
from hyperion.schema.config import ControlConfig
from hyperion.schema.resource import BatchJobSpec
from tests.batch.tables import TinyModels, make_rows, write_table

ROWS = 300


class Bench:
    """Runs batches in a directory. `columns` map the input of the tiny models unless something else is said."""

    def __init__(self, directory: Path, models: TinyModels) -> None:
        self.directory, self.models = directory, models
        self.run_dir = directory / "run"
        self.run_dir.mkdir()
        self.started: Callable[[Run], None] = lambda _run: None
        self.stop_at = 0  # stop the run once so many rows are done

    def score(self, source: str | Path, target: str | Path, restart: bool = False, **spec: Any) -> Summary:
        done = self.try_score(source, target, restart, **spec)
        assert done is not None, "it was stopped"
        return done

    def try_score(self, source: str | Path, target: str | Path, restart: bool = False, **given: Any) -> Summary | None:
        columns = {"x": ("x0", "x1", "x2", "x3")}
        values = {"model": str(self.models.plain), "columns": columns, "chunk_rows": 40, "batch_rows": 16, **given}
        platform = ControlConfig(str(self.directory), str(self.directory / "home"))
        setup = Setup(platform, self.run_dir, workers=1, restart=restart)
        runs: list[Run] = []

        def started(run: Run) -> None:
            runs.append(run)
            self.started(run)

        def tell(progress: Progress) -> None:
            if 0 < self.stop_at <= progress.rows:
                runs[0].stop()

        return run_batch(BatchJobSpec(str(source), str(target), **values), setup, tell, started)

    def table(self, name: str, rows: int = ROWS) -> Path:
        return write_table(self.directory / name, make_rows(rows))


def save_onnx(path: Path, inputs: list[Any], outputs: list[Any], nodes: list[Any]) -> str:
    """A model of these nodes; returns its path."""
    graph = helper.make_graph(nodes, "test", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)
