"""What a BatchJob may say: what cannot run is refused when it is applied, with the field's path."""

from typing import Any

import pytest

from hyperion.schema.errors import InvalidResource
from hyperion.schema.resource import BatchJob
from hyperion.store.resource_yaml import read_resource

SPEC = {"model": "m@1", "source": "/data/in.parquet", "target": "/data/out/"}


def read(**spec: Any) -> Any:
    return read_resource({"kind": "BatchJob", "metadata": {"name": "score"}, "spec": {**SPEC, **spec}})


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"model": "", "endpoint": "fraud"},
        {"source": "sql:lake", "query": "SELECT * FROM t ORDER BY id", "target": "sql:lake", "table": "answers"},
        {"columns": {"x": ["f*"]}, "keep": []},
    ],
)
def test_what_can_run_is_taken(spec: dict[str, Any]) -> None:
    assert isinstance(read(**spec), BatchJob)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"endpoint": "fraud"}, "spec: expected one of model"),
        ({"model": ""}, "spec: expected one of model"),
        ({"model": "m"}, "spec.model: expected NAME@VERSION"),
        ({"model": "", "endpoint": "a/b"}, "spec.endpoint: 'a/b' cannot be the name"),
        ({"source": "in.parquet"}, "spec.source: expected an absolute path"),
        ({"target": ""}, "spec.target: expected a path"),
        ({"source": "/data/a\nb"}, "spec.source: expected a path"),
        ({"query": "SELECT 1"}, "spec.query: is for a source that begins with sql:"),
        ({"source": "sql:lake"}, "spec.query: is missing"),
        ({"target": "sql:postgresql://u:secret@h/db", "table": "t"}, "spec.target: expected sql:NAME"),
        ({"columns": {"x": []}}, "spec.columns.x: expected 1 to"),
        ({"keep": [""]}, "spec.keep: expected up to"),
        ({"chunk_rows": 0}, "spec.chunk_rows: expected 1 to"),
        ({"batch_rows": 1 << 21}, "spec.batch_rows: expected 1 to"),
        ({"columns": {"x": [f"feature_number_{n}" for n in range(6_000)]}}, "spec: has 1[0-9]{5} bytes, at most 98304"),
    ],
)
def test_what_cannot_run_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidResource, match=f"^{message}") as refused:
        read(**spec)
    assert "secret" not in refused.value.message
