"""The token of the management API: made at the first start, kept in `HOME/admin-token`, readable by this user only."""

import contextlib
import os
from pathlib import Path

from hyperion.schema.errors import InvalidConfig

_TOKEN_BYTES = 32


def ensure_token(home: Path) -> str:
    """Return the home's token, after making it where there is none. Raises `InvalidConfig` if others can read it."""
    path = home / "admin-token"
    if not path.exists():
        # It gets its name only when it is whole: several processes make it, and commands wait for it.
        made = home / f".admin-token-{os.getpid()}"
        with open(made, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(os.urandom(_TOKEN_BYTES).hex() + "\n")
        with contextlib.suppress(FileExistsError):  # another was quicker: its token counts
            os.link(made, path)
        made.unlink()
    return read_token(path)


def read_token(path: Path) -> str:
    """Return the token. Raises `InvalidConfig` where it is missing, empty, or readable by others."""
    try:
        mode = path.stat().st_mode
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: cannot be read: {error}") from error
    if mode & 0o077:
        raise InvalidConfig(f"{path}: others can read this token; remove it (a new one is made) or chmod it to 0600")
    if len(token) < _TOKEN_BYTES:
        raise InvalidConfig(f"{path}: expected a token of {2 * _TOKEN_BYTES} characters; remove it (a new one is made)")
    return token
