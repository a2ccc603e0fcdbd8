"""Follows the children of `serve` until the platform serves or cannot, and says so once. Called by the supervisor."""

import os
from collections.abc import Callable
from typing import TextIO

import msgspec

from hyperion.cli.banner import Addresses, list_broken, write_banner
from hyperion.fleet.messages import BACKOFF, FAILED, READY, STORE_OPEN, Child
from hyperion.fleet.replicas import CONTROL_WAVE, GATEWAY_WAVE, RUNNER_WAVE
from hyperion.fleet.spawn import describe_exit
from hyperion.schema.config import EXIT_REFUSED
from hyperion.schema.snapshot import Snapshot

__all__ = ["Addresses", "Watch"]
_DONE, _FAILED = 0, 1


class Watch:
    """`end` is called where nothing can be served; `exit_code` then says so."""

    def __init__(self, addresses: Addresses, gateways: int, end: Callable[[], None], out: TextIO, err: TextIO) -> None:
        self.exit_code = _DONE
        self._addresses = addresses
        self._gateways = gateways
        self._end = end
        self._out = out
        self._err = err
        self._settled = False
        self._ended = False
        self._store_was_open = False
        self._status = ""

    def look(self, children: tuple[Child, ...]) -> None:
        """Called with all children after each change of any of them."""
        if self._ended or (self._settled and self._store_was_open):
            return
        control = next((child for child in children if child.wave == CONTROL_WAVE), None)
        if control is not None:
            self._store_was_open = self._store_was_open or control.status == STORE_OPEN
            if not self._store_was_open and has_refused(control):
                self._give_up(control.reason)
                return
        if self._settled:
            return
        broken = next((c for c in children if c.wave != RUNNER_WAVE and c.state == FAILED), None)
        if broken is not None:
            self._give_up(broken.reason or f"{broken.name} cannot start ({broken.exit})")
            return
        ready = [child for child in children if child.state == READY]
        gateways = sum(child.wave == GATEWAY_WAVE for child in ready)
        if gateways == self._gateways and any(child.wave == CONTROL_WAVE for child in ready):
            self._settle()
            return
        self._show_status("" if control is None else control.status)

    def _settle(self) -> None:
        self._settled = True
        snapshot = msgspec.json.decode((self._addresses.home / "snapshot.json").read_bytes(), type=Snapshot)
        broken = list_broken(snapshot)
        if broken and not snapshot.models and self._addresses.paths:  # a home may be mended through its management API
            self._give_up("; ".join(f'model "{state.name}": {state.reason}' for state in broken[:5]))
            return
        self._show_status("")
        colour = self._out.isatty() and not os.environ.get("NO_COLOR")
        self._print(self._out, write_banner(snapshot, self._addresses, colour=colour))

    def _give_up(self, reason: str) -> None:
        self._settled = self._ended = True
        self.exit_code = _FAILED
        self._show_status("")
        self._print(self._err, f"hyperion: {reason}\n")
        self._end()

    def _show_status(self, status: str) -> None:
        """One line that is overwritten, on a terminal only."""
        if status != self._status and self._out.isatty():
            self._print(self._out, f"\r\x1b[K{status}")
        self._status = status

    def _print(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            return  # nobody reads; serving goes on


def has_refused(control: Child) -> bool:
    """Whether control found a setting wrong only after it was ready: PATHs are served before the store is opened."""
    return control.state in (BACKOFF, FAILED) and control.exit == describe_exit(EXIT_REFUSED) and bool(control.reason)
