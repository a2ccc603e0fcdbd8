"""What an open transaction carries beside its SQL: the clock, the ledger's key, and the fault points that tests use.

`database` attaches it to each connection; the rooms' functions that take a `tx` read it here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from hyperion.store.checkpoint import Signer

_KEY = "hyperion"


@dataclass(frozen=True)
class Context:
    """`clock` gives seconds since 1970. `fault` is told each point of a write that is passed, by name. `signer` is
    None where this process may read the ledger but not write it."""

    clock: Callable[[], float]
    fault: Callable[[str], None]
    signer: Signer | None


@contextmanager
def attached(tx: Connection, context: Context) -> Iterator[None]:
    """Gives the transaction its context for the block; the connection returns to the pool without it."""
    info = tx.info  # taken now: a connection that broke in the block does not give it any more
    info[_KEY] = context
    try:
        yield
    finally:
        info.pop(_KEY, None)


def now(tx: Connection) -> float:
    """Seconds since 1970, by the clock of the database's owner."""
    return float(_context(tx).clock())


def reached(tx: Connection, point: str) -> None:
    """Tells the test, if any, that this point of a write was passed."""
    _context(tx).fault(point)


def signer_of(tx: Connection) -> Signer | None:
    """The ledger's private key, where this process has it."""
    return _context(tx).signer


def _context(tx: Connection) -> Context:
    context = tx.info.get(_KEY)
    assert isinstance(context, Context), "a tx comes from Database.write() or Database.read()"
    return context
