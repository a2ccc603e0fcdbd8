"""`hyperion graph …`: what helps to write a graph down."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.client import call
from hyperion.cli.credentials import add_key
from hyperion.cli.resolve import find_files, resolve
from hyperion.cli.show import print_json, print_table
from hyperion.policy.graph.cascade_fit import CascadeFit, NoFit, fit_cascade, saved_share
from hyperion.schema.errors import InvalidResource
from hyperion.schema.protect import Graph
from hyperion.schema.resource import Endpoint
from hyperion.store.resource_yaml import read_resources, to_document, write_yaml

if TYPE_CHECKING:
    import numpy as np

    from hyperion.cli.graph_members import Scored

    Array = np.ndarray[Any, Any]


@click.group("graph", short_help="Fit the thresholds of a cascade.")
def command() -> None:
    """Graphs: several models that answer as one."""


@command.command("fit")
@click.option("-f", "--file", "path", required=True, type=click.Path(exists=True, dir_okay=False), help="the endpoint")
@click.option("--data", required=True, type=click.Path(exists=True, dir_okay=False), help="rows: .npz, .csv or .jsonl")
@click.option("--label", required=True, help="the column with the true class of each row")
@click.option("--classes", default="", help="its values in the order of the scores, with commas  [default: 0,1,2,…]")
@click.option("--max-loss", default=0.002, show_default=True, type=click.FloatRange(0, 1, True, True), help="accuracy")
@click.option("--level", default=0.9, show_default=True, type=click.FloatRange(0, 1, True, True), help="of the bound")
@click.option("--infer-url", help="where requests are answered  [default: what host and port of the configuration say]")
@click.option("--write", is_flag=True, help="put what was found into the file (its comments are lost)")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_key
@add_connection
def fit(
    admin: Admin,
    path: str,
    data: str,
    label: str,
    classes: str,
    max_loss: float,
    level: float,
    infer_url: str | None,
    write: bool,
    as_json: bool,
    key: str,
) -> None:
    """Find out from rows that no member has seen when the cheap steps of a cascade are sure enough.

    Each member answers all rows; with the probability `--level`, no more than `--max-loss` of the last step's accuracy
    is lost on rows like these.
    """
    from hyperion.cli.graph_data import read_table, take_truth

    endpoint, others = _read(path)
    graph = endpoint.spec.graph
    assert graph is not None, "it was read as one"
    if infer_url is None:
        settings = resolve({}, os.environ, find_files(os.environ, Path.cwd()))
        infer_url = f"http://{settings.text('host')}:{settings.integer('port')}"
    table = read_table(Path(data))
    truth = take_truth(table, label, [name for name in classes.split(",") if name], Path(data))
    scored = _score_all(admin, infer_url, key, endpoint, table, Path(data))
    fits = fit_steps(graph, scored, truth, max_loss, level)
    steps = tuple(replace(step, until=one.until) for step, one in zip(graph.steps[:-1], fits, strict=True))
    fitted = replace(graph, steps=(*steps, graph.steps[-1]))
    spec = replace(endpoint.spec, graph=fitted)
    if as_json:
        print_json(_report(graph, fits, scored, truth))
    else:
        _print(graph, fits, scored, level)
    if write:
        made = [to_document(replace(endpoint, spec=spec)) if one is endpoint else to_document(one) for one in others]
        Path(path).write_text(write_yaml(made), "utf-8")
    elif not as_json:
        for step in fitted.steps[:-1]:
            assert step.until is not None, "it was fitted"
            confidence, temperature = step.until.confidence, step.until.temperature
            print(f"{step.name}: until: {{confidence: {confidence:.6g}, temperature: {temperature:g}}}")


def _read(path: str) -> tuple[Endpoint, Sequence[Any]]:
    """The one cascade of a file, and all of its resources. Raises `InvalidResource`."""
    resources = read_resources([path])
    found = [one for one in resources if isinstance(one, Endpoint) and one.spec.graph is not None]
    if len(found) != 1:
        raise InvalidResource(f"{path}: expected one endpoint with a graph, got {len(found)}")
    graph = found[0].spec.graph
    assert graph is not None
    if graph.kind != "cascade" or len(graph.steps) < 2:
        raise InvalidResource(f"{path}: only a cascade of two steps or more has thresholds to fit")
    names = {step.name for step in graph.steps}
    for step in graph.steps:
        for source in step.inputs.values():
            if source.partition(".")[0] in names and "." in source:
                raise InvalidResource(f'{path}: step "{step.name}" reads {source}: such a cascade cannot be fitted')
    return found[0], resources


def _score_all(
    admin: Admin, url: str, key: str, endpoint: Endpoint, table: dict[str, Any], path: Path
) -> "list[Scored]":
    """What each step says of all rows."""
    from hyperion.cli.graph_data import make_inputs
    from hyperion.cli.graph_members import score, serve_steps

    graph = endpoint.spec.graph
    assert graph is not None
    scored = []
    with serve_steps(admin, url, key, endpoint) as urls:
        for step in graph.steps:
            metadata = call(urls[step.name], token=key)
            specs = [{**spec, "name": step.inputs.get(spec["name"], spec["name"])} for spec in metadata["inputs"]]
            arrays = make_inputs(table, specs, path)
            own = {spec["name"]: arrays[outer["name"]] for spec, outer in zip(metadata["inputs"], specs, strict=True)}
            types = {spec["name"]: spec["datatype"] for spec in metadata["inputs"]}
            names = {step.outputs.get(spec["name"], spec["name"]): spec["name"] for spec in metadata["outputs"]}
            if graph.output and graph.output not in names:
                raise InvalidResource(f'step "{step.name}" has no output "{graph.output}"; it has {", ".join(names)}')
            output = names[graph.output] if graph.output else next(iter(names.values()))
            scored.append(score(urls[step.name], key, own, types, output))
    return scored


def fit_steps(
    graph: Graph, scored: "Sequence[Scored]", truth: "Array", max_loss: float, level: float
) -> list[CascadeFit]:
    """Each step against the last one. What may be lost, and how likely the bound may fail, is shared among them
    equally. Raises `InvalidResource`."""
    from hyperion.policy.graph.cascade import judge_array

    for step, one in zip(graph.steps, scored, strict=True):
        classes = max(2, one.scores.shape[1])  # one score alone is that of the second of two
        if truth.max() >= classes:
            raise InvalidResource(
                f'step "{step.name}" has scores for {classes} classes, but a row is said to be of class {truth.max()} '
                "(they count from 0)"
            )
    best, _ = judge_array(scored[-1].scores, 1.0)
    parts = len(scored) - 1
    try:
        return [
            fit_cascade(one.scores, truth, best == truth, max_loss / parts, 1 - (1 - level) / parts)
            for one in scored[:-1]
        ]
    except NoFit as problem:
        raise InvalidResource(str(problem)) from problem


def _print(graph: Graph, fits: Sequence[CascadeFit], scored: "Sequence[Scored]", level: float) -> None:
    last = graph.steps[-1].name
    rows = []
    for step, one, member in zip(graph.steps, fits, scored, strict=False):
        rows.append(
            (
                step.name,
                f"{one.cheap:.2%}",
                f"{one.dear:.2%}",
                f"{one.cascade:.2%}",
                f"{one.loss_bound:.2%}",
                f"{one.escalated:.1%}",
                f"{member.row_ms * 1000:.1f} µs",
                f"{scored[-1].row_ms * 1000:.1f} µs",
                f"{saved_share(one.escalated, member.row_ms, scored[-1].row_ms):.1%}",
            )
        )
    titles = ("step", "accuracy", last, "cascade", f"lost at most ({level:g})", "escalated", "a row", last, "saved")
    print_table(titles, rows)


def _report(graph: Graph, fits: Sequence[CascadeFit], scored: "Sequence[Scored]", truth: "Array") -> dict[str, Any]:
    return {
        "rows": len(truth),
        "steps": [
            {
                "name": step.name,
                "until": {"confidence": one.until.confidence, "temperature": one.until.temperature},
                "accuracy": {"alone": one.cheap, "last": one.dear, "cascade": one.cascade},
                "loss_bound": one.loss_bound,
                "escalated": one.escalated,
                "row_ms": {"own": member.row_ms, "last": scored[-1].row_ms},
                "saved": saved_share(one.escalated, member.row_ms, scored[-1].row_ms),
            }
            for step, one, member in zip(graph.steps, fits, scored, strict=False)
        ],
    }
