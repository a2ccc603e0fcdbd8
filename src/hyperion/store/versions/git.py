"""Which commit is checked out where a model lies. Called by `push` and by the imports; runs `git`, changes nothing."""

import os
import subprocess
from pathlib import Path

TIMEOUT_S = 20
# A repository's own configuration can name programs that git runs: none of them is wanted for reading a commit.
_COMMAND = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


def commit_of(path: Path) -> str:
    """The commit of the repository around `path`, with `-dirty` behind it where files that git tracks have changed
    since; "" outside of a repository, in one without a commit, and where there is no git."""
    folder = path if path.is_dir() else path.parent
    commit = _run(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return ""
    changed = _run(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all")
    return f"{commit}-dirty" if changed or changed is None else commit


def _run(folder: Path, *arguments: str) -> str | None:
    """What git prints, without the last line's end; None where it fails."""
    # Without GIT_DIR and the like: a hook that pushes a model has them set to its own repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(  # noqa: S603  fixed words, and a folder after -C
            (*_COMMAND, "-C", str(folder.absolute()), *arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None
