"""The file of an SQLite database, made before SQLite would make it: it is never readable by others, not for a moment.

Called by `desired` and `database`, which open the same file.
"""

import contextlib
import errno
import os
from pathlib import Path


def make_database_file(path: Path) -> None:
    """Make the file, mode 0600, or see that it is one that can be written. Raises OSError.

    One that is there is never opened here: closing any descriptor of a file drops all locks that this process has on
    it, also those of SQLite, and then another process takes the database for abandoned.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    os.chmod(path, 0o600)
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
