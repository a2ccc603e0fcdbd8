"""`hyperion predict`: ask a served model once."""

import json
import os
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import click

from hyperion.cli.client import call
from hyperion.cli.credentials import add_key
from hyperion.cli.resolve import find_files, resolve
from hyperion.cli.show import print_json
from hyperion.schema.errors import InvalidConfig, MalformedRequest


@click.command("predict", short_help="Ask a served model once.")
@click.argument("endpoint")
@click.option("--json", "text", help='the request: V2 JSON, {"input": [[...]]}, or rows for a model with one input')
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, allow_dash=True), help="the same from a file, - is stdin"
)
@click.option("--url", help="where the platform is (default: what host and port of the configuration say)")
@add_key
def command(endpoint: str, text: str | None, path: str | None, url: str | None, key: str) -> None:
    """Send one request to ENDPOINT and print the answer as JSON."""
    if (text is None) == (path is None):
        raise click.UsageError("give the request with --json or with --file")
    request = _read_request(text, path)
    if url is None:
        settings = resolve({}, os.environ, find_files(os.environ, Path.cwd()))
        scheme = "https" if settings.text("tls_cert") else "http"
        url = f"{scheme}://{settings.text('host')}:{settings.integer('port')}"
    model = f"{url.rstrip('/')}/v2/models/{urllib.parse.quote(endpoint, safe='')}"
    if not (isinstance(request, dict) and isinstance(request.get("inputs"), list)):
        request = build_request(request, call(model, token=key))
    print_json(call(f"{model}/infer", request, token=key))


def build_request(values: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the V2 request that carries `values`: nested lists by input name, or rows for the only input.

    `metadata` is the model's, as V2 gives it. Raises `MalformedRequest`.

    >>> build_request([[1, 2]], {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]})
    {'inputs': [{'name': 'x', 'datatype': 'FP32', 'shape': [1, 2], 'data': [[1, 2]]}]}
    """
    specs = {spec["name"]: spec for spec in metadata["inputs"]}
    if not isinstance(values, dict):
        if len(specs) != 1:
            raise MalformedRequest(f"this model has the inputs {', '.join(specs)}: name them, as a JSON object")
        values = {next(iter(specs)): values}
    unknown = sorted(set(values) - set(specs))
    if unknown:
        raise MalformedRequest(f'this model has no input "{unknown[0]}"; it has {", ".join(specs)}')
    return {
        "inputs": [
            {"name": name, "datatype": specs[name]["datatype"], "shape": measure_shape(name, rows), "data": rows}
            for name, rows in values.items()
        ]
    }


def measure_shape(name: str, rows: Any) -> list[int]:
    """Return the shape of nested lists. Raises `MalformedRequest` where they are ragged or no lists.

    >>> measure_shape("x", [[1, 2], [3, 4], [5, 6]])
    [3, 2]
    """
    if not isinstance(rows, list):
        raise MalformedRequest(f'input "{name}": expected a list, got {json.dumps(rows)[:40]}')
    if not rows or not isinstance(rows[0], list):
        if any(isinstance(row, list) for row in rows):
            raise MalformedRequest(f'input "{name}": its lists are not of one depth')
        return [len(rows)]
    shapes = [measure_shape(name, row) for row in rows]
    if any(shape != shapes[0] for shape in shapes):
        raise MalformedRequest(f'input "{name}": its rows are not of one shape')
    return [len(rows), *shapes[0]]


def _read_request(text: str | None, path: str | None) -> Any:
    source = "--json" if text is not None else f"--file {path}"
    try:
        if text is None:
            text = sys.stdin.read() if path == "-" else Path(str(path)).read_text("utf-8")
        return json.loads(text)
    except OSError as error:
        raise InvalidConfig(f"{source}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidConfig(f"{source}: not JSON: {error}") from error
