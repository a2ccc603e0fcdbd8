"""Which of several control processes decides: one leader, whose generation fences what it writes.

Called by `control`. Three things work together:
- the row in `leader` is the truth: taking over writes a new generation there, and `Database.write(fence=generation)`
  refuses an older one, so that two leaders can never both write, whatever clocks and networks do;
- a lock that dies with its holder (PostgreSQL: an advisory lock of a session; SQLite: `flock` of a file beside it)
  lets the next one take over as soon as a leader is killed;
- a lease, which the leader renews, lets it take over from one that hangs, or whose machine is gone.
"""

import fcntl
import os
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, func, insert, literal_column, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from hyperion.schema.errors import InvalidConfig, StorageFailed
from hyperion.store.database import LOCK_CLASS, Database
from hyperion.store.names import check_name
from hyperion.store.tables import LEADER
from hyperion.store.transaction import now, reached

_LEADER_CLASS = LOCK_CLASS + 1


class Leadership:
    """One process's candidature for the leadership called `name`. Belongs to one thread at a time.

    A leader calls `renew` about three times in `lease_s`; the others call `try_lead` as often.
    """

    def __init__(self, database: Database, name: str, lease_s: float = 3.0) -> None:
        self._database = database
        self._name = check_name(name, "the leadership's name")
        self._lease_s = lease_s
        self._holder = os.urandom(8).hex()
        self._generation: int | None = None
        path = database.path
        self._lock: _Lock = (
            _SessionLock(database, name) if path is None else _FileLock(path.with_name(f"{path.name}-{name}.lock"))
        )

    @property
    def generation(self) -> int | None:
        """The fence for writes while this process leads, as far as it knows; else None."""
        return self._generation

    def try_lead(self) -> int | None:
        """Takes the leadership if nobody has it. Returns the generation, or None where another one leads."""
        if self._generation is not None and self.renew():
            return self._generation
        locked = self._lock.take()
        if not self._vacant(locked):
            self._lock.release()
            return None
        with self._database.write() as tx:
            # Looked at again, under the writers' lock: another one may have been faster.
            generation = self._take_over(tx, locked) if self._is_vacant(tx, locked) else None
        if generation is None:
            self._lock.release()
        elif not locked:
            self._lock.break_()  # whoever holds it hangs; if it still hangs on, the row alone decides
        self._generation = generation
        return generation

    def renew(self) -> bool:
        """Prolongs the lease. False where this process does not lead, or not any more: it must stop acting then."""
        if self._generation is None:
            return False
        locked = self._lock.holds() or self._lock.take()
        with self._database.renewing() as tx:
            at = _clock(tx, self._database)
            mine = (LEADER.c.name == self._name, LEADER.c.generation == self._generation, LEADER.c.active.is_(True))
            if tx.execute(update(LEADER).where(*mine).values(renewed_at=at, locked=locked)).rowcount:
                return True
        self._generation = None
        self._lock.release()
        return False

    def resign(self) -> None:
        """Gives the leadership up at once: the next `try_lead` of another process gets it."""
        generation, self._generation = self._generation, None
        try:
            if generation is not None:
                with self._database.renewing() as tx:
                    tx.execute(update(LEADER).where(LEADER.c.generation == generation).values(active=False))
        finally:
            self._lock.release()

    def _vacant(self, locked: bool) -> bool:
        with self._database.read() as tx:
            return self._is_vacant(tx, locked)

    def _is_vacant(self, tx: Connection, locked: bool) -> bool:
        row = tx.execute(select(LEADER).where(LEADER.c.name == self._name)).first()
        if row is None or not row.active:
            return locked
        if locked and row.locked:
            return True  # the leader had the lock, and now this process has: the leader is dead
        return bool(row.renewed_at + row.lease_s < _clock(tx, self._database))

    def _take_over(self, tx: Connection, locked: bool) -> int:
        # Over all names, so that a generation alone says whose it is.
        generation = int(tx.execute(select(func.coalesce(func.max(LEADER.c.generation), 0) + 1)).scalar_one())
        values = {
            "generation": generation,
            "holder": self._holder,
            "active": True,
            "lease_s": self._lease_s,
            "renewed_at": _clock(tx, self._database),
            "locked": locked,
        }
        if tx.execute(update(LEADER).where(LEADER.c.name == self._name).values(**values)).rowcount == 0:
            tx.execute(insert(LEADER).values(name=self._name, **values))
        reached(tx, "leader.take")
        return generation


class _Lock(Protocol):
    """A lock that the operating system or the server takes from a process that dies."""

    def take(self) -> bool: ...  # whether this process has it now; never waits
    def holds(self) -> bool: ...
    def release(self) -> None: ...
    def break_(self) -> None: ...  # ends the session of a holder that hangs, where that can be done


class _FileLock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        if self._file is not None:
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidConfig(
                f"{self._path.name}: cannot be opened: {(error.strerror or 'error').lower()}"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def holds(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def break_(self) -> None:
        """A file lock cannot be taken from a process that lives."""


class _SessionLock:
    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._session: Connection | None = None
        self._values = {"class": _LEADER_CLASS, "name": name}

    def take(self) -> bool:
        if self.holds():
            return True
        session = self._database.session()
        try:
            taken = bool(session.execute(_TAKE, self._values).scalar())
        except SQLAlchemyError as error:
            _close(session)
            raise StorageFailed(f"{self._database.name}: the leader's lock cannot be asked for: {error}") from error
        if taken:
            self._session = session
        else:
            _close(session)
        return taken

    def holds(self) -> bool:
        if self._session is None:
            return False
        try:
            self._session.execute(text("SELECT 1"))
        except SQLAlchemyError:  # the session is gone, and the lock with it
            self.release()
            return False
        return True

    def release(self) -> None:
        if self._session is not None:
            _close(self._session)
            self._session = None

    def break_(self) -> None:
        with self._database.renewing() as tx:
            tx.execute(_TERMINATE, self._values)


_TAKE = text("SELECT pg_try_advisory_lock(:class, hashtext(current_schema() || '/' || :name))")
_TERMINATE = text(
    """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND classid = :class AND objsubid = 2
      AND objid = (hashtext(current_schema() || '/' || :name)::bigint & 4294967295)::oid
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)


def _close(session: Connection) -> None:
    try:
        session.close()
    except SQLAlchemyError:
        session.invalidate()  # it was closed at the other end: that is what this wants


def _clock(tx: Connection, database: Database) -> float:
    """Seconds since 1970 by the one clock that all candidates share: the server's, or this machine's."""
    if database.is_sqlite:
        return now(tx)
    return float(tx.execute(select(literal_column("extract(epoch FROM clock_timestamp())"))).scalar_one())
