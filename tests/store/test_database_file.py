"""Two layers and several processes share one SQLite file, and none of them takes it from under another."""

import subprocess
import sys
from pathlib import Path

import pytest

from hyperion.schema.model import ModelOptions
from hyperion.store import ledger
from hyperion.store.database import open_home
from hyperion.store.database_file import make_database_file
from hyperion.store.desired import DesiredState

WRITER = """
import sys
from pathlib import Path
from hyperion.store import ledger
from hyperion.store.database import open_home
database = open_home(Path(sys.argv[1]))
with database.write() as tx:
    ledger.append(tx, "test.write", sys.argv[2], actor="another process")
database.close()
"""


def test_what_another_process_writes_is_seen_whoever_opened_the_file_and_when(tmp_path: Path) -> None:
    """Closing any descriptor of the file in this process would drop SQLite's locks: the other process would then take
    the database for abandoned, and remove the log that this one goes on reading."""
    desired = DesiredState(tmp_path / "hyperion.db")
    database = open_home(tmp_path)
    for number in range(3):
        desired.put(f"model-{number}", tmp_path, ModelOptions())
        subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), str(number)], check=True)
        with database.read() as tx:
            assert [entry.subject for entry in ledger.entries(tx)] == [str(n) for n in range(number + 1)]
        assert len(DesiredState(tmp_path / "hyperion.db").list()) == number + 1
    database.close()


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "hyperion.db"
    make_database_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    make_database_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(IsADirectoryError):
        make_database_file(tmp_path)
