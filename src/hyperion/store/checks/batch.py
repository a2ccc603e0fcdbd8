"""What the values of batch jobs may be. Called by `resource_yaml`; pure: raises or returns nothing."""

import msgspec

from hyperion.schema.resource import BatchJob, BatchJobSpec
from hyperion.store.checks.endpoint import check_metadata
from hyperion.store.checks.ranges import Refuse, check_within
from hyperion.store.names import is_valid_name

SQL = "sql:"
MAX_PATH = 4_000
MAX_NAMES = 10_000
MAX_SPEC = 96 << 10  # it travels in a variable of the environment, of which Linux takes 128 KiB


def check_batch_job(resource: BatchJob, refuse: Refuse) -> None:
    """Refuse values that are out of range or contradict each other. Raises what `refuse` makes."""
    check_metadata(resource.metadata, refuse)
    spec = resource.spec
    if bool(spec.model) == bool(spec.endpoint):
        raise refuse(("spec",), "expected one of model (NAME@VERSION or NAME@ALIAS) and endpoint")
    name, at, version = spec.model.partition("@")
    if spec.model and not (at and is_valid_name(name) and is_valid_name(version)):
        raise refuse(("spec", "model"), f"expected NAME@VERSION or NAME@ALIAS, got {spec.model[:80]!r}")
    if spec.endpoint and not is_valid_name(spec.endpoint):
        raise refuse(("spec", "endpoint"), f"{spec.endpoint[:80]!r} cannot be the name of an endpoint")
    _check_place("source", spec.source, "query", spec.query, refuse)
    _check_place("target", spec.target, "table", spec.table, refuse)
    _check_columns(spec, refuse)
    size = len(msgspec.json.encode(spec))
    if size > MAX_SPEC:
        raise refuse(("spec",), f"has {size} bytes, at most {MAX_SPEC}: give patterns of columns, or a view as query")
    check_within(spec.chunk_rows, 1, 1 << 26, ("spec", "chunk_rows"), refuse)
    check_within(spec.batch_rows, 1, 1 << 20, ("spec", "batch_rows"), refuse)


def _check_place(field: str, place: str, needs: str, given: str, refuse: Refuse) -> None:
    if not place or len(place) > MAX_PATH or not place.isprintable():
        raise refuse(("spec", field), f"expected a path, or {SQL}NAME, of up to {MAX_PATH} printable characters")
    if not place.startswith(SQL):
        if not place.startswith("/"):
            raise refuse(("spec", field), "expected an absolute path: it is read where the platform runs")
        if given:
            raise refuse(("spec", needs), f"is for a {field} that begins with {SQL}")
        return
    if "://" in place or not is_valid_name(place.removeprefix(SQL)):
        # A URL has credentials in it, and what is applied is kept, shown and in the ledger.
        raise refuse(("spec", field), f"expected {SQL}NAME of a database that --batch-databases lists, and no URL")
    if not given:
        raise refuse(("spec", needs), f"is missing: {field} is a database")


def _check_columns(spec: BatchJobSpec, refuse: Refuse) -> None:
    for name, columns in spec.columns.items():
        if not columns or len(columns) > MAX_NAMES or not all(columns):
            raise refuse(("spec", "columns", name), f"expected 1 to {MAX_NAMES} names of columns")
    if len(spec.keep) > MAX_NAMES or not all(spec.keep):
        raise refuse(("spec", "keep"), f"expected up to {MAX_NAMES} names of columns; [] for none")
