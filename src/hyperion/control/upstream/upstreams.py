"""The upstreams that endpoints name: what each says of its model, looked at again and again.

Part of the control loop. A look takes what is known and never waits; each upstream has a task of its own, which wakes
the loop when there is news. What was known of one that is gone stays: whether calls to it fail is for the gateways'
breakers to see.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from msgspec import Struct

from hyperion.control.upstream.ask import ask_upstream
from hyperion.policy.upstream import choose_tensors, make_digest, make_signature, pause_s
from hyperion.schema.errors import HyperionError
from hyperion.schema.model import Signature
from hyperion.schema.protect import Upstream
from hyperion.wire.oip.model_metadata import ModelMetadata

Ask = Callable[[Upstream], Awaitable[ModelMetadata]]

NOT_YET: Final = "it has not answered yet"  # nor failed to


class Known(Struct, frozen=True):
    """What an upstream says of its model: `digest` is over that, and over where it is."""

    signature: Signature
    platform: str
    digest: str


class Finding(Struct, frozen=True):
    """The last look at an upstream: what is known, and why the look failed ("" where it did not)."""

    upstream: Upstream
    known: Known | None = None
    reason: str = NOT_YET


class Upstreams:
    """By endpoint. All methods run on the event loop's thread; `wake` is called when there is news."""

    def __init__(self, wake: Callable[[], None], say: Callable[[str, str], None], ask: Ask = ask_upstream) -> None:
        self._wake = wake
        self._say = say
        self._ask = ask
        self._found: dict[str, Finding] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, wanted: Mapping[str, Upstream]) -> None:
        """Look at these from now on, and at no others."""
        for name in [name for name, found in self._found.items() if wanted.get(name) != found.upstream]:
            self._tasks.pop(name).cancel()
            del self._found[name]
        for name, upstream in wanted.items():
            if name not in self._found:
                self._found[name] = Finding(upstream)
                self._tasks[name] = asyncio.ensure_future(self._watch(name, upstream))

    def find(self, name: str) -> Finding:
        """The last look at one that is followed."""
        return self._found[name]

    async def _watch(self, name: str, upstream: Upstream) -> None:
        failures = 0
        while True:
            old = self._found[name]
            try:
                new = Finding(upstream, _read(upstream, await self._ask(upstream)), "")
                failures = 0
            except HyperionError as error:
                new = Finding(upstream, old.known or _declare(upstream), error.message)
                failures += 1
            except Exception as error:  # a bug in the reader must not end the looks at all others
                new = Finding(upstream, old.known, f"{type(error).__name__}: {error}")
                failures += 1
            if new != old:
                self._found[name] = new
                news = f"cannot be used: {new.reason}" if new.reason else "answers"
                self._say(f"upstream {name}", f"{name}: its upstream {news}")
                self._wake()
            await asyncio.sleep(pause_s(failures))


def _declare(upstream: Upstream) -> Known | None:
    """What is known of one that has never answered: all that is needed, where its resource says it."""
    return _read(upstream, ModelMetadata("", (), ())) if upstream.inputs and upstream.outputs else None


def _read(upstream: Upstream, metadata: ModelMetadata) -> Known:
    inputs = choose_tensors("inputs", upstream.inputs, metadata.inputs)
    outputs = choose_tensors("outputs", upstream.outputs, metadata.outputs)
    signature = make_signature(inputs, outputs)
    return Known(signature, metadata.platform, make_digest(upstream, signature, metadata.platform))
