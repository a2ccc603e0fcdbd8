"""Versions laid out on disk for their runners: each in a thread, once, and again where that failed and somebody tries
anew. Asked by `control/release/releases` at each look, which never waits for it."""

import asyncio
from collections.abc import Callable, Collection

from hyperion.control.release.book import Book, Desired
from hyperion.control.release.record import Runtime
from hyperion.control.specs import choose_options
from hyperion.schema.errors import HyperionError
from hyperion.schema.registry import VerifiedSpec

# Everything that goes into the options but not into the runtime: the number of replicas is no other generation.
Key = tuple[str, Runtime, int]


class Layouts:
    """By endpoint and runtime. All methods run on the event loop's thread; `wake` is called when there is news."""

    def __init__(self, book: Book, wake: Callable[[], None]) -> None:
        self._book = book
        self._wake = wake
        self._done: dict[Key, VerifiedSpec | str] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._anew: set[tuple[str, Runtime]] = set()

    def find(self, desired: Desired, runtime: Runtime) -> VerifiedSpec | str | None:
        """The version as it is laid out, why it cannot be, or None while that is being done."""
        key = (desired.endpoint.metadata.name, runtime, desired.endpoint.spec.replicas.min)
        found = self._done.get(key)
        if found is None and key not in self._running:
            self._running[key] = asyncio.ensure_future(self._lay_out(key, desired))
        return found

    def forget(self, endpoint: str, kept: Collection[Runtime] = ()) -> None:
        """Drops what the endpoint does not keep, and failures: what was missing may be there now."""
        self._done = {
            key: found
            for key, found in self._done.items()
            if key[0] != endpoint or (key[1] in kept and not isinstance(found, str))
        }

    def renew(self, endpoint: str, runtime: Runtime) -> None:
        """Somebody tries this version once more: its files are taken from the blobs again."""
        self._anew.add((endpoint, runtime))

    async def _lay_out(self, key: Key, desired: Desired) -> None:
        runtime = key[1]
        try:
            self._done[key] = await asyncio.to_thread(_lay_out, self._book, runtime, desired, key[:2] in self._anew)
            self._anew.discard(key[:2])
        except HyperionError as error:
            self._done[key] = error.message
        except OSError as error:
            self._done[key] = f"{runtime.model}@{runtime.version}: its files cannot be laid out: {error.strerror}"
        finally:
            del self._running[key]
            self._wake()


def _lay_out(book: Book, runtime: Runtime, desired: Desired, anew: bool) -> VerifiedSpec:
    manifest = desired.manifest
    if manifest is None or (manifest.model, manifest.version) != (runtime.model, runtime.version):
        manifest = book.manifest(runtime.model, runtime.version)
    if manifest is None:
        raise HyperionError(f"{runtime.model}@{runtime.version} is no longer in the registry")
    name = desired.endpoint.metadata.name
    return book.lay_out(manifest, name, choose_options(manifest.options, desired.endpoint.spec), anew)
