"""`hyperion batch` as people run it: in a shell, against a home and a platform, stopped by Ctrl-C and by SIGKILL."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperion.batch.endpoint_link import EndpointLink
from hyperion.cli.commands.batch import write_summary
from hyperion.schema.batch import Summary
from hyperion.schema.errors import UpstreamFailed
from tests.batch.tables import TinyModels, make_rows, read_ids_and_answers, wait_for_parts, write_table
from tests.e2e.admin_client import Api
from tests.e2e.served import Served

pytestmark = pytest.mark.timeout(120)
ROWS = 300
ANSWERS = {row["id"]: row["sum"] for row in make_rows(ROWS)}


class Shell:
    """Runs the command in a directory with a table, beside a platform."""

    def __init__(self, directory: Path, served: Served, models: TinyModels) -> None:
        self.directory, self.served, self.models = directory, served, models

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "hyperion", "batch", *map(str, words), "--columns", "x=x?"],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    directory = tmp_path_factory.mktemp("shell")
    models = TinyModels(directory / "models")
    write_table(directory / "in.parquet", make_rows(ROWS))
    with Served(directory / "home", models.plain) as served, Api(served) as api:
        api.push("tiny", "1", models.plain, alias="champion")
        api.push("tiny", "2", models.picky)
        api.apply("sums", "tiny@1", rollout={"strategy": "all-at-once"})
        api.wait_end("sums", "1")
        yield Shell(directory, served, models)


@pytest.mark.parametrize(
    ("model", "by"), [("tiny@1", "tiny@1"), ("tiny@champion", "tiny@1"), ("sums", "tiny@1"), ("plain", "plain")]
)
def test_a_version_an_alias_an_endpoint_and_a_served_path_are_scored_from_the_home(
    shell: Shell, model: str, by: str
) -> None:
    out = shell.directory / f"{model}.parquet"
    code, text, err = shell.run(model, "in.parquet", out, "--home", shell.served.home, "--workers", "1", "--json")
    assert (code, err) == (0, "")
    assert json.loads(text)["model"].startswith(by)
    assert read_ids_and_answers(out) == ANSWERS


def test_an_endpoint_can_be_asked_over_http_and_a_row_that_fails_there_is_skipped(shell: Shell) -> None:
    out = shell.directory / "asked.csv"
    url = ("--via-endpoint", "--url", shell.served.url)
    code, text, _ = shell.run("sums", "in.parquet", out, *url, "--json", "--batch-rows", "64")
    assert (code, json.loads(text)["written"]) == (0, ROWS)
    assert read_ids_and_answers(out) == ANSWERS
    with Api(shell.served) as api:
        api.apply("picky", "tiny@2", rollout={"strategy": "all-at-once"})
        api.wait_end("picky", "2")
    out = shell.directory / "skipped.parquet"
    code, text, _ = shell.run("picky", "in.parquet", out, *url, "--json", "--on-error", "skip")
    assert (code, json.loads(text)["skipped"]) == (0, 1)
    assert set(read_ids_and_answers(out)) == set(range(ROWS)) - {20}
    code, _, err = shell.run("nobody", "in.parquet", shell.directory / "no.csv", *url)
    assert (code, 'no endpoint "nobody"' in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("tiny@1", "in.parquet"), 2, "Missing argument"),
        (("tiny@9", "in.parquet", "out.csv"), 1, "tiny"),
        (("nobody", "in.parquet", "out.csv"), 1, 'no endpoint and no model "nobody"'),
        (("tiny@1", "in.parquet", "out.xls"), 2, "expected a name that ends in"),
        (("tiny@1", "in.parquet", "out.csv", "--columns", "x"), 2, "expected INPUT=COLUMN"),
        (("tiny@1", "in.parquet", "out.csv", "--on-error", "ignore"), 2, "ignore"),
        (("tiny@1", "in.parquet", "in.parquet"), 2, "source and target are the same"),
        (("./nothing.onnx", "in.parquet", "out.csv"), 1, "no such file"),
        (("tiny@1", "in.parquet", "sql:lake", "--table", "t"), 2, "lists no such database"),
    ],
)
def test_wrong_usage_is_one_line_with_a_code(shell: Shell, words: tuple[str, ...], code: int, why: str) -> None:
    found, out, err = shell.run(*words, "--home", shell.served.home)
    assert (found, out) == (code, "")
    assert why in err
    assert err.startswith("hyperion: ")
    assert err.count("\n") == 1


def test_ctrl_c_stops_and_says_how_to_go_on_and_so_does_the_same_command(shell: Shell) -> None:
    out = shell.directory / "stopped.parquet"
    words = (shell.models.slow, "in.parquet", out, "--workers", "1", "--chunk-rows", "20", "--batch-rows", "10")
    process = shell.start(*words)
    wait_for_parts(out, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the same command goes on from there" in err
    code, text, _ = shell.run(*words)
    assert code == 0
    assert "of them were there from before" in text
    assert read_ids_and_answers(out) == ANSWERS
    code, text, _ = shell.run(*words)
    assert (code, "nothing to do" in text) == (0, True)


def test_sigkill_of_the_whole_group_loses_and_doubles_no_row_and_leaves_no_process(shell: Shell) -> None:
    out = shell.directory / "killed.csv"
    words = (shell.models.slow, "in.parquet", out, "--workers", "2", "--chunk-rows", "10", "--batch-rows", "5")
    parts = 0
    for _ in range(2):
        process = shell.start(*words)
        parts = wait_for_parts(out, parts + 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert not out.exists()
    code, _, _ = shell.run(*words)
    assert code == 0
    assert read_ids_and_answers(out) == ANSWERS


@pytest.mark.timeout(60)
def test_an_endpoint_where_nothing_listens_is_an_error_at_once(tmp_path: Path) -> None:
    """And not only after the time that a platform may take to be started again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(UpstreamFailed, match=f"cannot be reached at {url}: .*see --url"):
        EndpointLink(url, "tiny")


def test_a_table_without_rows_is_not_said_to_be_scored_before() -> None:
    done = Summary("out.csv", 0, 0, 0, 0, 0.1, 0.0, "fraud@3", "sha256:0")
    assert write_summary(done) == "out.csv: the source has no rows"
