"""Labels in, and what they say about a rollout: the desk's part for `api`, and what `releases` sees at each look.

The join over the store runs in a thread and takes longer the more pairs there are; a look reads the last answer and
never waits.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from hyperion.control.errands import Errands
from hyperion.policy.redact import is_personal, redact_text
from hyperion.policy.release.state import OPEN, Labelled, ReleaseState
from hyperion.policy.values import write_value
from hyperion.schema.errors import HyperionError
from hyperion.schema.resource import Halt
from hyperion.store import labels, predictions
from hyperion.store.database import Database
from hyperion.store.labels import Label

ASK_S: Final = 1.0  # between two answers for a rollout
IDLE_SHARE: Final = 10.0  # times as long as it took to ask, so that many pairs do not keep the store busy
TEND_S: Final = 600.0
KEPT_S: Final = 30 * 86_400.0  # predictions, pairs and labels


class Labels:
    """The desk's verb for labels. Synchronous, safe to share between threads."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def put(self, given: Sequence[tuple[str, str | float, str, float | None]]) -> int:
        """Keep labels: prediction id, label, source, and since when (None and the future: now). The newest of a source
        counts. Return how many are for predictions of which nothing is kept, or not yet. Personal data in a label is
        not kept; an id that is some is no prediction's, as gateways take no such ids."""
        now = self._clock()
        rows = [
            Label(prediction_id, source, write_value(_clean(label)), now if at is None else min(at, now))
            for prediction_id, label, source, at in given
            if not is_personal(prediction_id)
        ]
        with self._database.write() as tx:
            return labels.put_many(tx, rows) + len({one[0] for one in given if is_personal(one[0])})


class Qualities:
    """What the labels say, by rollout. All methods run on the event loop's thread."""

    def __init__(self, database: Database, wake: Callable[[], None], log: Callable[[str], None]) -> None:
        self._database = database
        self._wake = wake
        self._log = log
        self._found: dict[str, Labelled] = {}
        self._due: dict[str, float] = {}
        self._tend_at = 0.0
        self._errands = Errands()

    def of(self, state: ReleaseState, halt: Halt) -> Labelled | None:
        """Who was right in the pairs of this rollout that are labelled; None as long as nobody has looked."""
        if halt.quality is None or state.state not in OPEN:
            return None
        key = state.rollout_id
        if time.monotonic() >= self._due.get(key, 0.0):
            self._errands.start(key, self._ask(key, state))
        return self._found.get(key)

    def tend(self, fence: int | None) -> None:
        """Forget what is older than it need be, now and then."""
        if time.monotonic() >= self._tend_at:
            self._tend_at = time.monotonic() + TEND_S
            self._errands.start("", asyncio.to_thread(self._prune, fence))

    async def _ask(self, key: str, state: ReleaseState) -> None:
        began = time.monotonic()
        try:
            found = await asyncio.to_thread(self._count, state)
        except HyperionError as error:
            self._log(f"{state.endpoint}: its labels cannot be read: {error.message}")
        else:
            news = found != self._found.get(key)
            self._found[key] = found
            if news:
                self._wake()
        ended = time.monotonic()
        self._due[key] = ended + max(ASK_S, IDLE_SHARE * (ended - began))
        for old in [old for old in self._found if old != key][:-1_000]:
            self._found.pop(old, None)
            self._due.pop(old, None)

    def _count(self, state: ReleaseState) -> Labelled:
        first = state.epochs[0].epoch if state.epochs else state.epoch
        with self._database.read() as tx:
            return labels.count_losses(tx, state.endpoint, first, state.epoch, state.started_at)

    def _prune(self, fence: int | None) -> None:
        before = time.time() - KEPT_S
        try:
            with self._database.write(fence) as tx:
                labels.prune(tx, before)
                predictions.prune(tx, before)
        except HyperionError as error:
            self._log(f"old predictions cannot be forgotten now: {error.message}")


def _clean(label: str | float) -> str | float:
    return redact_text(label) if isinstance(label, str) else label
