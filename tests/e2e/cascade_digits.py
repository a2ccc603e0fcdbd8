"""A cascade on real data: how much compute it saves, and how much accuracy that costs, on rows that nobody had seen.

`python -m tests.e2e.cascade_digits --seeds 2`: scikit-learn's 1,797 digits are split into five folds. For each fold a
linear model and a support vector machine are trained on the other four, exported to ONNX, and served by a real
`hyperion serve` as two endpoints and as a cascade of both; the fold is what all three are asked for. The cascade's
temperature and threshold come from predictions for those four folds that were made out of fold (by models that were
trained without the row), so neither training nor calibration has seen a row of the test.

A fold has 360 rows, one of which is 0.28 points: only all folds together, each row held out once per seed, can show 0.2
points. Compute is what each model reports for itself (`server-timing`), the median by row of requests of 64 rows; the
cascade pays the small model for every row and the large one for those that `x-hyperion-cascade` counts. Prints a JSON
document; the exit code is 1 if less than half of the compute is saved, or more than 0.2 points are lost.
"""

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np
from examples.graphs.cascade.make_models import make_large, make_small, write_model
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from hyperion.policy.graph.cascade_fit import CascadeFit, fit_cascade
from tests.e2e.admin_client import Api
from tests.e2e.served import Served

FOLDS: Final = 5
ROWS: Final = 64
MAX_LOSS: Final = 0.002
LEAST_SAVED: Final = 0.5
READY_S: Final = 60.0
_COMPUTE: Final = re.compile(r"compute;dur=([0-9.]+)")
_COUNTS: Final = re.compile(r"small=(\d+),large=(\d+)")

Array = np.ndarray[Any, Any]


class Asked(NamedTuple):
    """What an endpoint said of all rows, the milliseconds of compute in all and by row, and the rows by step."""

    labels: Array
    total_ms: float
    row_ms: float
    steps: tuple[int, int]


class Fold(NamedTuple):
    """One fold, held out."""

    rows: int
    fit: CascadeFit
    small: Asked
    large: Asked
    cascade: Asked
    right: tuple[int, int, int]  # of small, large, cascade

    @property
    def escalated(self) -> int:
        return self.cascade.steps[1]


def calibrate(x: Array, y: Array) -> CascadeFit:
    """A fit on predictions that were made out of fold."""
    inner = StratifiedKFold(FOLDS, shuffle=True, random_state=1)
    scores = cross_val_predict(make_small(), x, y, cv=inner, method="predict_proba")
    large = cross_val_predict(make_large(), x, y, cv=inner)
    return fit_cascade(scores, y, large == y, MAX_LOSS)


def ask(served: Served, endpoint: str, x: Array) -> Asked:
    """Asks for all rows, in requests of `ROWS`."""
    labels: list[int] = []
    times, by_row, steps = [], [], [0, 0]
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        tensor = {"name": "x", "datatype": "FP32", "shape": list(part.shape), "data": part.ravel().tolist()}
        answer = served.post(
            f"/v2/models/{endpoint}/infer", json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]}).encode()
        )
        assert answer.status == 200, answer.body
        labels += answer.json()["outputs"][0]["data"]
        found = _COMPUTE.search(answer.headers["server-timing"])
        assert found is not None
        times.append(float(found[1]))
        by_row.append(float(found[1]) / len(part))
        if counts := _COUNTS.fullmatch(answer.headers.get("x-hyperion-cascade", "")):
            assert "x-hyperion-degraded" not in answer.headers
            steps = [steps[0] + int(counts[1]), steps[1] + int(counts[2])]
    return Asked(np.array(labels), sum(times), statistics.median(by_row), (steps[0], steps[1]))


def run_fold(served: Served, api: Api, seed: int, number: int, directory: Path) -> Fold:
    """Trains, calibrates, serves and asks one fold."""
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y))
    train, test = folds[number]
    fit = calibrate(x[train], y[train])
    tag = f"{seed}-{number}"
    for name, model in (("small", make_small()), ("large", make_large())):
        path = directory / f"{name}-{tag}.onnx"
        write_model(model.fit(x[train], y[train]), path)
        api.push(f"{name}-{tag}", "1", path)
        api.apply(f"{name}-{tag}", f"{name}-{tag}@1")
    until = {"confidence": fit.until.confidence, "temperature": fit.until.temperature}
    steps = [
        {"name": "small", "endpoint": f"small-{tag}", "until": until},
        {"name": "large", "endpoint": f"large-{tag}"},
    ]
    graph = {"kind": "cascade", "output": "probabilities", "steps": steps}
    resource = {
        "apiVersion": "hyperion/v1",
        "kind": "Endpoint",
        "metadata": {"name": f"cascade-{tag}"},
        "spec": {"graph": graph},
    }
    api.ask("POST", "resources", [resource])
    names = [f"{name}-{tag}" for name in ("small", "large", "cascade")]
    ends_s = time.monotonic() + READY_S
    while any(served.get(f"/v2/models/{name}/ready").status != 200 for name in names):
        assert time.monotonic() < ends_s, served.tail()
        time.sleep(0.05)
    small, large, cascade = (ask(served, name, x[test]) for name in names)
    for name in reversed(names):
        api.ask("DELETE", f"endpoints/{name}")
    right = tuple(int((one.labels == y[test]).sum()) for one in (small, large, cascade))
    return Fold(len(test), fit, small, large, cascade, (right[0], right[1], right[2]))


def sum_up(folds: Sequence[Fold]) -> dict[str, Any]:
    """What all folds show together."""
    rows = sum(fold.rows for fold in folds)
    small_ms = statistics.median(fold.small.row_ms for fold in folds)
    large_ms = statistics.median(fold.large.row_ms for fold in folds)
    escalated = sum(fold.escalated for fold in folds)
    right = [sum(fold.right[index] for fold in folds) / rows for index in range(3)]
    return {
        "held_out_rows": rows,
        "escalated_rows": escalated,
        "escalated": round(escalated / rows, 4),
        "row_us": {"small": round(small_ms * 1000, 2), "large": round(large_ms * 1000, 2)},
        "compute_saved": round(1 - (rows * small_ms + escalated * large_ms) / (rows * large_ms), 4),
        "compute_saved_as_it_ran": round(
            1 - sum(fold.cascade.total_ms for fold in folds) / sum(fold.large.total_ms for fold in folds), 4
        ),
        "accuracy": {name: round(one, 5) for name, one in zip(("small", "large", "cascade"), right, strict=True)},
        "points_lost": round(100 * (right[1] - right[2]), 3),
        "untils": [[fold.fit.until.confidence, fold.fit.until.temperature] for fold in folds],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a cascade on digits that nobody has seen.")
    parser.add_argument("--seeds", type=int, default=2)
    seeds = parser.parse_args().seeds
    with TemporaryDirectory() as directory, Served(Path(directory) / "home") as served, Api(served) as api:
        folds = [
            run_fold(served, api, seed, number, Path(directory)) for seed in range(seeds) for number in range(FOLDS)
        ]
    found = sum_up(folds)
    print(json.dumps(found, indent=2))
    return int(found["compute_saved"] < LEAST_SAVED or found["points_lost"] > 100 * MAX_LOSS)


if __name__ == "__main__":
    sys.exit(main())
