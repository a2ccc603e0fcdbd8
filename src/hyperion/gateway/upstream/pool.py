"""The pool of an endpoint that another server answers for: the queue, batches and deadlines of every pool, in front of
connections to that server. While it cannot be called, calls fail at once, so that a fallback may answer in time.

Made by `gateway/process` in place of a `VersionPool` where the snapshot names an upstream.
"""

import asyncio
import time
from typing import Final

from hyperion.gateway.pending import PendingCall
from hyperion.gateway.pool import VersionPool
from hyperion.gateway.recovery.breakers import UPSTREAM
from hyperion.gateway.replica import Batch, Link
from hyperion.gateway.setting import PoolSetting
from hyperion.gateway.upstream.site import keep_upstream
from hyperion.schema.errors import HyperionError, NotReady, UpstreamFailed
from hyperion.schema.protect import Breaker

OUTAGE_CALLS: Final = 5  # failures in a row that are no accident any more
DEFAULT_BREAKER: Final = Breaker()  # where the endpoint says nothing of one


class UpstreamPool(VersionPool):
    """One upstream. All links share one breaker, as they all lead to the same server."""

    def _connect(self, setting: PoolSetting) -> "list[asyncio.Task[None]]":
        self._unreachable = ""  # why it cannot be called, as long as it cannot
        self._breakers.follow(DEFAULT_BREAKER)
        kept = keep_upstream(
            self.model, self.served, setting.slot_bytes, self, self._links, self._log, setting.credential_dirs
        )
        return [self._loop.create_task(kept)]

    def follow_breaker(self, rule: Breaker | None) -> None:
        super().follow_breaker(rule or DEFAULT_BREAKER)

    def mind(self, link: Link) -> None:
        link.breaker = self._breakers.book_of(UPSTREAM)

    @property
    def reachable(self) -> bool:
        """Whether it may be called now, as far as is known."""
        book = self._breakers.book_of(UPSTREAM)
        return not self._unreachable and (book is None or book.admits(time.monotonic_ns()))

    @property
    def failing(self) -> bool:
        book = self._breakers.book_of(UPSTREAM)
        return book is not None and book.state.run >= OUTAGE_CALLS

    def enqueue(self, pending: PendingCall) -> None:
        super().enqueue(pending)
        if not self.reachable:
            self._stuck(time.monotonic_ns())

    def _admitting(self, now_ns: int) -> bool:  # noqa: ARG002
        return True  # an open breaker is always heeded: there is no other server

    def _stuck(self, now_ns: int) -> None:
        """Ends what waits, if the upstream cannot be called now."""
        super()._stuck(now_ns)
        book = self._breakers.book_of(UPSTREAM)
        if book is None or (book.admits(now_ns) and not self._unreachable):
            return
        for pending in self.queue.drain():
            if book.admits(now_ns):
                book.began(now_ns)
                book.note(1, 1, 0, now_ns)
                error: HyperionError = UpstreamFailed(
                    f'model "{self.model}" is served by another server, which {self._unreachable}'
                )
            else:
                left_s = book.left_s(now_ns)
                error = NotReady(
                    f'model "{self.model}" is served by another server, which failed too often and is left alone '
                    f"for {left_s:.1f} s",
                    retry_after_s=max(1.0, left_s),
                )
            self._fail(pending, error, None)

    # --- outcomes, from the links ---

    def refused(self, pending: PendingCall, error: HyperionError, batch: Batch) -> None:
        """It did not answer this call."""
        if error.blame != "caller":
            self._log.write(
                "warning", "upstream failed", request_id=pending.request_id, endpoint=self.model, error=error.message
            )
        self._fail(pending, error, batch)

    def expired(self, link: Link, batch: Batch, now_ns: int) -> None:
        """It gave the batch up when the time that it was given was over, a moment before this gateway would have."""
        for pending in batch.calls:
            if not pending.done:
                self._expire_held(link, pending, batch, now_ns)

    def compute_apart(self, batch: Batch) -> None:
        """It refused a merged batch for what may be the fault of one call: each goes alone."""
        for pending in batch.calls:
            if not pending.done:
                self.queue.push_suspects([pending])
        self._schedule_pump()

    def batch_gone(self) -> None:
        """A batch that nobody waited for any more has ended."""
        self.epoch += 1
        self._schedule_pump()

    def unreachable(self, reason: str) -> None:
        """It cannot be called, until this is told ""."""
        if reason and not self._unreachable:
            self._log.write("warning", "upstream away", endpoint=self.model, reason=reason)
        elif self._unreachable and not reason:
            self._log.write("info", "upstream answers", endpoint=self.model)
        self._unreachable = reason
        self._schedule_pump()
