"""`hyperion batch`: score a table with a model."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click
import msgspec

from hyperion.batch.model import is_path
from hyperion.batch.run import Run
from hyperion.batch.run_dir import open_run_dir
from hyperion.batch.start import Served, Setup, run_batch
from hyperion.cli.batch_progress import show_progress
from hyperion.cli.resolve import Settings, find_files, resolve
from hyperion.cli.show import print_json
from hyperion.cli.tree import plan_control
from hyperion.schema.batch import Summary
from hyperion.schema.errors import InvalidConfig
from hyperion.schema.resource import BatchJobSpec
from hyperion.store.batch_places import read_databases

DEFAULTS = BatchJobSpec("", "")
EXIT_FAILED = 1


@click.command("batch", short_help="Score a table with a model.")
@click.argument("model", metavar="ENDPOINT|MODEL@VERSION|PATH")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--columns", multiple=True, metavar="INPUT=A,B,…", help="columns of an input; names or patterns")
@click.option("--keep", default="*", show_default=True, help="columns to carry over, comma-separated; '' for none")
@click.option("--query", default="", help="with IN sql:…: SELECT … ORDER BY …")
@click.option("--table", default="", help="with OUT sql:…: the table that takes the rows")
@click.option("--databases", default="", help='TOML file of NAME = "URL" for sql:NAME')
@click.option("--on-error", type=click.Choice(("fail", "skip")), default="fail", show_default=True, help="of a row")
@click.option("--chunk-rows", type=click.IntRange(1, 1 << 26), default=DEFAULTS.chunk_rows, show_default=True)
@click.option("--batch-rows", type=click.IntRange(1, 1 << 20), default=DEFAULTS.batch_rows, show_default=True)
@click.option("--workers", type=click.IntRange(1, 256), help="runners  [default: cores / threads]")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="per runner")
@click.option("--via-endpoint", is_flag=True, help="ask the served endpoint, at the lowest priority")
@click.option("--url", help="with --via-endpoint: where the platform is")
@click.option("--key-file", help="with --via-endpoint: file of an API key")
@click.option("--restart", is_flag=True, help="forget an earlier run with this OUT, and replace OUT")
@click.option("--home", help="of the platform that knows the model")
@click.option("--sandbox", type=click.Choice(("auto", "strict", "off")), help="around the model")
@click.option("--trust-pickle", is_flag=True, default=None, help="load pickle and joblib files, which can run any code")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
def command(model: str, source: str, target: str, **given: Any) -> int:
    """Score the rows of IN with a model, and write them with its answers to OUT.

    IN and OUT are files of Parquet, CSV or JSONL, a directory of them (OUT/), or sql:URL. Killed and started again, it
    goes on where it was.
    """
    spec = read_spec(model, source, target, given)
    flags = {key: given[key] for key in ("home", "sandbox", "trust_pickle")}
    settings = resolve(flags, os.environ, find_files(os.environ, Path.cwd()))
    home = Path(settings.text("home")).absolute()
    with open_run_dir() as run_dir, show_progress(given["as_json"]) as tell:
        setup = Setup(
            plan_control(settings, home, run_dir, (), None, 0, "", "text"),
            run_dir,
            read_databases(given["databases"]),
            given["workers"] or 0,
            given["threads"],
            given["restart"],
            _find_served(settings, given) if given["via_endpoint"] else None,
        )
        summary = run_batch(spec, setup, tell, _stop_on_signals)
    if summary is None:
        sys.stderr.write("hyperion: stopped; what is done is kept: the same command goes on from there\n")
        return EXIT_FAILED
    if given["as_json"]:
        print_json(msgspec.to_builtins(summary))
    else:
        print(write_summary(summary))
    return 0


def read_spec(model: str, source: str, target: str, given: dict[str, Any]) -> BatchJobSpec:
    """What is asked for. Raises InvalidConfig."""
    is_version = not given["via_endpoint"] and ("@" in model or is_path(model))
    return BatchJobSpec(
        source,
        target,
        model=model if is_version else "",
        endpoint="" if is_version else model,
        query=given["query"],
        table=given["table"],
        columns=read_columns(given["columns"]),
        keep=tuple(_split(given["keep"])),
        chunk_rows=given["chunk_rows"],
        batch_rows=given["batch_rows"],
        on_error=given["on_error"],
    )


def read_columns(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Columns by input. Raises InvalidConfig.

    >>> read_columns(["X=age,income", "country=country"])
    {'X': ('age', 'income'), 'country': ('country',)}
    """
    columns: dict[str, tuple[str, ...]] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        if not equals or not name or not _split(rest):
            raise InvalidConfig(f"--columns {text}: expected INPUT=COLUMN,COLUMN,…")
        if name in columns:
            raise InvalidConfig(f"--columns {text}: {name} is given twice")
        columns[name] = tuple(_split(rest))
    return columns


def write_summary(summary: Summary) -> str:
    """What was done, in one line or two."""
    if not summary.rows:
        text = f"{summary.target}: the source has no rows"
    elif not summary.scored_rows:
        text = f"{summary.target}: nothing to do, all {summary.rows:,} rows were scored before by {summary.model}"
    else:
        before = summary.rows - summary.scored_rows
        text = (
            f"{summary.target}: {summary.written:,} rows by {summary.model}, {summary.rows_per_s:,.0f} rows/s"
            f"{f' ({before:,} of them were there from before)' if before else ''}"
        )
    return text + (f"\n{summary.skipped:,} rows were skipped: see {summary.errors}" if summary.errors else "")


def _find_served(settings: Settings, given: dict[str, Any]) -> Served:
    url = given["url"]
    if not url:
        scheme = "https" if settings.text("tls_cert") else "http"
        url = f"{scheme}://{settings.text('host')}:{settings.integer('port')}"
    if not given["key_file"]:
        return Served(url)
    try:
        return Served(url, Path(given["key_file"]).read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"--key-file {given['key_file']}: cannot be read: {error}") from error


def _stop_on_signals(run: Run) -> None:
    """Ctrl-C and SIGTERM stop between two batches; a second Ctrl-C at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        run.stop()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
