"""From what was asked for to the parts of a run: its source, its target and who computes."""

import os
from pathlib import Path

from hyperion.batch.source import FORMATS, SQL, Source, find_files, format_of
from hyperion.batch.source_files import open_files
from hyperion.batch.source_sql import SqlSource
from hyperion.batch.target import Target
from hyperion.batch.target_files import FileTarget
from hyperion.batch.target_sql import SqlTarget
from hyperion.schema.errors import InvalidConfig
from hyperion.schema.resource import BatchJobSpec
from hyperion.store.reading import suggest


def open_source(spec: BatchJobSpec, databases: dict[str, str]) -> Source:
    """Raises InvalidConfig, StorageFailed, SchemaMismatch."""
    if spec.source.startswith(SQL):
        return SqlSource(find_database(spec.source, databases), spec.query, spec.chunk_rows)
    if spec.query:
        raise InvalidConfig(f"--query is for a source that begins with sql:, got {spec.source}")
    return open_files(spec.source, spec.chunk_rows)


def open_target(spec: BatchJobSpec, databases: dict[str, str], restart: bool) -> Target:
    """Raises InvalidConfig, StorageFailed, and Conflict where something else is there."""
    if spec.target.startswith(SQL):
        return SqlTarget(find_database(spec.target, databases), spec.table)
    if spec.table:
        raise InvalidConfig(f"--table is for a target that begins with sql:, got {spec.target}")
    source_format = "parquet" if spec.source.startswith(SQL) else format_of(find_files(spec.source)[0].name)
    if not spec.target.endswith("/") and Path(spec.target).suffix.lower() not in FORMATS:
        raise InvalidConfig(
            f"{spec.target}: expected a name that ends in {', '.join(FORMATS)}, or in / for a directory of parts"
        )
    if not spec.target.endswith("/") and Path(spec.target).is_dir():
        raise InvalidConfig(f"{spec.target}: is a directory; say {spec.target}/ to have parts in there")
    target = FileTarget(spec.target, source_format)
    if not restart:
        try:
            target.check_free()
        except BaseException:
            target.close()
            raise
    return target


def check_pair(spec: BatchJobSpec, databases: dict[str, str]) -> None:
    """Raise InvalidConfig where the target would be in the way of the source."""
    if spec.source.startswith(SQL) and spec.target.startswith(SQL):
        url = find_database(spec.source, databases)
        if url.startswith("sqlite") and url == find_database(spec.target, databases):
            raise InvalidConfig(
                "source and target are one SQLite database, which cannot be read and written at once; write to a file "
                "or to another database"
            )
    elif os.path.realpath(spec.source) == os.path.realpath(spec.target):
        raise InvalidConfig(f"{spec.target}: source and target are the same")
    elif not spec.target.startswith(SQL) and not spec.target.endswith("/"):
        folder = os.path.dirname(os.path.realpath(spec.target))
        if os.path.isdir(spec.source) and os.path.realpath(spec.source) == folder:
            raise InvalidConfig(
                f"{spec.target}: lies in the directory that is the source, and would be one of its files the next "
                "time; put it elsewhere"
            )


def find_database(place: str, databases: dict[str, str]) -> str:
    """The URL that `sql:NAME` or `sql:URL` means. Raises InvalidConfig.

    >>> find_database("sql:sqlite:///a.db", {}), find_database("sql:lake", {"lake": "postgresql://lake/x"})
    ('sqlite:///a.db', 'postgresql://lake/x')
    """
    name = place.removeprefix(SQL)
    if "://" in name:
        return name
    if name not in databases:
        near = suggest(name, databases) or (f" (known: {', '.join(sorted(databases))})" if databases else "")
        raise InvalidConfig(f"{place}: --databases (of a platform, --batch-databases) lists no such database{near}")
    return databases[name]
