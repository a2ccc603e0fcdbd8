"""Where scored rows go: parts, each written exactly once, and in the end the whole. Files are in `target_files`, tables
of databases in `target_sql`; here is what they have in common.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from hyperion.batch.journal import End, Header, Part


class RowError(Struct, frozen=True):
    """A row of the source that was skipped, and why. `column` "" where the model itself failed."""

    row: int
    column: str
    error: str


class Target(Protocol):
    """Used by one thread at a time. `has_lists` says whether a column can hold lists; `header`, `parts` and `end` are
    what earlier attempts left."""

    has_lists: bool
    facts: dict[str, Any]

    @property
    def header(self) -> Header | None:
        """What was begun, None for nothing."""

    @property
    def parts(self) -> Mapping[int, Part]:
        """What is done, by the number of its chunk."""

    @property
    def end(self) -> End | None:
        """What the whole is, None before that is there."""

    def check(self, schema: Any) -> None:
        """Raise SchemaMismatch, naming the column, where rows of that schema cannot be kept here."""

    def begin(self, header: Header, schema: Any) -> None:
        """Start anew, in place of whatever was there. `schema` is of the rows to come."""

    def resume(self, schema: Any) -> None:
        """Go on from what is there."""

    def write(self, part: Part, table: Any, errors: Sequence[RowError]) -> None:
        """Keep a part for good: after this returns it is there, whatever happens."""

    def finish(self, chunks: int) -> str:
        """Make the whole of `chunks` parts. Returns where skipped rows are explained, "" where none was."""

    def close(self) -> None:
        """Let others work there."""
