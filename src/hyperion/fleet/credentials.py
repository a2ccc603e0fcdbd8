"""Files of credentials for other servers: which files a resource may name, and how one is opened.

Called by `control` (when a resource is applied, and when it asks an upstream) and by `gateway` (for the headers of each
call). Whoever may deploy chooses both the file and the server that it is sent to, so without bounds it could have any
file sent anywhere that looks like headers: only what the operator put below one of `--credential-dirs` is opened. What
the lines say is `wire/header_lines`' to read.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from hyperion.schema.errors import GateRefused, InvalidConfig


def default_dirs(home: Path) -> tuple[str, ...]:
    """Where credentials may lie unless somebody says otherwise.

    >>> default_dirs(Path("/srv/hyperion"))
    ('/srv/hyperion/credentials',)
    """
    return (str(home / "credentials"),)


def find_credentials(path: str, dirs: Sequence[str], source: str) -> str:
    """The file as it really is, links followed. Raises `GateRefused`, whose message begins with `source` and names
    neither the file nor the directories, as callers may see it."""
    real = Path(os.path.realpath(path))
    if any(Path(os.path.realpath(allowed)) in real.parents for allowed in dirs):
        return str(real)
    raise GateRefused(
        f"{source}: is not below a directory for credentials; move the file into HOME/credentials, or name its "
        "directory with --credential-dirs"
    )


def read_credentials(path: str, dirs: Sequence[str], source: str, most: int) -> bytes:
    """Up to `most` bytes, and one more where there are more, of a file that only its owner can read. Blocks. Raises
    `GateRefused` and `InvalidConfig`, whose messages begin with `source`."""
    real = find_credentials(path, dirs, source)
    try:
        # Without O_NONBLOCK a named pipe would hold this thread for ever, and another one at each look; without
        # O_NOFOLLOW a link that was put there after the check would be followed.
        with open(real, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise InvalidConfig(f"{source}: expected a regular file, got a directory, device, pipe or socket")
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise InvalidConfig(f"{source}: others can read it (mode {stat.S_IMODE(mode):o}): chmod 600 it")
            return file.read(most + 1)
    except OSError as error:
        raise InvalidConfig(f"{source}: cannot be read: {error.strerror}") from None
