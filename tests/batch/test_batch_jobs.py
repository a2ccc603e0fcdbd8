"""A `BatchJob` runs by itself, survives the death of everything around it, and stays where the operator lets it."""

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.batch.tables import TinyModels, make_rows, read_ids_and_answers, wait_for_parts, write_table
from tests.e2e.admin_client import Api, Refused, wait_until
from tests.e2e.served import Served, command_line

pytestmark = pytest.mark.timeout(120)
ROWS = 400


class Stage:
    """A served platform with models, a directory for tables, a database, and its management API."""

    def __init__(self, served: Served, api: Api, data: Path) -> None:
        self.served, self.api, self.data = served, api, data

    def apply(self, name: str, **spec: Any) -> Any:
        given = {"model": "tiny@1", "source": str(self.data / "in.parquet"), "columns": {"x": ["x?"]}, **spec}
        body = {"apiVersion": "hyperion/v1", "kind": "BatchJob", "metadata": {"name": name}, "spec": given}
        return self.api.ask("POST", "batchjobs", body)["changes"][0]["action"]

    def status(self, name: str) -> Any:
        with contextlib.suppress(OSError):  # control is being started again
            return self.api.ask("GET", f"batchjobs/{name}")["status"]
        return {"state": "away"}

    def wait(self, name: str, *states: str) -> Any:
        wait_until(lambda: self.status(name)["state"] in states, timeout_s=60.0)
        return self.status(name)

    def workers(self, name: str) -> list[int]:
        """The process of a job, by its command line, and no runner of it."""
        return [one.pid for one in self.served.processes() if command_line(one.pid).endswith(f" batch {name}")]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("batch")
    data = directory / "data"
    data.mkdir()
    write_table(data / "in.parquet", make_rows(ROWS))
    databases = directory / "databases.toml"
    databases.write_text(f'lake = "sqlite:///{directory / "lake.db"}"\n')
    options = ("--batch-dirs", str(data), "--batch-databases", str(databases))
    program = "tests.e2e.hasty_serve"
    with Served(directory / "home", options=options, program=program) as served, Api(served) as api:
        models = TinyModels(directory / "models")
        for version, path in (("1", models.plain), ("2", models.slow), ("3", models.picky)):
            api.push("tiny", version, path)
        yield Stage(served, api, data)


def test_a_job_that_is_applied_is_run_and_its_end_is_in_the_ledger(stage: Stage) -> None:
    out = stage.data / "first.parquet"
    assert stage.apply("first", target=str(out)) == "created"
    status = stage.wait("first", "succeeded", "failed")
    assert (status["state"], status["reason"]) == ("succeeded", "")
    assert status["summary"]["written"] == status["progress"]["rows"] == ROWS
    assert status["summary"]["model"] == "tiny@1"
    assert read_ids_and_answers(out) == {row["id"]: row["sum"] for row in make_rows(ROWS)}
    kinds = [entry["kind"] for entry in stage.api.entries("first")]
    assert kinds == ["batchjob.apply", "batchjob.queued", "batchjob.running", "batchjob.succeeded"]
    wait_until(lambda: not stage.workers("first"))


def test_applying_the_same_again_runs_nothing_and_another_spec_runs_anew(stage: Stage) -> None:
    out = stage.data / "again.parquet"
    stage.apply("again", target=str(out))
    stage.wait("again", "succeeded")
    assert stage.apply("again", target=str(out)) == "unchanged"
    assert stage.status("again")["state"] == "succeeded"
    elsewhere = stage.data / "elsewhere.csv"
    assert stage.apply("again", target=str(elsewhere), keep=["id"]) == "configured"
    wait_until(lambda: stage.status("again")["state"] == "succeeded" and elsewhere.exists(), timeout_s=60.0)
    assert stage.status("again")["generation"] == 2
    assert len(elsewhere.read_text().splitlines()) == ROWS + 1


def test_a_killed_worker_and_a_killed_control_cost_a_job_no_row(stage: Stage) -> None:
    out = stage.data / "killed.parquet"
    stage.apply("killed", model="tiny@2", target=str(out), chunk_rows=20, batch_rows=10)
    parts = 0
    for role in ("worker", "control", "worker"):
        stage.wait("killed", "running")
        parts = wait_for_parts(out, parts + 1)
        (worker,) = stage.workers("killed")
        if role == "worker":
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: stage.workers("killed") not in ([], [worker]), timeout_s=30.0)  # noqa: B023
            continue
        (control,) = stage.served.pids("control")
        os.kill(worker, signal.SIGSTOP)  # or it would have come to its end before control is there again
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: stage.served.pids("control") not in ([], [control]), timeout_s=30.0)  # noqa: B023
        assert stage.wait("killed", "running")["generation"] == 1
        assert stage.workers("killed") == [worker], "control has adopted it"
        os.kill(worker, signal.SIGCONT)
    status = stage.wait("killed", "succeeded", "failed")
    assert (status["state"], status["summary"]["rows"]) == ("succeeded", ROWS)
    assert 0 < status["summary"]["scored_rows"] < ROWS, "it began from the beginning"
    assert read_ids_and_answers(out) == {row["id"]: row["sum"] for row in make_rows(ROWS)}


def test_a_job_that_replaces_scores_a_changed_source_again_and_each_row_once(stage: Stage) -> None:
    """Killed meanwhile it goes on all the same, and does not begin anew."""
    source, out = stage.data / "nightly-in.parquet", stage.data / "nightly.parquet"
    spec = {"source": str(source), "target": str(out), "model": "tiny@2", "chunk_rows": 20, "batch_rows": 10}
    for night, rows in enumerate((make_rows(60), make_rows(ROWS))):
        write_table(source, rows)
        stage.apply("nightly", **spec, replace=True)
        if night:
            wait_until(lambda: stage.status("nightly")["progress"]["rows"] > 0, timeout_s=30.0)
            for worker in stage.workers("nightly"):
                os.kill(worker, signal.SIGKILL)
        status = stage.wait("nightly", "succeeded", "failed")
        assert (status["state"], status["summary"]["rows"]) == ("succeeded", len(rows)), status["reason"]
        assert read_ids_and_answers(out) == {row["id"]: row["sum"] for row in rows}
        stage.api.ask("DELETE", "batchjobs/nightly")
    assert status["summary"]["scored_rows"] < ROWS, "it began from the beginning"
    write_table(source, make_rows(30))
    stage.apply("nightly", **spec)
    status = stage.wait("nightly", "succeeded", "failed")
    assert status["state"] == "failed"
    assert "replace: true" in status["reason"]


def test_deleting_a_job_stops_it(stage: Stage) -> None:
    out = stage.data / "deleted.parquet"
    stage.apply("deleted", model="tiny@2", target=str(out), chunk_rows=20, batch_rows=2)
    stage.wait("deleted", "running")
    wait_until(lambda: bool(stage.workers("deleted")), timeout_s=30.0)
    stage.api.ask("DELETE", "batchjobs/deleted")
    wait_until(lambda: not stage.workers("deleted"), timeout_s=30.0)
    with pytest.raises(Refused, match="404"):
        stage.api.ask("GET", "batchjobs/deleted")
    assert not out.exists()
    assert stage.api.entries("deleted")[-1]["kind"] == "batchjob.cancelled"


def test_jobs_run_one_after_the_other(stage: Stage) -> None:
    for name in ("one", "two"):
        stage.apply(name, model="tiny@2", target=str(stage.data / f"{name}.parquet"), chunk_rows=50, batch_rows=50)
    stage.wait("one", "running", "succeeded")
    while stage.status("one")["state"] == "running":
        assert stage.status("two")["state"] != "running" or stage.status("one")["state"] != "running"
    assert stage.wait("two", "succeeded")["started_at"] >= stage.status("one")["finished_at"]


def test_a_row_that_the_model_refuses_fails_the_job_for_good_and_names_the_row(stage: Stage) -> None:
    stage.apply("picky", model="tiny@3", target=str(stage.data / "picky.parquet"))
    status = stage.wait("picky", "succeeded", "failed")
    assert status["state"] == "failed"
    assert status["reason"].startswith("row 20: the model failed: ValueError")
    stage.apply("picky", model="tiny@3", target=str(stage.data / "picky.parquet"), on_error="skip")
    status = stage.wait("picky", "succeeded")
    assert (status["generation"], status["summary"]["skipped"]) == (2, 1)


def test_a_database_is_used_by_its_name_and_no_credential_is_kept(stage: Stage) -> None:
    stage.apply("to-lake", target="sql:lake", table="scored", keep=["id"])
    assert stage.wait("to-lake", "succeeded", "failed")["state"] == "succeeded"
    with sqlite3.connect(stage.data.parent / "lake.db") as lake:
        assert dict(lake.execute("select id, y from scored")) == {row["id"]: row["sum"] for row in make_rows(ROWS)}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"source": "/etc/passwd", "target": "OUT"}, "not below a directory that --batch-dirs names"),
        ({"target": "/tmp/out.parquet"}, "not below a directory that --batch-dirs names"),
        ({"target": "DATA/../out.parquet"}, "not below a directory that --batch-dirs names"),
        ({"target": "DATA/link/out.parquet"}, "not below a directory that --batch-dirs names"),
        ({"target": "sql:warehouse", "table": "t"}, "use no database 'warehouse'"),
        ({"target": "sql:postgresql://u:p@h/d", "table": "t"}, "and no URL"),
        ({"target": "OUT", "model": "tiny@9"}, "tiny"),
        ({"target": "OUT", "model": ""}, "expected one of model"),
        ({"target": "OUT", "model": "", "endpoint": "nobody"}, 'no endpoint "nobody"'),
        ({"target": "OUT", "model": "./tiny@1"}, "expected NAME@VERSION"),
        ({"target": "relative.parquet"}, "absolute path"),
        ({"target": "OUT", "batch_rows": 0}, "batch_rows"),
        ({"target": "OUT", "query": "select 1"}, "begins with sql:"),
        ({"target": "OUT", "columns": {"x": []}}, "1 to"),
    ],
)
def test_what_a_job_may_not_do_is_refused_when_it_is_applied(stage: Stage, spec: dict[str, Any], why: str) -> None:
    link = stage.data / "link"
    if not link.exists():
        link.symlink_to("/tmp")
    text = (
        json.dumps(spec).replace('"OUT"', json.dumps(str(stage.data / "no.parquet"))).replace("DATA", str(stage.data))
    )
    with pytest.raises(Refused) as refused:
        stage.apply("refused", **json.loads(text))
    assert why in json.loads(refused.value.detail)["error"]
    assert 400 <= refused.value.status < 500
