"""What each field of a BatchJob means, in words, as `resource_fields` does it for an Endpoint."""

from docs.resource_fields_access import HEAD

BATCH_JOB: dict[str, str] = {
    **HEAD,
    "spec.source": "an absolute path below one of `--batch-dirs`: a file of Parquet, CSV or JSONL, or a directory of "
    "them; or `sql:NAME` of a database that `--batch-databases` lists",
    "spec.target": "an absolute path below one of `--batch-dirs` that ends in .parquet, .csv or .jsonl, or in / for a "
    "directory of parts; or `sql:NAME`",
    "spec.model": "what scores: NAME@VERSION or NAME@ALIAS of the registry; what an alias means is fixed when the run "
    "begins",
    "spec.endpoint": "instead of `model`: an endpoint, whose live version when the run begins scores every row",
    "spec.query": "with a source `sql:NAME`: SELECT … ORDER BY a unique key",
    "spec.table": "with a target `sql:NAME`: the table that takes the rows; it is made where it is not there",
    "spec.columns": "columns by the name of the input that they make: names, or patterns such as `f*`; left out, "
    "columns have the names of inputs, or a model's only input takes all numeric columns",
    "spec.keep": 'columns to carry over, `["*"]` for all',
    "spec.chunk_rows": "rows of a part, 1 to 67,108,864: what is done again after a crash, and what memory is for",
    "spec.batch_rows": "rows that the model computes at once, 1 to 1,048,576",
    "spec.replace": "whether each run begins anew in place of what lies at the target, as with `--restart`; without it "
    "a run goes on from what an earlier one did, and refuses to where source, model or options have changed since",
    "spec.on_error": "what becomes of a row that does not fit or for which the model fails: `fail` ends the run and "
    "names it, `skip` leaves it out and writes down why",
}
