"""What the supervisor builds around one confined child, each time it is started, and tears down when it is gone.

Called by `supervised`. The child's own part of its sandbox is in `runner`; here is what it could not undo, or clean up
after being killed: its directory, its control groups, and the watch over how much it writes.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from hyperion.fleet.cgroup import Groups, Parents, make_groups
from hyperion.fleet.messages import ChildSpec, Confinement
from hyperion.fleet.scratch import is_over, make_scratch, remove_tree, set_aside

LOOK_S: Final = 1.0


class Walls:
    """Of one child. `end(reason)` is called, on the loop's thread, when it has written more than it may."""

    def __init__(
        self,
        spec: ChildSpec,
        parents: Parents | None,
        loop: asyncio.AbstractEventLoop,
        end: Callable[[str], None],
    ) -> None:
        assert spec.confinement is not None, "made for confined children only"
        self._spec = spec
        self._confinement: Confinement = spec.confinement
        self._parents = parents
        self._loop = loop
        self._end = end
        self._groups = Groups()
        self._starts = 0
        self._timer: asyncio.TimerHandle | None = None

    def build(self) -> ChildSpec:
        """Make the directory and the groups; returns the spec that tells the child of them. Raises OSError where the
        directory cannot be made; groups that cannot be made are missing, which the child may refuse."""
        self._starts += 1
        make_scratch(Path(self._confinement.scratch))
        if self._parents is not None:
            # Its own name for each start: the predecessor's group may not be empty yet.
            number = hashlib.sha256(self._spec.name.encode()).hexdigest()[:12]
            name = f"hyperion-{os.getpid()}-{number}-{self._starts}"
            with contextlib.suppress(OSError):
                self._groups = make_groups(self._parents, name, self._confinement.memory_bytes)
        self._look_later()
        return msgspec.structs.replace(self._spec, env={**self._spec.env, **self._groups.variable()})

    def tear_down(self) -> None:
        """Remove everything; the child and its process group have been killed. Returns before files are gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        aside = set_aside(Path(self._confinement.scratch), self._starts)
        for leftover in self._confinement.leftovers:
            Path(leftover).unlink(missing_ok=True)
        groups, self._groups = self._groups, Groups()
        self._loop.run_in_executor(None, _remove, aside, groups)

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        scratch = Path(self._confinement.scratch)
        looking = self._loop.run_in_executor(None, is_over, scratch, self._confinement.scratch_bytes)
        starts = self._starts
        looking.add_done_callback(lambda done: self._looked(starts, done.result()))

    def _looked(self, starts: int, over: bool) -> None:
        if self._timer is None or starts != self._starts:
            return  # that one is gone
        if over:
            limit = self._confinement.scratch_bytes
            self._end(
                f"it wrote more than {limit >> 20} MiB, or too many files, into its temporary directory; "
                "scratch_mb among its resources allows more"
            )
            return
        self._look_later()


def _remove(scratch: Path, groups: Groups) -> None:
    groups.remove()
    with contextlib.suppress(OSError):
        remove_tree(scratch)
